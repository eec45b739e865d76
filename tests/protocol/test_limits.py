from __future__ import annotations

import msgspec
import pytest

from speko_anyio.protocol import DEFAULT_LIMITS, Limits


def test_the_defaults() -> None:
    assert msgspec.structs.asdict(DEFAULT_LIMITS) == {
        "max_message_size": 1024 * 1024,
        "max_text_size": 256 * 1024,
        "max_image_size": 4 * 1024 * 1024,
        "max_fragments": 1024,
        "max_control_frames": 1024,
        "max_messages_per_second": 1000,
        "max_messages_at_once": 20_000,
        "max_json_depth": 256,
        "max_open_calls": 256,
        "max_outbox": 16 * 1024 * 1024,
    }


def test_limits_are_frozen_and_by_keyword_only() -> None:
    with pytest.raises(AttributeError):
        DEFAULT_LIMITS.max_outbox = 1  # type: ignore[misc]
    with pytest.raises(TypeError):
        Limits(1)  # type: ignore[call-arg]


def test_one_limit_changes_without_the_others() -> None:
    assert Limits(max_text_size=7) == msgspec.structs.replace(DEFAULT_LIMITS, max_text_size=7)
