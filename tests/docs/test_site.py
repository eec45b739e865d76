"""The site: complete, self-contained, and with a landing page that shows what it promises."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from docs import benchmark_bars, benchmark_summary
from speko_anyio.audio.wav import read_wav

from .programs import DOCS, programs
from .site import built_site as site

__all__ = ["site"]

LINKED = ("https://github.com/speko/speko-anyio", "https://zensical.org/", "https://anyio.readthedocs.io")
"""Pages elsewhere that a reader may follow a link to; nothing is loaded from them."""


def pages(site: Path) -> dict[str, str]:
    return {
        path.relative_to(site).as_posix(): path.read_text(encoding="utf-8") for path in site.rglob("*.html")
    }


def test_every_page_is_built_and_in_the_navigation(site: Path) -> None:
    built = pages(site)
    sources = {path.relative_to(DOCS).with_suffix(".html").as_posix() for path in DOCS.rglob("*.md")}
    assert sources | {"404.html"} == built.keys()
    linked = set(re.findall(r'<a href="([^"#]+)"[^>]*class="md-nav__link', built["404.html"]))
    assert {link.rpartition("speko-anyio/")[2].lstrip("/") for link in linked} >= sources - {"index.html"}


def test_nothing_is_loaded_from_elsewhere(site: Path) -> None:
    for name, page in pages(site).items():
        # Of the elements that load something `a` is none; a canonical link is for search engines.
        for element in re.findall(r"<(?!a\b)[^>]*(?:https?:)?//[^>]*>", page):
            if 'property="og:' in element or 'xmlns="http://www.w3.org/' in element:
                continue
            assert not re.search(r"""(?:src|href|srcset|url\()\s*=?\s*["']?(?:https?:)?//""", element), (
                f"{name}: {element}"
            )
        for link in re.findall(r'<a [^>]*href="(https?://[^"]+)"', page):
            assert link.startswith(LINKED), f"{name}: {link}"
        assert 'data-md-component="source"' not in page  # its script asks api.github.com
        assert 'class="mermaid"' not in page  # its script comes from unpkg.com
    for style in site.rglob("*.css"):
        assert not re.search(r"url\(\s*[\"']?(?:https?:)?//", style.read_text(encoding="utf-8")), style


def test_there_is_a_dark_mode(site: Path) -> None:
    page = (site / "index.html").read_text(encoding="utf-8")
    assert re.findall(r'data-md-color-scheme="(\w+)"', page)
    assert 'data-md-color-media="(prefers-color-scheme: dark)"' in page


def test_the_landing_page_has_a_short_program_an_answer_and_pictures(site: Path) -> None:
    page = (site / "index.html").read_text(encoding="utf-8")
    (program,) = programs("index.md")
    assert len([line for line in program.source.splitlines() if line]) <= 11
    (answer,) = re.findall(r'<audio [^>]*src="([^"]+)"', page)
    assert (site / answer).stat().st_size < 100_000
    assert 0.5 < read_wav(site / answer).seconds < 3
    for picture in ("timeline.svg", "benchmark-bars.svg"):
        assert f'src="{picture}"' in page
        assert (site / picture).exists()


def test_the_bars_are_those_of_the_results() -> None:
    assert benchmark_bars.PICTURE.read_text(encoding="utf-8") == benchmark_bars.svg(), (
        "run: python docs/benchmark_bars.py"
    )


def test_no_library_that_is_faster_is_left_out_of_the_bars() -> None:
    for comparison in benchmark_bars.COMPARISONS:
        shown = benchmark_bars.figures(comparison)
        # A name with a comma is another way to use a library, one in parentheses is no library.
        faster = {
            name
            for name, median in benchmark_bars.medians(comparison).items()
            if median <= shown["speko-anyio"] and not re.search("[,(]", name)
        }
        assert faster <= shown.keys(), comparison.title


def test_the_summary_of_the_benchmarks_is_that_of_the_results() -> None:
    page = benchmark_summary.PAGE.read_text(encoding="utf-8")
    assert page == benchmark_summary.page(), "run: python docs/benchmark_summary.py"
    assert benchmark_summary.PICTURE.read_text(encoding="utf-8") == benchmark_summary.svg()
    picture, table = page.index("benchmarks.svg"), page.index("| --- |")
    assert picture < table < 600, "a reader sees the picture and the table first"


@pytest.mark.parametrize("page", sorted(DOCS.rglob("*.md")), ids=lambda page: page.stem)
def test_a_page_has_one_title_that_fits_a_phone(page: Path) -> None:
    text = re.sub(r"^```.*?^ *```$", "", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
    (title,) = re.findall(r"^# (.+)$", text, re.MULTILINE)
    assert len(title) <= 50
