"""What a provider's close means, judged by its words, then by what came before it, then by its code.

Codes alone say little: Gemini ends a healthy connection with 1008, Vertex AI with 1000, OpenAI with 1001, and
a rejected key may come with any of them. The table below is the single source: the dialects consult it, so
direct sessions and the bridge act on the same verdict. The first matching row decides.
"""

from __future__ import annotations

import enum
import re
from collections.abc import Collection
from typing import Final, NamedTuple

from ..protocol import close_codes
from . import codes


class Service(enum.Enum):
    """The service that sent the close."""

    OPENAI = "OpenAI, or a server that speaks its protocol"
    XAI = "xAI"
    GOOGLE = "Gemini Live, on either of Google's services"


class Moment(enum.Enum):
    """The state of the session before the close."""

    SETUP = "the configuration was not accepted yet"
    RESUMING = "likewise, on a connection that resumes an earlier one"
    IDLE = "the session was open, without an answer in progress"
    ANSWERING = "an answer or a tool call was in progress"
    LEAVING = "the end of the session or the connection had been announced"


class Verdict(NamedTuple):
    """What a close means."""

    code: str | None
    """One of `codes`, for the client; None: the session ended in the ordinary way."""
    retry: bool = False
    """Whether another connection may succeed, with the session's handle if it has one."""
    stale: bool = False
    """Whether the handle was rejected: a new session may begin without it."""


class _Row(NamedTuple):
    verdict: Verdict
    words: re.Pattern[str] | None = None
    codes: Collection[int] | None = None
    moments: Collection[Moment] | None = None
    services: Collection[Service] | None = None

    def fits(self, service: Service, code: int, words: str, moment: Moment) -> bool:
        return (
            (self.codes is None or code in self.codes)
            and (self.moments is None or moment in self.moments)
            and (self.services is None or service in self.services)
            and (self.words is None or self.words.search(words) is not None)
        )


_BEFORE: Final = (Moment.SETUP, Moment.RESUMING)
_UNDER_WAY: Final = (Moment.IDLE, Moment.ANSWERING, Moment.LEAVING)
_GOOGLE: Final = (Service.GOOGLE,)
_RESUMABLE: Final = (Service.GOOGLE, Service.XAI)
_REFUSALS: Final = (close_codes.INVALID_DATA, close_codes.POLICY)
_BUSY: Final = (close_codes.SERVICE_RESTART, close_codes.TRY_AGAIN_LATER, close_codes.BAD_GATEWAY)
"""The server restarts or is overloaded, or a gateway in front of it failed (IANA registry)."""
_LOST: Final = (close_codes.NO_STATUS, close_codes.ABNORMAL)


def _words(*alternatives: str) -> re.Pattern[str]:
    """Patterns for the output of `_normalized`: lower case, single spaces, no underscores."""
    return re.compile("|".join(alternatives))


_SPENT: Final = _words(
    "insufficient quota",
    "exceeded (your|its|the) (current |monthly )?quota",
    "credit balance",
    r"\bcredits? (\w+ ){0,2}(depleted|exhausted|used up|run out|ran out)",
    r"\b(prepa(id|yment)|all|available|any|enough|sufficient|insufficient|no|zero|remaining|out of) "
    r"(\w+ ){0,2}credits\b",
    "(spend|spending|usage|budget|billing)( hard)? (limit|cap)",
    r"(exceeded|reached|hit|over) (\S+ ){0,3}(budget|spend)\b",
    "insufficient (funds|balance|credit)",
    "out of (funds|money)",
    r"\bbalance (is |was )?(too low|insufficient|exhausted|depleted|negative|empty)",
    "payment (is )?(required|overdue|past due|declined|failed)",
)
"""The account has no money left, in words that no name of a user's tool or parameter would make."""
_QUOTA: Final = _words("quota", "resource (has been )?exhausted", "billing", _SPENT.pattern)
_RATE: Final = _words("rate limit", "too many (requests|(concurrent )?(sessions|connections))", "concurrent")
_KEY: Final = _words(
    "api ?key",
    "unregistered caller",
    "unauthenticated",
    "unauthori[sz]ed",
    "authentication",
    "credential",
    "permission",
    "account deactivated",
    "(access|auth|oauth|ephemeral) ?token",
)
_KEY_ENDED: Final = _words(
    "(invalid|incorrect|expired|revoked) api ?key",
    "api ?key (is |was |has )?(been )?(not valid|invalid|expired|revoked|reported|disabled)",
    "unregistered caller",
    "unauthenticated",
    "account deactivated",
    "(access|auth|oauth|ephemeral) ?tokens? (is |was |has )?(been )?(not valid|invalid|expired|revoked)",
)
"""For a key that worked at first. The words of a user's tool about a key of its own must not match."""
_MODEL: Final = _words(
    "not found for api version",
    "not supported for bidi",
    r"models/\S+ (is|was) not found",
    r"models/\S*$",  # cut short
    "publisher model",
    "model not found",
    r"model \S+ (does not exist|is not supported|not found)",
)
_REFUSED: Final = "(not found|expired|invalid|unknown|not valid|no longer|does not exist|stale|gone)"
_HANDLE: Final = _words(
    rf"\b(handle|resumption|session|conversation)\b\W+(\S+ ){{0,5}}{_REFUSED}",
    r"\b(invalid|unknown|expired|no such|stale) (\S+ )?(handle|resumption|session|conversation)\b",
)
_DURATION: Final = _words(
    "(session|conversation) (has )?(hit|exceeded|reached) (the|its|your) max(imum)?( session)? duration",
    "max duration",
    "session (has |was |is )?(been )?expired",
)
_ASLEEP: Final = _words("(timed out|closed|ended) .*(due to|because of|for) inactivity")
_INACTIVE: Final = _words("inactiv", r"\bidle\b")
_TIME_IS_UP: Final = _words(
    "max(imum)? (session )?duration",
    "session duration",
    "session (has |was |is )?(been )?(timed out|expired)",
    "go ?away",
    "deadline",
    "abort",
    "expired",
)
_FAILED: Final = _words("internal (server )?error", "server error", "server had an error", "^internal$")
_PASSES: Final = _words(
    _FAILED.pattern,
    "cancell?ed",
    "unavailable",
    "try again",
    "overloaded",
    "restart",
    "shutting down",
    "temporar",
    "timed? ?out",
    "bad gateway",
)
_OPERATION: Final = _words("operation is not (implemented|supported)")
_ENTITY: Final = _words("entity was not found")
_OURS: Final = _words(
    "invalid argument", "invalid json", "unknown name", "cannot find field", "invalid value"
)
"""We sent something invalid."""
_POLICY: Final = _words(r"\bpolic(y|ies)\b", "terms of (service|use)", "prohibited", r"\bsafety\b")
_ANY: Final = _words(r"\w")

_EXPIRED: Final = Verdict(codes.EXPIRED, retry=True)
_UNAVAILABLE: Final = Verdict(codes.UNAVAILABLE, retry=True)
_INTERNAL: Final = Verdict(codes.INTERNAL_ERROR, retry=True)
_STALE: Final = Verdict(codes.UNKNOWN_ENTITY, stale=True)

_ROWS: Final = (
    # The account, at any moment.
    _Row(Verdict(codes.QUOTA_EXCEEDED), _QUOTA),
    _Row(Verdict(codes.UNAUTHORIZED), _KEY_ENDED),
    _Row(Verdict(codes.UNAUTHORIZED), _KEY, moments=_BEFORE),
    _Row(Verdict(codes.RATE_LIMITED, retry=True), _RATE),
    # The handle: the rest of the configuration was accepted before.
    _Row(_STALE, _HANDLE, moments=(Moment.RESUMING,)),
    _Row(_STALE, _ENTITY, moments=(Moment.RESUMING,)),
    _Row(_STALE, _DURATION, moments=(Moment.RESUMING,)),
    _Row(_STALE, _INACTIVE, moments=(Moment.RESUMING,)),
    # Something that we sent.
    _Row(Verdict(codes.OPERATION_REFUSED), _OPERATION, moments=(Moment.SETUP,)),
    _Row(Verdict(codes.OPERATION_REFUSED, retry=True), _OPERATION, moments=_UNDER_WAY),
    _Row(Verdict(codes.UNKNOWN_ENTITY), _ENTITY, moments=(Moment.SETUP,)),
    _Row(Verdict(codes.UNKNOWN_ENTITY, retry=True), _ENTITY, moments=_UNDER_WAY),
    _Row(Verdict(codes.MODEL_NOT_FOUND), _MODEL, moments=_BEFORE),
    _Row(Verdict(codes.CONFIGURATION_REFUSED), _OURS, codes=_REFUSALS, moments=(Moment.SETUP,)),
    _Row(Verdict(codes.INVALID_REQUEST), _OURS, codes=_REFUSALS, moments=_UNDER_WAY),
    _Row(Verdict(codes.INVALID_REQUEST), _POLICY, moments=(Moment.LEAVING,), services=_GOOGLE),
    # Time limits and temporary failures, with any code.
    _Row(_EXPIRED, _INACTIVE, moments=(Moment.LEAVING,), services=_GOOGLE),
    _Row(Verdict(codes.IDLE_TIMEOUT), _INACTIVE, moments=_UNDER_WAY),
    _Row(_UNAVAILABLE, _TIME_IS_UP, moments=_BEFORE),
    _Row(_EXPIRED, _TIME_IS_UP, moments=_UNDER_WAY),
    _Row(_EXPIRED, _PASSES, moments=(Moment.LEAVING,)),
    _Row(_INTERNAL, _FAILED),
    _Row(_UNAVAILABLE, _PASSES),
    # No known words: what came before, and the code.
    _Row(_UNAVAILABLE, codes=(*_BUSY, *_LOST)),
    _Row(_UNAVAILABLE, codes=(close_codes.GOING_AWAY,), moments=_BEFORE),
    _Row(_INTERNAL, codes=(close_codes.INTERNAL_ERROR,), moments=_BEFORE),
    _Row(_STALE, moments=(Moment.RESUMING,)),
    _Row(
        Verdict(codes.CONFIGURATION_REFUSED),
        codes=(close_codes.NORMAL, *_REFUSALS),
        moments=(Moment.SETUP,),
    ),
    # Gemini announces the end of the connection's time, not of the session; how it closes then varies.
    _Row(_EXPIRED, moments=(Moment.LEAVING,), services=_GOOGLE),
    _Row(
        _EXPIRED,
        codes=(close_codes.NORMAL, close_codes.GOING_AWAY, close_codes.POLICY, close_codes.INTERNAL_ERROR),
        moments=(Moment.LEAVING,),
    ),
    _Row(_EXPIRED, codes=(close_codes.GOING_AWAY,), services=_GOOGLE),
    _Row(_UNAVAILABLE, codes=(close_codes.GOING_AWAY,)),
    # An ordinary goodbye in mid-answer would have no reason text.
    _Row(
        _UNAVAILABLE,
        _ANY,
        codes=(close_codes.NORMAL,),
        moments=(Moment.ANSWERING,),
        services=_RESUMABLE,
    ),
    _Row(Verdict(None), codes=(close_codes.NORMAL,)),
    _Row(Verdict(codes.INVALID_REQUEST), codes=(*_REFUSALS, close_codes.TOO_BIG)),
    _Row(_INTERNAL, codes=(close_codes.INTERNAL_ERROR,)),
)


JUDGED: Final = 1000
"""Characters of a text that are searched for words: the search may take the square of that. A close frame has
room for 123."""


def judge(service: Service, code: int, reason: str, moment: Moment) -> Verdict:
    """Judge a close with `code` and `reason` at that `moment`.

    Case, whitespace and underscores in the reason do not matter, and it may have been cut to the size of a
    close frame. A lost connection counts as a close with 1006.
    """
    words = _normalized(reason)
    for row in _ROWS:
        if row.fits(service, code, words, moment):
            return row.verdict
    return Verdict(codes.UNNAMED)


def announced(message: str) -> str | None:
    """Return the code of the end that an error event announces in its text, if it announces one.

    For services that give no code.
    """
    words = _normalized(message)
    if _DURATION.search(words):
        return codes.EXPIRED
    return codes.IDLE_TIMEOUT if _ASLEEP.search(words) else None


def passes(message: str) -> bool:
    """Whether an error event about a configuration reports a temporary failure, not a faulty one."""
    return _PASSES.search(_normalized(message)) is not None


def spent(message: str) -> bool:
    """Whether an error event, or the refusal of an HTTP server, says that the account has no money left."""
    return _SPENT.search(_normalized(message)) is not None


def _normalized(reason: str) -> str:
    return " ".join(reason[:JUDGED].replace("_", " ").casefold().split())


_STEPS: Final = {
    codes.CONFIGURATION_REFUSED: "check the session's parameters and the provider's options",
    codes.UNAUTHORIZED: "check the API key and its permissions",
    codes.MODEL_NOT_FOUND: "check the model's name, and that it supports live sessions",
    codes.QUOTA_EXCEEDED: "check the account's plan and billing",
    codes.EXPIRED: "open another session",
    codes.IDLE_TIMEOUT: "open another session",
    codes.INVALID_REQUEST: "check what was sent last, and how long the conversation is; open another session",
    codes.RATE_LIMITED: "try again later",
}
"""What to do about a close."""


def explain(verdict: Verdict, code: int, reason: str) -> str:
    """Return the message of the `ErrorFrame` that goes with a close."""
    said = reason.strip().rstrip(".;") or f"it gave no reason, only close code {code}"
    return f"the provider ended the session: {said}; {_STEPS.get(verdict.code or '', 'try again')}"


_PASSING: Final = frozenset(
    {codes.NOT_READY, codes.UNAVAILABLE, codes.INTERNAL_ERROR, codes.RATE_LIMITED, codes.EXPIRED}
)
_LASTING: Final = frozenset({codes.UNAUTHORIZED, codes.QUOTA_EXCEEDED, codes.PROTOCOL_ERROR})


def judge_failure(code: str, moment: Moment) -> Verdict:
    """Judge a connection that ended with an error event, or on our side; `code` is one of `codes`."""
    if moment not in _BEFORE or code in _LASTING:
        return Verdict(code)
    if code in _PASSING and (code, moment) != (codes.EXPIRED, Moment.RESUMING):
        return Verdict(code, retry=True)
    return Verdict(code, stale=moment is Moment.RESUMING)
