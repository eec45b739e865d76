"""Every job of this project, each in its own environment: ``nox -l`` lists them, ``nox -s demo`` runs one."""

from __future__ import annotations

import os
import secrets
import sys
import tempfile
from pathlib import Path

if sys.version_info < (3, 11):  # noqa: UP036 - here to be read by the Pythons below
    # Otherwise pip tries to resolve the requirements for minutes, then blames one of them.
    sys.exit(
        f"speko-anyio needs Python 3.11 or newer, and this is Python {sys.version.split()[0]}: "
        "delete .venv and start again with a newer one, such as python3.12 in place of python3"
    )

import nox

nox.needs_version = ">=2025.2.9"
nox.options.sessions = ["lint", "types", "tests"]
nox.options.default_venv_backend = "venv"

PYPROJECT = nox.project.load_toml("pyproject.toml")
EVERYTHING = ".[trio,gateway,postgres,local,cli]"


def group(name: str) -> list[str]:
    """Give the requirements of one dependency group of pyproject.toml."""
    return list(nox.project.dependency_groups(PYPROJECT, name))


@nox.session
def demo(session: nox.Session) -> None:
    """Ask the built-in gateway a spoken question and write its spoken answer to reply.wav."""
    session.install("--quiet", EVERYTHING, silent=False)
    session.run("speko-anyio", "demo", *session.posargs)


@nox.session
def tests(session: nox.Session) -> None:
    """All tests, on asyncio, uvloop and trio; arguments go to pytest."""
    session.install("--quiet", "-e", EVERYTHING, *group("test"), silent=False)
    if session.posargs:
        session.run("pytest", *session.posargs)
        return
    # The parts stop their servers when they are interrupted.
    session.run("python", "-m", "tests.side_by_side", interrupt_timeout=30)


@nox.session
def minimums(session: nox.Session) -> None:
    """Test the core and the client with the oldest dependencies that pyproject.toml admits."""
    oldest = [requirement.replace(">=", "==") for requirement in PYPROJECT["project"]["dependencies"]]
    session.install("--quiet", "-e", ".[trio]", *oldest, *group("minimums"), silent=False)
    session.run("pytest", "tests/protocol", "tests/client", "tests/adapters", *session.posargs)


@nox.session
def lint(session: nox.Session) -> None:
    """Style, and the async bugs that a linter can see."""
    session.install("--quiet", *group("lint"))
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")


@nox.session
def types(session: nox.Session) -> None:
    """mypy --strict and pyright over the package and its tests; mypy over the benchmarks, too."""
    needs = [*group("test"), *group("bench"), *group("types")]
    session.install("--quiet", "-e", EVERYTHING, *needs, silent=False)
    session.run("mypy")
    session.run("pyright")
    # What users' own checkers see: every public name has a type that all of them read alike.
    session.install("--quiet", "--no-deps", ".")
    session.run("pyright", "--verifytypes", "speko_anyio", "--ignoreexternal")


@nox.session
def deep(session: nox.Session) -> None:
    """Run the property-based and stateful proofs with 100,000 examples each: two hours. Arguments choose."""
    session.install("--quiet", "-e", ".[trio]", *group("test"), silent=False)
    session.env["HYPOTHESIS_PROFILE"] = "deep"
    machine, differential = "tests/machines/test_session_machine.py", "tests/machines/test_differential.py"
    # A process each: hypothesis remembers what it has seen, which comes to gigabytes.
    for proof in session.posargs or (machine, differential):
        session.run("pytest", proof)


@nox.session
def fuzz(session: nox.Session) -> None:
    """Fuzz the receive paths guided by coverage, then all parsers and the bridge; seconds for each, or 60.

    The second part holds each input to a bound on time and one on memory.
    """
    session.install("--quiet", "-e", EVERYTHING, *group("test"), *group("fuzz"), silent=False)
    seconds = session.posargs[0] if session.posargs else "60"
    with tempfile.TemporaryDirectory() as corpus:
        session.run(
            "python",
            "-m",
            "tests.fuzz.fuzz_receive",
            f"-max_total_time={seconds}",
            corpus,
            "tests/fuzz/corpus",
        )
    # Another first input each time, which a finding names.
    session.run("python", "-m", "tests.fuzz.fuzz_parsers", seconds, str(secrets.randbelow(10**9)))


@nox.session
def bench(session: nox.Session) -> None:
    """Measure the codec, or what you name.

    That is `bridge`, `client`, `echo`, `gateway`, `hostile`, `telephony` or `voice`. The
    other arguments go to the benchmark.
    """
    arguments = list(session.posargs)
    others = ("bridge", "client", "echo", "gateway", "hostile", "telephony", "voice")
    name = arguments.pop(0) if arguments and arguments[0] in others else "codec"
    what = "." if name in ("client", "codec", "telephony") else EVERYTHING
    models = group("whisper") if name == "voice" else []
    session.install("--quiet", "-e", what, *group("bench"), *models, silent=False)
    session.run("python", f"benchmarks/{name}.py", *arguments)


@nox.session
def docs(session: nox.Session) -> None:
    """Build the documentation into site/; a broken link is an error. Arguments go to zensical."""
    session.install("--quiet", *group("docs"), silent=False)
    session.run("zensical", "build", "--clean", "--strict", *session.posargs)


@nox.session
def build(session: nox.Session) -> None:
    """Build the sdist and the wheel into dist/, and check their metadata."""
    session.install("--quiet", "build", "twine")
    session.run("python", "-m", "build", "--outdir", "dist")
    session.run("twine", "check", "--strict", *map(str, Path("dist").glob("*")))


if os.environ.get("CI"):
    nox.options.error_on_missing_interpreters = True
