"""The response gate: which response is in flight, and whether another may be requested.

A session has at most one response at a time. OpenAI answers a second ``response.create`` with an error, and
xAI drops it without a word; so a response that is wanted too early is *deferred* until the one before is over
and the user is not speaking. Ends of responses may come twice, late or never. So everything here is keyed by
response id, and every wait has a limit.

What waits, and for how long:

- The end of a turn, a text that is to be answered, a bare ``respond()`` and the results of tools want the
  same thing, an answer to the conversation so far. So at most one such request waits. A response of the
  provider's own that begins meanwhile meets it if the provider has confirmed the texts and results by then.
- ``say`` and ``respond`` with instructions want a response of their own each, and they keep their order.
  Where the provider answers the user's turns by itself, its answer to what the user just said comes first.
- A text of the user that is to be answered stops the response in flight, as speech does. ``say`` and
  ``respond`` wait for its end.
- If the user cuts in, the answer that waits is dropped, since the user has more to say; answers to tools and
  what is to be said stay. `interrupt` also drops what is to be said. Context (a text or an image that is not
  to be answered) never waits.
- A request that the provider refuses because another response is active waits again. What waits when the
  connection is lost is lost with it, also where the conversation is resumed.

The gate only keeps state: the dialect reports events to it, and sends the requests.
"""

from __future__ import annotations

import enum
from collections.abc import Callable
from typing import Any, Final, NamedTuple

from ...protocol.errors import LocalProtocolError
from .._recent_ids import RecentIds
from ._events import dig

RESPONSE_TIMEOUT: Final = 5.0
"""Seconds to wait for a requested response to begin, or for a cancelled one to end. Both usually take a
fraction of that, but xAI sometimes omits either event."""

MAX_PROMPTS: Final = 16
"""The most `Reason.SAY` and `Reason.RESPOND` that wait: minutes of speech."""

_REMEMBERED: Final = 256
"""Ended responses to remember, for their late events: enough for hours, while events come seconds late."""


class Phase(enum.Enum):
    """The state of the only response that can exist at a time."""

    IDLE = "idle"
    REQUESTED = "requested"
    """We requested a response; it has not begun."""
    ACTIVE = "active"
    CANCELLING = "cancelling"
    """It was cut off, and its end has not been reported. Further output of it is dropped."""


IN_FLIGHT: Final = (Phase.ACTIVE, Phase.CANCELLING)
"""The phases in which more events of a response may come."""


class Reason(enum.Enum):
    """Why a response is wanted."""

    TURN = "turn"
    """The user's turn is over, or the assistant is to speak without further instructions."""
    TEXT = "text"
    """A text or an image is to be answered."""
    TOOLS = "tools"
    """The tool calls of a response are all answered."""
    RESPOND = "respond"
    """The application has instructions for one response."""
    SAY = "say"
    """The application has a text for the assistant to say."""

    @property
    def prompted(self) -> bool:
        """Whether the application wants a response of its own, which no other can replace."""
        return self in _PROMPTED


_PROMPTED: Final = (Reason.RESPOND, Reason.SAY)
_ANSWERS: Final = (Reason.TURN, Reason.TEXT, Reason.TOOLS)
"""In ascending order of what the answer has to know."""


class Wanted(NamedTuple):
    """A response that is wanted."""

    reason: Reason
    text: str = ""
    """The instructions of `Reason.RESPOND`, or the text of `Reason.SAY`."""


class ResponseGate:
    """The state of responses and of our requests for them.

    - `start_timer`, `stop_timer`: run "response" while a request is unanswered, "cancel" while a cut response
      has not ended, and "deferred" while the provider may answer by itself.
    - `auto`: whether the provider detects turns, and so may answer without a request.
    - `metadata_key`: key of the event id in a request's metadata, which the response repeats; None for a
      provider whose own responses are those with any metadata.
    """

    def __init__(
        self,
        start_timer: Callable[[str, float], None],
        stop_timer: Callable[[str], None],
        *,
        auto: bool,
        metadata_key: str | None,
    ) -> None:
        self._start_timer = start_timer
        self._stop_timer = stop_timer
        self.auto: bool = auto
        """Whether the provider detects turns, and so may answer without a request."""
        self._metadata_key = metadata_key
        self.phase: Phase = Phase.IDLE
        self.response_id: str | None = None
        """The id of the active or cancelling response; None if there is none or its id is unknown."""
        self.open_request: str | None = None
        """Event id of our request that was neither granted nor refused yet, as far as we know."""
        self.waiting: list[Wanted] = []
        """The responses to request as soon as that is allowed, in order."""
        self.unwanted: bool = False
        """Whether to cancel the requested response when it begins, because it is no longer wanted."""
        self.answer_due: bool = False
        """Whether the provider will probably answer what the user just said."""
        self._newest_request: tuple[str, Wanted] | None = None
        self._echoes_metadata = False
        self._ended = RecentIds(_REMEMBERED)
        self._ends_not_reported: set[str] = set()
        """Ids in `_ended` whose end we inferred: the provider's own report of it may still come."""

    @property
    def idle(self) -> bool:
        """Whether no response is requested or in flight."""
        return self.phase is Phase.IDLE

    @property
    def in_flight(self) -> bool:
        """Whether more events of a response may come."""
        return self.phase in IN_FLIGHT

    @property
    def deferred(self) -> Reason | None:
        """Why another response will be requested as soon as that is allowed; None if none will."""
        return self.waiting[0].reason if self.waiting else None

    def has_ended(self, response_id: str) -> bool:
        """Whether that response is over."""
        return response_id in self._ended

    # Our requests

    def defer(self, reason: Reason) -> None:
        """Note that an answer is wanted, to be requested once that is allowed.

        Tools take precedence, then texts: any answer to them also answers the turn, but not vice versa.
        """
        for position, wanted in enumerate(self.waiting):
            if not wanted.reason.prompted:
                self.waiting[position] = Wanted(max(wanted.reason, reason, key=_ANSWERS.index))
                return
        self.waiting.append(Wanted(reason))

    def defer_prompt(self, wanted: Wanted) -> None:
        """Note that a response of its own is wanted, once that is allowed."""
        self.waiting.append(wanted)

    def check_prompts(self) -> None:
        """`LocalProtocolError` when no further response of its own may wait."""
        if sum(wanted.reason.prompted for wanted in self.waiting) >= MAX_PROMPTS:
            raise LocalProtocolError(
                f"{MAX_PROMPTS} responses wait to be spoken already; wait for the end of one, or interrupt"
            )

    def drop_deferred_turn(self) -> None:
        """Forget a deferred answer to a turn, since the user cut in. One to tools' results stays."""
        self._drop(lambda wanted: wanted.reason is Reason.TURN)

    def user_speaks(self) -> None:
        """Forget the deferred answers but those to tools' results, since the user has more to say."""
        self._drop(lambda wanted: wanted.reason in (Reason.TURN, Reason.TEXT))

    def drop_answers(self, *, knows_texts: bool, knows_tools: bool) -> None:
        """Forget the deferred answers that a response replaces, by what it knows."""
        known = {Reason.TURN: True, Reason.TEXT: knows_texts, Reason.TOOLS: knows_texts and knows_tools}
        self._drop(lambda wanted: known.get(wanted.reason, False))

    def drop_all_but_tools(self) -> None:
        """Forget what waits, since the application wants silence. An answer to tools' results stays."""
        self._drop(lambda wanted: wanted.reason is not Reason.TOOLS)

    def _drop(self, dropped: Callable[[Wanted], bool]) -> None:
        self.waiting = [wanted for wanted in self.waiting if not dropped(wanted)]

    def requested(self, event_id: str, reason: Reason, text: str = "") -> None:
        """Note that we sent a request for a response; it is no longer wanted.

        One for an answer is for all answers that are wanted.
        """
        wanted = Wanted(reason, text)
        if not reason.prompted:
            self.drop_answers(knows_texts=True, knows_tools=True)
        elif wanted in self.waiting:
            self.waiting.remove(wanted)
        self.phase = Phase.REQUESTED
        self.open_request = event_id
        self._newest_request = event_id, wanted
        self.unwanted = False
        self._start_timer("response", RESPONSE_TIMEOUT)

    def expect_answer(self) -> None:
        """Give the provider time to answer by itself before a deferred response is requested."""
        self.answer_due = self.auto and self.phase is not Phase.ACTIVE
        if self.waiting and self.idle:
            self._start_timer("deferred", RESPONSE_TIMEOUT)

    def must_wait_for_answer(self, reason: Reason) -> bool:
        """Whether a request for this reason has to let the provider answer the user first."""
        if not (self.answer_due and self.auto and reason.prompted):
            return False
        self._start_timer("deferred", RESPONSE_TIMEOUT)
        return True

    def request_failed(self) -> bool:
        """Note that our request failed; return whether we were waiting for its response."""
        self.open_request = None
        if self.phase is not Phase.REQUESTED:
            return False
        self.phase = Phase.IDLE
        self.unwanted = False
        self._stop_timer("response")
        return True

    def refused(self, event_id: str | None, active_id: str | None) -> bool:
        """Note that a request was refused because the response `active_id` was active (None: unknown).

        `event_id` names the request, or is None where the provider does not name it: then assume the newest,
        since an unneeded answer is better than none. Return False for a request that is not the newest or was
        refused before: it changes nothing.
        """
        if self._newest_request is None or event_id not in (None, self._newest_request[0]):
            return False
        _, wanted = self._newest_request
        self.open_request = self._newest_request = None
        if self.phase is Phase.REQUESTED:
            over = active_id is not None and active_id in self._ended
            self.unwanted = False
            self.phase = Phase.IDLE if over else Phase.ACTIVE
            self.response_id = None if over else active_id
        if wanted.reason.prompted:
            self.waiting.insert(0, wanted)
        elif wanted.reason is not Reason.TURN or not self.auto:
            self.defer(wanted.reason)
        # Speech in auto mode needs no second request: the active response is the provider's own answer to it.
        if self.phase is Phase.ACTIVE and self.response_id is None:
            # The end of a response without a known id may pass unseen, so limit the wait.
            self._start_timer("response", RESPONSE_TIMEOUT)
        else:
            self._stop_timer("response")
        return True

    # The provider's responses

    def repeats_request(self, metadata: Any) -> bool:
        """Whether this metadata proves that the response answers a request that was answered before."""
        if self._metadata_key is None:
            return False
        request = dig(metadata, str, self._metadata_key)
        return request is not None and request != self.open_request

    def _is_ours(self, metadata: Any) -> bool:
        """Whether this metadata proves that the response answers our open request."""
        if self._metadata_key is None:
            return metadata is not None
        return dig(metadata, str, self._metadata_key) == self.open_request

    def _was_requested(self, metadata: Any) -> bool:
        """Whether the response that begins is ours, and not one that the provider's turn detection made.

        Once the provider is known to repeat our metadata, that decides; before, the open request does.
        """
        if self.open_request is None:
            return False
        if self._is_ours(metadata):
            self._echoes_metadata = True
            return True
        if self._metadata_key is None and self._asked_to_say:
            return True  # xAI documents no metadata for what it says without the model
        return not self.auto or not self._echoes_metadata

    @property
    def _asked_to_say(self) -> bool:
        return self._newest_request is not None and self._newest_request[1].reason is Reason.SAY

    def begin(self, response_id: str, metadata: Any, *, user_speaking: bool) -> tuple[bool, bool]:
        """Note that a response begins, after the end of the one before.

        It may reuse an id: some servers have a single id for all responses. Return whether we requested it,
        and whether it is unwanted.
        """
        requested = self._was_requested(metadata)
        surely = requested and (not self.auto or self._is_ours(metadata))
        # In doubt, it is the provider's own answer to the user's latest words, which is wanted.
        unwanted = self.unwanted and (surely or user_speaking)
        self.unwanted = False
        self.answer_due = False
        self._ended.discard(response_id)
        self._ends_not_reported.discard(response_id)
        self.phase = Phase.ACTIVE
        self.response_id = response_id or None
        self._stop_timer("response")
        if requested:
            self.open_request = None
        else:
            self.drop_deferred_turn()
        return requested, unwanted

    def name(self, response_id: str) -> None:
        """Note the id of the response in flight, which was unknown."""
        self.response_id = response_id or None
        self._stop_timer("response")

    def cut(self) -> None:
        """Note that the active response was cut off."""
        self.phase = Phase.CANCELLING
        self._stop_timer("response")
        self._start_timer("cancel", RESPONSE_TIMEOUT)

    def ended(self, *, reported: bool) -> None:
        """Note that the response in flight is over; a request of ours may still be open.

        `reported`: whether the provider reported it, or we inferred it from other events.
        """
        if self.response_id is not None:
            self._ended.add(self.response_id)
            if not reported:
                self._ends_not_reported = {name for name in self._ends_not_reported if name in self._ended}
                self._ends_not_reported.add(self.response_id)
        self.response_id = None
        self._stop_timer("cancel")
        if self.open_request is None:
            self.phase = Phase.IDLE
            self._stop_timer("response")
        else:
            self.phase = Phase.REQUESTED
            self._start_timer("response", RESPONSE_TIMEOUT)

    def is_first_end_event(self, response_id: str) -> bool:
        """Whether this is the first end event of a response that we had already taken for finished."""
        if response_id not in self._ends_not_reported:
            return False
        self._ends_not_reported.discard(response_id)
        return True
