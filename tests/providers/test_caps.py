"""The operator's options are caps for what clients ask for in a mint's metadata."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from speko_anyio import GoogleOptions, OpenAIOptions, XAIOptions
from speko_anyio.protocol import LocalProtocolError
from speko_anyio.providers._options import OPTIONS_KEY, merge_client_options
from speko_anyio.providers.openai import RetentionRatio, SemanticVad, ServerVad

CLASSES: dict[str, type[Any]] = {"openai": OpenAIOptions, "xai": XAIOptions, "google": GoogleOptions}


def granted(options: Any, **wishes: Any) -> Any:
    """What a client gets of an operator with `options`."""
    (name,) = (name for name, kind in CLASSES.items() if isinstance(options, kind))
    return merge_client_options(options, {OPTIONS_KEY: {name: wishes}}, name)


@pytest.mark.parametrize(
    ("own", "asked", "got"),
    [
        (200, "inf", 200),
        (200, 4096, 200),
        (200, 50, 50),
        (200, None, 200),
        ("inf", 50, 50),
        ("inf", "inf", "inf"),
        (None, 50, 50),
        (None, "inf", "inf"),
    ],
)
def test_of_two_limits_the_lower_holds(own: Any, asked: Any, got: Any) -> None:
    options = OpenAIOptions(max_output_tokens=own)
    assert granted(options, max_output_tokens=asked) == OpenAIOptions(max_output_tokens=got)
    if own != "inf" and asked != "inf":
        google = GoogleOptions(max_output_tokens=own)
        assert granted(google, max_output_tokens=asked).max_output_tokens == got


@pytest.mark.parametrize(
    ("own", "asked", "got"),
    [(1024, 2048, 1024), (1024, -1, 1024), (1024, 100, 100), (1024, None, 1024), (0, 5, 0), (-1, 5, 5)],
)
def test_of_two_budgets_the_smaller_holds(own: int, asked: int | None, got: int) -> None:
    assert granted(GoogleOptions(thinking_budget=own), thinking_budget=asked).thinking_budget == got


@pytest.mark.parametrize(
    ("own", "asked", "got"),
    [("low", "xhigh", "low"), ("high", "low", "low"), ("low", "low", "low"), ("low", None, "low")],
)
def test_of_two_efforts_the_lower_holds(own: Any, asked: Any, got: str) -> None:
    assert granted(OpenAIOptions(reasoning_effort=own), reasoning_effort=asked).reasoning_effort == got
    assert granted(GoogleOptions(thinking_level=own), thinking_level=asked).thinking_level == got


def test_what_costs_and_was_left_to_the_provider_can_only_be_switched_off() -> None:
    assert granted(GoogleOptions(), thinking_budget=0).thinking_budget == 0
    assert granted(GoogleOptions(), thinking_level="minimal").thinking_level == "minimal"
    assert granted(OpenAIOptions(), reasoning_effort="minimal").reasoning_effort == "minimal"
    assert granted(OpenAIOptions(), transcription_model=None).transcription_model is None
    assert not granted(GoogleOptions(), input_transcription=False).input_transcription
    options: Any
    for options, wish in (
        (GoogleOptions(), {"thinking_budget": 1}),
        (GoogleOptions(), {"thinking_budget": -1}),
        (GoogleOptions(), {"thinking_level": "low"}),
        (OpenAIOptions(), {"reasoning_effort": "xhigh"}),
        (OpenAIOptions(), {"transcription_model": "gpt-4o-transcribe"}),
        (OpenAIOptions(transcription_model=None), {"transcription_model": "gpt-realtime-whisper"}),
        (XAIOptions(transcription_model=None), {"transcription_model": "grok-transcribe"}),
    ):
        with pytest.raises(
            LocalProtocolError, match=f"can't have {next(iter(wish))}.*only the server's operator"
        ):
            granted(options, **wish)


@pytest.mark.parametrize("milliseconds", [0, 6000])
def test_a_client_can_not_have_the_model_talk_to_nobody(milliseconds: int) -> None:
    own = ServerVad(idle_timeout_ms=9000)
    wish = {"type": "server_vad", "idle_timeout_ms": milliseconds}
    for options in (OpenAIOptions(), OpenAIOptions(turn_detection=own)):
        with pytest.raises(
            LocalProtocolError, match="can't have idle_timeout_ms: only the server's operator"
        ):
            granted(options, turn_detection=wish)
    wish["idle_timeout_ms"] = 9000
    assert granted(OpenAIOptions(turn_detection=own), turn_detection=wish).turn_detection == own
    wish = {"type": "server_vad", "silence_duration_ms": 300}
    got = granted(OpenAIOptions(), turn_detection=wish).turn_detection
    assert got == ServerVad(silence_duration_ms=300)


def test_transcription_that_the_operator_switched_off_stays_off() -> None:
    options = GoogleOptions(input_transcription=False, output_transcription=False)
    assert granted(options, input_transcription=True, output_transcription=True) == options


@pytest.mark.parametrize(
    ("options", "wish"),
    [
        (OpenAIOptions(turns="manual"), {"turns": "auto"}),
        (OpenAIOptions(turn_detection=SemanticVad()), {"turn_detection": {"type": "server_vad"}}),
        (OpenAIOptions(tool_choice="none"), {"tool_choice": "required"}),
        (OpenAIOptions(transcription_prompt="names"), {"transcription_prompt": "others"}),
        (OpenAIOptions(parallel_tool_calls=False), {"parallel_tool_calls": True}),
        (XAIOptions(resumption=True), {"resumption": False}),
        (GoogleOptions(compression=False), {"compression": True}),
        (GoogleOptions(tool_behavior="blocking"), {"tool_behavior": "non_blocking"}),
    ],
)
def test_anything_else_that_the_operator_set_is_fixed(options: Any, wish: dict[str, Any]) -> None:
    (name,) = wish
    with pytest.raises(LocalProtocolError, match=f"can't have {name}: only the server's operator"):
        granted(options, **wish)
    own = getattr(options, name)
    if not isinstance(own, ServerVad | SemanticVad):
        assert granted(options, **{name: own}) == options


@pytest.mark.parametrize(
    ("options", "wish"),
    [
        (OpenAIOptions(), {"tracing": "auto"}),
        (OpenAIOptions(), {"approval_tool": "approve"}),
        (OpenAIOptions(), {"provider_extra": {"x": 1}}),
        (XAIOptions(), {"provider_extra": {}}),
        (OpenAIOptions(), {"client_extra": True}),
        (XAIOptions(client_extra=True), {"client_extra": True}),
        (OpenAIOptions(truncation=RetentionRatio(retention_ratio=0.5)), {"truncation": "auto"}),
        (XAIOptions(reasoning_effort="none"), {"reasoning_effort": "high"}),
        (XAIOptions(), {"reasoning_effort": "high"}),
        (XAIOptions(keyterms=("a",)), {"keyterms": ["b"]}),
        (XAIOptions(replace={"a": "b"}), {"replace": {}}),
    ],
)
def test_what_only_the_operator_may_choose(options: Any, wish: dict[str, Any]) -> None:
    if options == XAIOptions(reasoning_effort="none"):
        assert granted(options, **wish) == options
        return
    with pytest.raises(LocalProtocolError, match="only the server's operator"):
        granted(options, **wish)


def test_a_client_may_have_less_and_what_costs_nothing() -> None:
    assert granted(XAIOptions(), reasoning_effort="none").reasoning_effort == "none"
    assert granted(XAIOptions(), speed=1.2, language_hint="ja", keyterms=["Speko"]) == XAIOptions(
        speed=1.2, language_hint="ja", keyterms=("Speko",)
    )
    assert granted(XAIOptions(speed=1.1), speed=1.5).speed == 1.1
    wish = {"type": "retention_ratio", "retention_ratio": 0.5}
    assert granted(OpenAIOptions(), truncation=wish).truncation == RetentionRatio(retention_ratio=0.5)


def test_the_operator_may_allow_extra_fields_and_its_own_take_precedence() -> None:
    options = OpenAIOptions(client_extra=True, provider_extra={"a": {"x": 1}, "b": 1})
    got = granted(options, provider_extra={"a": {"x": 2, "y": 2}, "b": {"z": 3}, "c": 4}, speed=1.2)
    assert got.provider_extra == {"a": {"x": 1, "y": 2}, "b": 1, "c": 4}
    assert (got.client_extra, got.speed) == (True, 1.2)


def test_of_two_speeds_the_slower_holds_and_what_was_left_alone_is_the_client_s() -> None:
    assert granted(OpenAIOptions(speed=1.1), speed=1.5).speed == 1.1
    assert granted(OpenAIOptions(speed=1.1), speed=0.9).speed == 0.9
    options = granted(
        OpenAIOptions(), speed=1.4, turns="manual", tool_choice="none", noise_reduction="far_field"
    )
    assert options == OpenAIOptions(
        speed=1.4, turns="manual", tool_choice="none", noise_reduction="far_field"
    )


@pytest.mark.parametrize(
    ("wish", "value"),
    [
        ("safety_settings", {"harassment": "off"}),
        ("provider_extra", {"labels": {}}),
        ("client_extra", True),
        ("server_tools", []),
    ],
)
def test_what_is_the_operator_s_alone(wish: str, value: Any) -> None:
    with pytest.raises(LocalProtocolError, match=f"can't have {wish}: only the server's operator"):
        granted(GoogleOptions(), **{wish: value})


def test_an_operator_may_let_clients_merge_fields() -> None:
    own = GoogleOptions(client_extra=True, provider_extra={"labels": {"team": "voice"}})
    got = granted(own, provider_extra={"labels": {"team": "x", "call": "1"}})
    assert got.provider_extra == {"labels": {"team": "voice", "call": "1"}}


NUMBER = st.none() | st.sampled_from(["inf"]) | st.integers(1, 4096)


@given(own=NUMBER, first=NUMBER)
def test_no_client_has_more_tokens_than_the_operator_allows(own: Any, first: Any) -> None:
    got = granted(OpenAIOptions(max_output_tokens=own), max_output_tokens=first).max_output_tokens
    if isinstance(own, int):
        assert isinstance(got, int)
        assert got <= own
    if isinstance(first, int):
        assert isinstance(got, int)
        assert got <= first
