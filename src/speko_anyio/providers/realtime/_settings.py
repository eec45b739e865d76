"""The configuration of a realtime session, and its changes while the session is open."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, TypeAlias

import msgspec

from ...protocol._commands import Update
from ...protocol.capabilities import Capabilities
from ...protocol.errors import LocalProtocolError
from .._options import merge_extra
from ._user import TurnRules


def pcm_format(rate: int) -> dict[str, Any]:
    """Return the format of audio that is PCM16 little-endian mono, as configurations name it."""
    return {"type": "audio/pcm", "rate": rate}


class Change(NamedTuple):
    """What an `Update` becomes for one provider."""

    session: dict[str, Any]
    """The fields of ``session.update``."""
    rules: TurnRules | None = None
    """How turns end from now on; None if that does not change."""
    notes: tuple[str, ...] = ()
    """What had to be altered, for a log."""


MakeChange: TypeAlias = Callable[[Update], Change]
"""Converts an `Update`; raises `LocalProtocolError` for one that can't be used."""


class Configuration(NamedTuple):
    """A session's parameters and options, converted for one provider."""

    who: str
    """The provider's name for errors."""
    capabilities: Capabilities
    session: Any
    """The ``session`` of the first ``session.update``."""
    extra: Mapping[str, Any]
    """Merged into `session` unchanged."""
    rules: TurnRules
    instructions: str
    """The system prompt; empty for none or the provider's own."""
    change: MakeChange
    locks_voice: bool
    """Whether the voice can't change any more once the assistant has spoken."""
    approval_tool: str | None = None
    """The tool of the caller that decides on the provider's requests for approval; None denies them."""
    line_rules: Callable[[Any], TurnRules] | None = None
    """Only for a session that joins a phone call, see `CallLine`: reads how turns end from the ``audio`` of
    the session that the provider reports."""
    binary_audio: bool = False
    """Whether audio travels as binary messages."""
    notes: tuple[str, ...] = ()
    """The parts of the configuration that the provider can't honour."""


class _State(NamedTuple):
    """What the dialect remembers of the configuration."""

    instructions: str
    rules: TurnRules


class Settings:
    """The configuration in force, as far as the dialect acts on it.

    A change counts from when it is sent. If the provider refuses the latest one, the values before it hold
    again.
    """

    __slots__ = (
        "_before",
        "_change",
        "_locks_voice",
        "_pending",
        "_session",
        "_state",
        "_who",
        "capabilities",
    )

    def __init__(self, configuration: Configuration) -> None:
        self._who = configuration.who
        self.capabilities = configuration.capabilities
        self._change = configuration.change
        self._locks_voice = configuration.locks_voice
        self._session: Any = configuration.session
        if configuration.extra:
            self._session = merge_extra(msgspec.to_builtins(configuration.session), configuration.extra)
        self._state = self._before = _State(configuration.instructions, configuration.rules)
        self._pending: str | None = None

    @property
    def rules(self) -> TurnRules:
        """How turns end."""
        return self._state.rules

    @property
    def detects_turns(self) -> bool:
        """Whether the provider may have detected a turn: also until it has switched that off."""
        return self.rules.auto or (self._pending is not None and self._before.rules.auto)

    def peek(self) -> Any:
        """Return the ``session`` of the first ``session.update``."""
        return self._session

    @property
    def sent(self) -> bool:
        """Whether the configuration was taken, to be sent."""
        return self._session is None

    def take(self) -> Any:
        """Return the ``session`` of the first ``session.update``, once; None from then on."""
        session, self._session = self._session, None  # not kept: its tools take much memory
        return session

    def prompt(self, instructions: str) -> str:
        """Return the instructions for one response: they replace the session's, so they include those."""
        return "\n\n".join(filter(None, (self._state.instructions, instructions)))

    def convert(self, update: Update, *, has_spoken: bool) -> Change:
        """Convert a change that may be made now; `LocalProtocolError` for any other."""
        if has_spoken and self._locks_voice and "voice" in update.fields:
            raise LocalProtocolError(
                f"{self._who} can't change voice once the assistant has spoken; choose it before that, or "
                "open a new session"
            )
        return self._change(update)

    def changed(self, event_id: str, update: Update, change: Change) -> None:
        """Note that a change was sent in the message `event_id`."""
        self._before, self._pending = self._state, event_id
        instructions = (
            update.system_prompt if isinstance(update.system_prompt, str) else self._state.instructions
        )
        self._state = _State(instructions, change.rules or self._state.rules)

    def accepted(self) -> None:
        """Note that the provider reports a configuration: the latest change holds."""
        self._pending = None

    def adopt(self, instructions: str | None, rules: TurnRules) -> None:
        """Take over what the provider reports of a session that somebody else configured."""
        self._state = self._before = _State(instructions or "", rules)

    def refused(self, event_id: str | None, *, named: bool) -> bool:
        """Note an error that answers `event_id`; return whether it refused the latest change.

        `named`: whether the provider's errors name the message that they answer.
        """
        if self._pending is None or event_id not in ((self._pending,) if named else (None, self._pending)):
            return False
        self._state, self._pending = self._before, None
        return True
