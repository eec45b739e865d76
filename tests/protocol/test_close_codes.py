from __future__ import annotations

import pytest

from speko_anyio.protocol import close_codes, is_sendable

SENDABLE = [1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 3000, 3999, 4000, 4999]
NOT_SENDABLE = [-1, 0, 999, 1004, 1005, 1006, 1014, 1015, 1016, 1999, 2000, 2999, 5000, 65_535, 65_536]


@pytest.mark.parametrize("code", SENDABLE)
def test_sendable(code: int) -> None:
    assert is_sendable(code)


@pytest.mark.parametrize("code", NOT_SENDABLE)
def test_not_sendable(code: int) -> None:
    assert not is_sendable(code)


def test_the_named_codes_are_the_registered_ones() -> None:
    assert (
        close_codes.NORMAL,
        close_codes.GOING_AWAY,
        close_codes.PROTOCOL_ERROR,
        close_codes.NO_STATUS,
        close_codes.ABNORMAL,
        close_codes.INVALID_DATA,
        close_codes.POLICY,
        close_codes.TOO_BIG,
        close_codes.INTERNAL_ERROR,
        close_codes.SERVICE_RESTART,
        close_codes.UNAUTHORIZED,
    ) == (1000, 1001, 1002, 1005, 1006, 1007, 1008, 1009, 1011, 1012, 4401)


@pytest.mark.parametrize(
    ("reason", "kept"),
    [
        ("", ""),
        ("x" * 123, "x" * 123),
        ("x" * 124, "x" * 123),
        ("\u00e9" * 61 + "x", "\u00e9" * 61 + "x"),
        ("\u00e9" * 62, "\u00e9" * 61),
        ("\u20ac" * 42, "\u20ac" * 41),
        ("x" + "\U0001f600" * 31, "x" + "\U0001f600" * 30),
    ],
)
def test_a_long_reason_is_cut_by_whole_characters(reason: str, kept: str) -> None:
    assert close_codes.cut_reason(reason) == kept


def test_half_of_a_surrogate_pair_counts_as_one_byte() -> None:
    assert close_codes.cut_reason("\ud800" * 123) == "\ud800" * 123
    assert close_codes.cut_reason("\ud800" * 124) == "?" * 123


@pytest.mark.parametrize(
    ("code", "allowed"),
    [(1000, True), (3000, True), (4999, True), (1001, False), (2999, False), (5000, False), ("1000", False)],
)
def test_applications_have_the_normal_code_and_their_own(code: object, allowed: bool) -> None:
    assert close_codes.is_for_applications(code) is allowed
