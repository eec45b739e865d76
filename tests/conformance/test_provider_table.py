"""The page that says what each provider does with what is what the code does."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from docs import provider_table
from speko_anyio.protocol.mint import SessionConfig
from speko_anyio.testing.providers import GoogleSession


def test_the_committed_page_is_what_the_code_does() -> None:
    committed = provider_table.PAGE.read_text(encoding="utf-8")
    assert committed == provider_table.markdown(), "run: python docs/provider_table.py"


def test_no_parameter_and_no_option_is_left_out() -> None:
    parameters = {field.name for field in msgspec.structs.fields(SessionConfig)}
    assert set(provider_table.PARAMETERS) == parameters - {"provider"}
    for provider in provider_table.PROVIDERS.values():
        assert set(provider.values) == {field.name for field in msgspec.structs.fields(provider.options)}


@pytest.mark.parametrize("name", provider_table.PROVIDERS)
def test_the_sample_values_are_no_defaults(name: str) -> None:
    provider = provider_table.PROVIDERS[name]
    for field in msgspec.structs.fields(provider.options):
        assert field.default != provider.values[field.name], field.name


@pytest.mark.parametrize("name", provider_table.PROVIDERS)
def test_nothing_goes_wrong_in_the_conversations(name: str) -> None:
    for talk in provider_table.conversations(name):
        if isinstance(talk.session, GoogleSession):
            assert talk.session.closed is None or talk.session.closed[0] not in (1007, 1008)
        else:
            assert {error.get("code") for error in talk.session.errors} <= {"session_expired", None}


def test_the_page_is_written_beside_its_script(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(provider_table, "PAGE", tmp_path / "page.md")
    provider_table.main()
    assert (tmp_path / "page.md").read_text(encoding="utf-8").startswith("<!-- Written by")
