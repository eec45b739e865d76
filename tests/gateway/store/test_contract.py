"""What every store promises, whichever it is."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from speko_anyio.gateway import KeyLimits, SessionOutcome, SessionQuery, SessionStore
from speko_anyio.gateway._meter import MAX_TOKENS
from speko_anyio.gateway.store import (
    Idempotency,
    IdempotencyError,
    KeyNotFoundError,
    LimitError,
    Refused,
    SessionLife,
    Status,
    TranscriptLine,
    TranscriptPage,
)
from speko_anyio.gateway.store._records import PAGE_LINES
from speko_anyio.protocol import Close
from speko_anyio.protocol.mint import SessionConfig, ToolSpec

from .support import LEASE, NODE, claim, key, record

pytestmark = pytest.mark.anyio

SAME = Idempotency("key_a", "k", b"body")
DAY = 86_400


# One opening


async def test_a_session_is_claimed_once(store: SessionStore) -> None:
    first = record()
    assert await store.create(first, idempotency=None, now=0) == first
    assert await claim(store) == first
    assert await claim(store) is Refused.USED
    assert await claim(store, node_id="node_b") is Refused.USED
    await store.end("sess_1", SessionOutcome(), now=2)
    assert await claim(store, now=3) is Refused.USED


@pytest.mark.parametrize(
    ("session_id", "token_id", "now"),
    [("sess_2", "token_1", 1), ("sess_1", "token_2", 1), ("sess_1", "token_1", 60)],
)
async def test_only_the_very_session_in_time(
    store: SessionStore, session_id: str, token_id: str, now: float
) -> None:
    await store.create(record(), idempotency=None, now=0)
    refused = await store.claim(session_id, token_id, node_id=NODE, lease=LEASE, now=now)
    assert refused is Refused.UNKNOWN
    history = await store.get("sess_1")
    assert history is not None
    assert history.life == SessionLife()


async def test_a_record_comes_back_as_it_was(store: SessionStore) -> None:
    tools = (ToolSpec(name="f", parameters={"type": "object", "n": [1, -0.5, None, 10**25, "\u20ac\0"]}),)
    config = SessionConfig(provider="p", model="m\0", input_sample_rate=16000, tools=tools)
    first = record(config=config, metadata={"a\0": {"b": []}}, created_at=1_800_000_000.1234567)
    await store.create(first, idempotency=None, now=0)
    assert await claim(store) == first
    history = await store.get("sess_1")
    assert history is not None
    kept = history.record
    assert kept.config is not None
    assert kept.metadata is not None
    assert msgspec.json.decode(kept.config, type=SessionConfig) == config
    assert msgspec.json.decode(kept.metadata) == first.metadata
    for name in ("session_id", "key_id", "ttl_seconds", "created_at", "token_expires_at"):
        assert getattr(kept, name) == getattr(first, name)
    assert (kept.provider, kept.model) == ("p", "m\0")


# Repetition


async def test_the_same_request_makes_one_record(store: SessionStore) -> None:
    first = await store.create(record(1), idempotency=SAME, now=0)
    assert await store.create(record(2), idempotency=SAME, now=0) == first
    with pytest.raises(IdempotencyError):
        await store.create(record(3), idempotency=Idempotency("key_a", "k", b"other"), now=0)
    other = await store.create(record(4), idempotency=Idempotency("key_b", "k", b"body"), now=0)
    assert other.session_id == "sess_4"
    assert await store.get("sess_2") is None
    assert await store.get("sess_3") is None


async def test_a_repetition_is_another_mint_when_the_token_has_expired(store: SessionStore) -> None:
    await store.create(record(1), idempotency=SAME, now=0)
    again = await store.create(record(2, token_expires_at=120), idempotency=SAME, now=60)
    assert again.session_id == "sess_2"


@pytest.mark.parametrize("text", ["", "k" * 255, "caf\u00e9\0\ud800"])
async def test_any_text_is_an_idempotency_key(store: SessionStore, text: str) -> None:
    same = Idempotency("key_a", text, b"\0\xff")
    first = await store.create(record(1), idempotency=same, now=0)
    assert await store.create(record(2), idempotency=same, now=0) == first


# Life and end


async def test_an_end_is_kept_with_all_that_is_known(store: SessionStore) -> None:
    await store.create(record(), idempotency=None, now=0)
    await claim(store, now=1.5)
    lines = (TranscriptLine("user", "hi \0\ud800", 2.0), TranscriptLine("assistant", "hello", 3.25))
    outcome = SessionOutcome(
        close=Close(4000, "done\0", "remote"),
        input_audio_seconds=1.25,
        output_audio_seconds=0.5,
        input_audio_tokens=10,
        output_audio_tokens=MAX_TOKENS,
        input_text_tokens=11,
        output_text_tokens=MAX_TOKENS,
        input_image_tokens=12,
        cached_audio_tokens=13,
        cached_text_tokens=14,
        output_reasoning_tokens=15,
        reported_seconds=16.5,
        time_to_first_audio=0.125,
        tool_calls={"f": 2, "g\0": 1},
        transcript=lines,
    )
    await store.end("sess_1", outcome, now=9.5)
    history = await store.get("sess_1")
    assert history is not None
    assert history.status(10) is Status.ENDED
    life = history.life
    assert (life.started_at, life.node_id, life.ended_at) == (1.5, NODE, 9.5)
    assert (life.close_code, life.closed_by) == (4000, "client")
    assert life.close_reason in {"done\0", "done\ufffd"}
    assert life.outcome == SessionOutcome(
        input_audio_seconds=1.25,
        output_audio_seconds=0.5,
        input_audio_tokens=10,
        output_audio_tokens=MAX_TOKENS,
        input_text_tokens=11,
        output_text_tokens=MAX_TOKENS,
        input_image_tokens=12,
        cached_audio_tokens=13,
        cached_text_tokens=14,
        output_reasoning_tokens=15,
        reported_seconds=16.5,
        time_to_first_audio=0.125,
        tool_calls={"f": 2, "g\0": 1},
    )
    user, assistant = (await store.transcript("sess_1")).lines
    assert user.text.startswith("hi ")
    assert assistant == lines[1]


async def test_the_first_end_counts(store: SessionStore) -> None:
    await store.create(record(), idempotency=None, now=0)
    await claim(store)
    await store.end("sess_1", SessionOutcome(close=Close(1000, "", "local")), now=2)
    await store.end("sess_1", SessionOutcome(close=Close(1011, "", "remote")), now=3)
    await store.end("sess_unknown", SessionOutcome(), now=3)
    history = await store.get("sess_1")
    assert history is not None
    assert (history.life.ended_at, history.life.close_code, history.life.closed_by) == (2, 1000, "gateway")


async def test_what_was_not_claimed_does_not_end(store: SessionStore) -> None:
    await store.create(record(), idempotency=None, now=0)
    await store.end("sess_1", SessionOutcome(), now=2)
    assert await claim(store, now=3) == record()


# Leases


async def test_a_lease_that_runs_out_ends_the_session_at_that_moment(store: SessionStore) -> None:
    for number in (1, 2, 3):
        await store.create(record(number), idempotency=None, now=0)
    await claim(store, 1, now=1)
    await claim(store, 2, now=10)
    assert await store.sweep(now=30.5) == []
    assert list(await store.sweep(now=31)) == ["sess_1"]
    assert await store.sweep(now=32) == []
    lost, alive = await store.get("sess_1"), await store.get("sess_2")
    assert lost is not None
    assert alive is not None
    assert (lost.life.ended_at, lost.life.close_code, lost.life.close_reason, lost.life.closed_by) == (
        31,
        1006,
        "node lost",
        "sweeper",
    )
    assert alive.status(31) is Status.LIVE


async def test_a_renewed_lease_lasts(store: SessionStore) -> None:
    for number in (1, 2):
        await store.create(record(number), idempotency=None, now=0)
        await claim(store, number, node_id=f"node_{number}")
    await store.renew([], node_id="node_1", lease=LEASE, now=20)
    # Only its own node speaks for a session.
    await store.renew(["sess_1", "sess_2", "sess_unknown"], node_id="node_1", lease=LEASE, now=20)
    assert list(await store.sweep(now=40)) == ["sess_2"]


async def test_a_node_that_was_only_slow_has_its_sessions_back(store: SessionStore) -> None:
    for number in (1, 2, 3):
        await store.create(record(number), idempotency=None, now=0)
        await claim(store, number)
    await store.end("sess_3", SessionOutcome(close=Close(1000, "", "local")), now=5)
    assert sorted(await store.sweep(now=100)) == ["sess_1", "sess_2"]
    await store.renew(["sess_1", "sess_3"], node_id=NODE, lease=LEASE, now=101)
    await store.end("sess_2", SessionOutcome(close=Close(4000, "bye", "remote")), now=102)
    first, second, third = [await store.get(f"sess_{number}") for number in (1, 2, 3)]
    assert first is not None
    assert second is not None
    assert third is not None
    assert first.status(102) is Status.LIVE
    assert (first.life.close_code, first.life.closed_by) == (None, None)
    assert (second.life.ended_at, second.life.close_code, second.life.closed_by) == (102, 4000, "client")
    assert (third.life.ended_at, third.life.close_code) == (5, 1000)


# Lists


async def listed(store: SessionStore, **query: Any) -> list[str]:
    found = await store.sessions(SessionQuery(**{"limit": 10, **query}), now=100)
    return [history.record.session_id for history in found.sessions]


async def test_sessions_are_listed_newest_first_and_filtered(store: SessionStore) -> None:
    other = SessionConfig(provider="q", model="m")
    await store.create(record(1, created_at=10.0), idempotency=None, now=10)
    await store.create(record(2, created_at=20.0, token_expires_at=200), idempotency=None, now=20)
    await store.create(record(3, created_at=30.0, config=other), idempotency=None, now=30)
    await store.create(record(4, created_at=40.0, key_id="key_b"), idempotency=None, now=40)
    await claim(store, 3, now=31)
    await claim(store, 4, now=41)
    await store.end("sess_4", SessionOutcome(), now=50)
    assert await listed(store) == ["sess_4", "sess_3", "sess_2", "sess_1"]
    assert await listed(store, limit=2) == ["sess_4", "sess_3"]
    assert await listed(store, key_id="key_b") == ["sess_4"]
    assert await listed(store, key_id="\0") == []
    assert await listed(store, provider="q") == ["sess_3"]
    assert await listed(store, provider="\0") == []
    assert await listed(store, created_from=20.0, created_until=40.0) == ["sess_3", "sess_2"]
    for number, status in enumerate([Status.EXPIRED, Status.MINTED, Status.LIVE, Status.ENDED], 1):
        assert await listed(store, status=status) == [f"sess_{number}"]
        history = await store.get(f"sess_{number}")
        assert history is not None
        assert history.status(100) is status


async def test_pages_are_complete_also_when_many_are_of_one_moment(store: SessionStore) -> None:
    for number in range(10, 17):
        moment = 1.1 if number < 15 else 2.2
        await store.create(record(number, created_at=moment), idempotency=None, now=moment)
    pages: list[list[str]] = []
    after: tuple[float, str] | None = None
    more = True
    while more:
        answer = await store.sessions(SessionQuery(limit=2, after=after), now=3)
        page, more = answer.sessions, answer.more
        pages.append([history.record.session_id for history in page])
        after = page[-1].record.created_at, page[-1].record.session_id
    assert pages == [
        ["sess_16", "sess_15"],
        ["sess_14", "sess_13"],
        ["sess_12", "sess_11"],
        ["sess_10"],
    ]
    # A position that was made up is none, but no failure.
    assert len((await store.sessions(SessionQuery(limit=2, after=(1.1, "\0")), now=3)).sessions) <= 2


async def test_a_page_ends_early_when_it_is_large(store: SessionStore) -> None:
    sizes = {1: 500, 2: 400, 3: 5000, 4: 0, 5: 400}
    for number, size in sizes.items():
        metadata = {"x": "x" * size} if size else None
        await store.create(
            record(number, created_at=float(number), metadata=metadata), idempotency=None, now=number
        )

    async def pages(**query: Any) -> list[list[str]]:
        found: list[list[str]] = []
        after, more = None, True
        while more:
            page = await store.sessions(SessionQuery(**{"limit": 10, "after": after, **query}), now=9)
            found.append([history.record.session_id for history in page.sessions])
            more = page.more
            if more:
                last = page.sessions[-1].record
                after = last.created_at, last.session_id
        return found

    everything = ["sess_5", "sess_4", "sess_3", "sess_2", "sess_1"]
    assert await pages() == [everything]
    # One is too large for any page, and has one of its own.
    assert await pages(max_bytes=1000) == [["sess_5", "sess_4"], ["sess_3"], ["sess_2", "sess_1"]]
    assert await pages(max_bytes=1) == [[name] for name in everything]
    assert await pages(max_bytes=1000, limit=1) == [[name] for name in everything]
    assert await pages(limit=5) == [everything]
    assert await pages(key_id="nobody") == [[]]


async def test_a_list_has_the_model_however_long_the_configuration_is(store: SessionStore) -> None:
    models = ["m", 'a "model"\\', "long" * 1000, "\u20ac\U0001f600", ""]
    for number, model in enumerate(models):
        config = SessionConfig(provider="p", model=model, system_prompt="kind " * 1000)
        await store.create(
            record(number, created_at=float(number), config=config), idempotency=None, now=number
        )
    page = await store.sessions(SessionQuery(limit=10), now=9)
    assert [history.record.model for history in page.sessions] == models[::-1]
    assert [history.record.config for history in page.sessions] == [None] * 5
    for number, model in enumerate(models):
        history = await store.get(f"sess_{number}")
        assert history is not None
        assert history.record.model == model


async def test_a_transcript_has_pages(store: SessionStore) -> None:
    await store.create(record(1), idempotency=None, now=0)
    await store.create(record(2), idempotency=None, now=0)
    lines = tuple(
        TranscriptLine("user", "\u20ac" * (1000 if number == 3 else 1), float(number))
        for number in range(PAGE_LINES + 10)
    )
    for number, said in ((2, ()), (1, lines)):
        await claim(store, number)
        await store.end(f"sess_{number}", SessionOutcome(transcript=said), now=2000)

    async def pages(**options: Any) -> list[list[TranscriptLine]]:
        found: list[list[TranscriptLine]] = []
        after: int | None = 0
        while after is not None:
            page = await store.transcript("sess_1", after=after, **options)
            found.append(list(page.lines))
            after = page.next
        return found

    assert await pages() == [list(lines[:PAGE_LINES]), list(lines[PAGE_LINES:])]
    small = await pages(max_bytes=300)
    assert [line for page in small for line in page] == list(lines)
    assert [len(page) for page in small] == [3, 1, 100, 100, 100, 100, 100, 6]
    assert await store.transcript("sess_2") == TranscriptPage()
    assert await store.transcript("sess_9", after=2**63 - 1) == TranscriptPage()
    # What is purged between two pages moves no line.
    first = await store.transcript("sess_1", max_bytes=300)
    assert first.next is not None
    await store.purge(transcripts_before=2.0, records_before=None, now=2000)
    assert (await store.transcript("sess_1", after=first.next)).lines[0] == lines[3]


async def test_a_session_is_shown_to_its_own_key(store: SessionStore) -> None:
    await store.create(record(), idempotency=None, now=0)
    assert await store.get("sess_1", key_id="key_a") is not None
    assert await store.get("sess_1", key_id="key_b") is None
    assert await store.get("sess_2") is None
    assert await store.get("\0") is None


# Limits


async def mint(store: SessionStore, number: int, limits: KeyLimits, now: float, **fields: Any) -> int:
    """Seconds granted."""
    made = record(number, created_at=now, token_expires_at=int(now) + 60, **fields)
    return (await store.create(made, idempotency=None, limits=limits, now=now)).ttl_seconds


async def test_so_many_sessions_at_once(store: SessionStore) -> None:
    limits = KeyLimits(max_sessions=2)
    for number in (1, 2):
        await mint(store, number, limits, 0)
    with pytest.raises(LimitError, match="2 sessions at once"):
        await mint(store, 3, limits, 1)
    await mint(store, 4, limits, 1, key_id="key_b")
    # A token that nobody used makes room, a session that lives does not.
    await claim(store, 1)
    await mint(store, 5, limits, 60)
    with pytest.raises(LimitError):
        await mint(store, 6, limits, 60)
    await store.end("sess_1", SessionOutcome(), now=61)
    await mint(store, 7, limits, 61)
    # Nor does one whose node is lost, once that is known.
    await claim(store, 7, now=61)
    with pytest.raises(LimitError):
        await mint(store, 8, limits, 100)
    await store.sweep(now=100)
    await mint(store, 8, limits, 100)


async def test_so_many_mints_a_minute(store: SessionStore) -> None:
    limits = KeyLimits(mints_per_minute=2)
    await mint(store, 1, limits, 0)
    await mint(store, 2, limits, 20.5)
    with pytest.raises(LimitError, match="2 sessions a minute") as caught:
        await mint(store, 3, limits, 50)
    assert caught.value.retry_after == 10
    await mint(store, 4, limits, 60)
    with pytest.raises(LimitError) as caught:
        await mint(store, 5, limits, 61)
    assert caught.value.retry_after == 19.5


async def test_a_repetition_does_not_count(store: SessionStore) -> None:
    limits = KeyLimits(mints_per_minute=1, max_sessions=1)
    first = await store.create(record(1), idempotency=SAME, limits=limits, now=0)
    assert await store.create(record(2), idempotency=SAME, limits=limits, now=0) == first


async def test_so_many_minutes_a_day(store: SessionStore) -> None:
    limits = KeyLimits(minutes_per_day=2)
    noon = 10 * DAY + DAY / 2
    assert await mint(store, 1, limits, noon, ttl_seconds=50) == 50
    await claim(store, 1, now=noon + 1)
    # What open sessions may still use is not given twice.
    assert await mint(store, 2, limits, noon + 2, ttl_seconds=1800) == 70
    with pytest.raises(LimitError, match="hold the rest") as caught:
        await mint(store, 3, limits, noon + 3)
    assert caught.value.retry_after == 5
    # What they did not use comes back: 30 s were used, and the token of the second expires unused.
    await store.end("sess_1", SessionOutcome(), now=noon + 31)
    assert await mint(store, 4, limits, noon + 70, ttl_seconds=1800) == 90
    await claim(store, 4, now=noon + 71)
    await store.end("sess_4", SessionOutcome(), now=noon + 161)
    with pytest.raises(LimitError, match="next day") as caught:
        await mint(store, 5, limits, noon + 200)
    assert caught.value.retry_after == DAY / 2 - 200
    assert await mint(store, 6, limits, noon + 200, key_id="key_b", ttl_seconds=1800) == 120
    assert await mint(store, 7, limits, noon + DAY / 2, ttl_seconds=1800) == 120


# Transcripts, and what is purged


async def test_transcripts_are_purged_by_age(store: SessionStore) -> None:
    await store.create(record(), idempotency=None, now=0)
    await claim(store)
    lines = tuple(TranscriptLine("user", str(at), at) for at in (1.0, 2.0, 3.0))
    await store.end("sess_1", SessionOutcome(transcript=lines), now=4)
    assert not await store.purge(transcripts_before=None, records_before=None, now=5)
    assert len((await store.transcript("sess_1")).lines) == 3
    assert not await store.purge(transcripts_before=3.0, records_before=None, now=5)
    assert list((await store.transcript("sess_1")).lines) == list(lines[2:])
    assert list((await store.transcript("sess_2")).lines) == []


async def test_a_purge_takes_nothing_that_is_still_good(store: SessionStore) -> None:
    first = await store.create(record(1), idempotency=SAME, now=0)
    await store.purge(transcripts_before=None, records_before=None, now=59)
    assert await store.create(record(2), idempotency=SAME, now=59) == first
    await store.purge(transcripts_before=None, records_before=None, now=60)
    again = await store.create(record(2, token_expires_at=120), idempotency=SAME, now=60)
    assert again.session_id == "sess_2"


async def test_records_are_purged_by_age_when_they_are_over(store: SessionStore) -> None:
    # 1 ended, 2 lives, 3 nobody opened, 4 can still be opened, 5 ended and is young.
    ages = {1: 0.0, 2: 1.0, 3: 2.0, 4: 3.0, 5: 10.0}
    for number, at in ages.items():
        expires_at = 500 if number == 4 else 60
        await store.create(
            record(number, created_at=at, token_expires_at=expires_at), idempotency=None, now=at
        )
    for number in (1, 2, 5):
        assert not isinstance(await claim(store, number, now=11), Refused)
        if number != 2:
            lines = (TranscriptLine("user", "hello", 12.0),)
            await store.end(f"sess_{number}", SessionOutcome(transcript=lines), now=12)

    async def there() -> list[int]:
        page = await store.sessions(SessionQuery(limit=10), now=100)
        return sorted(int(history.record.session_id.removeprefix("sess_")) for history in page.sessions)

    assert not await store.purge(transcripts_before=None, records_before=None, now=100)
    assert await there() == [1, 2, 3, 4, 5]
    assert not await store.purge(transcripts_before=None, records_before=10, now=100)
    assert await there() == [2, 4, 5]
    assert await store.get("sess_1") is None
    assert list((await store.transcript("sess_1")).lines) == []
    assert len((await store.transcript("sess_5")).lines) == 1
    # Its node comes back, and what it tells is told too late.
    await store.renew(["sess_1"], node_id=NODE, lease=LEASE, now=100)
    await store.end("sess_1", SessionOutcome(transcript=(TranscriptLine("user", "late", 100.0),)), now=100)
    assert list((await store.transcript("sess_1")).lines) == []
    await store.sweep(now=100)
    assert not await store.purge(transcripts_before=None, records_before=10, now=600)
    assert await there() == [5]


async def test_a_record_stays_as_long_as_its_mint_can_be_repeated(store: SessionStore) -> None:
    first = await store.create(record(1, token_expires_at=90), idempotency=SAME, now=0)
    await claim(store)
    await store.end("sess_1", SessionOutcome(), now=5)
    await store.purge(transcripts_before=None, records_before=50, now=80)
    assert await store.create(record(2), idempotency=SAME, now=80) == first
    await store.purge(transcripts_before=None, records_before=50, now=90)
    assert await store.get("sess_1") is None


# Keys


async def test_keys_are_kept(store: SessionStore) -> None:
    first = key(1, scopes=("mint", "read", "admin"), digest=bytes(range(32)))
    limits = KeyLimits(max_sessions=1, mints_per_minute=2, minutes_per_day=3)
    second = key(2, scopes=("read",), limits=limits)
    await store.add_key(second)
    await store.add_key(first)
    assert list(await store.keys()) == [first, second]
    assert list(await store.find_keys({"key_1", "key_3"})) == [first]
    found = await store.find_keys(["key_3", "key_2", "key_1"])
    assert sorted(found, key=lambda key: key.key_id) == [first, second]
    assert list(await store.find_keys([])) == []


async def test_a_revoked_key_opens_nothing_more(store: SessionStore) -> None:
    await store.add_key(key(1))
    for number in (1, 2):
        await store.create(record(number, key_id="key_1"), idempotency=None, now=0)
    await claim(store, 1)
    revoked = await store.revoke_key("key_1", now=5)
    assert revoked.revoked_at == 5
    assert await store.revoke_key("key_1", now=6) == revoked
    assert list(await store.find_keys(["key_1"])) == [revoked]
    assert await claim(store, 2, now=7) is Refused.REVOKED
    assert await claim(store, 1, now=7) is Refused.USED
    with pytest.raises(KeyNotFoundError, match="there is no API key key_9"):
        await store.revoke_key("key_9", now=5)
