"""The reference: a page for each package, with every public name, its import path and its constructor."""

from __future__ import annotations

import html
import importlib
import re
from pathlib import Path

import pytest

from .programs import DOCS
from .site import built_site as site

__all__ = ["site"]

ROOT = DOCS.parent
PAGES = {
    "speko_anyio": "speko_anyio",
    "speko_anyio.audio": "audio",
    "speko_anyio.gateway": "gateway",
    "speko_anyio.gateway.local": "local",
    "speko_anyio.gateway.store": "store",
    "speko_anyio.protocol": "protocol",
    "speko_anyio.recording": "recording",
    "speko_anyio.telephony": "telephony",
    "speko_anyio.testing": "testing",
    "speko_anyio.testing.providers": "doubles",
}

MODULES = {"g711", "steps"}
"""Modules that are imported from their package like a name, and described as a whole."""

CONSTRUCTED = """
    speko_anyio.Speko speko_anyio.OpenAI speko_anyio.OpenAIOptions speko_anyio.ToolSpec speko_anyio.Audio
    speko_anyio.Playback speko_anyio.audio.Microphone speko_anyio.gateway.Gateway
    speko_anyio.recording.Recorder speko_anyio.testing.providers.Say
    speko_anyio.protocol.ClientConnection speko_anyio.gateway.SQLStore
    speko_anyio.gateway.local.LocalVoice speko_anyio.otel.OpenTelemetry
"""
OBTAINED = """
    speko_anyio.RealtimeSession speko_anyio.Realtime speko_anyio.FrameStream speko_anyio.SessionStats
    speko_anyio.Tool speko_anyio.APIStatusError speko_anyio.ConnectionClosed speko_anyio.Provider
    speko_anyio.gateway.ServerSession speko_anyio.protocol.WebSocketCore speko_anyio.protocol.Dialect
"""
"""Classes that only the library instantiates, and base classes: users don't call their constructors."""


def source(page: str) -> str:
    return (DOCS / "reference" / f"{page}.md").read_text(encoding="utf-8")


def shown(text: str) -> list[str]:
    """Return the names that a page describes itself."""
    return re.findall(r"^::: (\S+)$", text, re.MULTILINE)


@pytest.mark.parametrize("package", PAGES)
def test_every_public_name_is_on_the_page_of_its_package(package: str) -> None:
    text = source(PAGES[package])
    linked = re.findall(r"\[`(\w+)`\]\(\S+#speko_anyio\.[\w.]+\)", text)
    on_page = {
        path.rpartition(".")[2] for path in shown(text) if path.rpartition(".")[0] == package
    } - MODULES
    assert sorted({*on_page, *linked}) == sorted(importlib.import_module(package).__all__)
    assert not on_page & set(linked)


def test_no_public_package_is_without_a_page() -> None:
    inner = {"speko_anyio.cli", "speko_anyio.cli.bench"}  # a command, not an API
    # Described with the other providers.
    inner |= {f"speko_anyio.providers.{name}" for name in ("bridge", "google", "realtime")}
    packages = set()
    for path in (ROOT / "src").rglob("__init__.py"):
        if re.search(r"^__all__ ", path.read_text(encoding="utf-8"), re.MULTILINE):
            packages.add(".".join(path.parent.relative_to(ROOT / "src").parts))
    assert packages - inner == set(PAGES)


def test_a_module_without_an_underscore_is_on_a_page() -> None:
    text = "".join(page.read_text(encoding="utf-8") for page in (DOCS / "reference").glob("*.md"))
    unnamed = []
    for path in (ROOT / "src").rglob("*.py"):
        names = path.relative_to(ROOT / "src").with_suffix("").parts
        if not any(name.startswith("_") for name in names) and ".".join(names) not in text:
            unnamed.append(".".join(names))
    assert unnamed == []


def test_everything_is_described_once_and_can_be_imported() -> None:
    described = [path for page in (DOCS / "reference").glob("*.md") for path in shown(page.read_text())]
    assert len(described) == len(set(described))
    for path in described:
        module, _, name = path.rpartition(".")
        try:
            importlib.import_module(path)
        except ModuleNotFoundError:
            assert hasattr(importlib.import_module(module), name), path


def signatures(site: Path) -> dict[str, str]:
    """Return the signature of each class that has one, by its import path."""
    found = {}
    for page in (site / "reference").glob("*.html"):
        parts = re.split(r'<h3 id="(speko_anyio[\w.]*)"', page.read_text(encoding="utf-8"))
        for path, content in zip(parts[1::2], parts[2::2], strict=True):
            code = re.search(r"</h3>\s*<div[^>]*><pre[^>]*>(.*?)</pre>", content, re.DOTALL)
            if code is not None:
                found[path] = html.unescape(re.sub(r"<[^>]+>", "", code[1])).strip()
    return found


def test_constructors_are_shown_where_users_call_them_and_nowhere_else(site: Path) -> None:
    found = signatures(site)
    for path in CONSTRUCTED.split():
        assert found[path].startswith(path.rpartition(".")[2] + "("), path
    for path in OBTAINED.split():
        assert not found.get(path, "").startswith(path.rpartition(".")[2] + "("), path
    assert "    transcription_model: " in found["speko_anyio.OpenAIOptions"]
    assert '*,\n    name: str,\n    description: str = "",' in found["speko_anyio.ToolSpec"]


def test_the_keywords_of_a_typed_dict_are_spelled_out(site: Path) -> None:
    page = (site / "reference" / "speko_anyio.html").read_text(encoding="utf-8")
    for method, keywords in {
        "Realtime.create_session": "provider model voice tools metadata ttl_seconds agent_id webhook_tags",
        "Realtime.connect": "provider model voice system_prompt tools metadata webhook_tags **options",
        "Realtime.open": "grant tools ttl_seconds **options",
        "Provider.connect": "model voice temperature input_sample_rate output_sample_rate tools **options",
    }.items():
        (shown,) = re.findall(rf'<h4 id="speko_anyio.{method}".*?<pre[^>]*>(.*?)</pre>', page, re.DOTALL)
        signature = html.unescape(re.sub(r"<[^>]+>", "", shown))
        for name in keywords.split():
            assert re.search(rf"^    {re.escape(name)}: ", signature, re.MULTILINE), (method, signature)
        assert ("Unpack[SessionOptions]" in signature) is ("**options" in keywords), signature
        assert "Parameters" not in signature


def test_nothing_private_is_shown(site: Path) -> None:
    for path, signature in signatures(site).items():
        assert not re.search(r"[^\w]_[a-z]", signature), f"{path}: {signature}"
    for page in (site / "reference").glob("*.html"):
        assert not re.search(r'id="speko_anyio[\w.]*\._(?!_|version)', page.read_text(encoding="utf-8")), (
            page.name
        )
