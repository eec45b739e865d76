"""What a client asks for besides speech: texts, images, answers, changes of the session.

If the provider can't do one of these, nothing is sent to it: the client receives one error, and the session
goes on.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, Final, assert_never

import msgspec

from ...protocol._commands import (
    ExtensionCommand,
    ImageIn,
    Respond,
    Say,
    TextIn,
    Update,
    extension_of,
)
from ...protocol.capabilities import unchangeable
from ...protocol.errors import LocalProtocolError
from ...protocol.frames import ErrorFrame
from .. import codes
from .._provider import ProviderDialect

_WIRE_NAMES: Final = {field.name: field.encode_name for field in msgspec.structs.fields(Update)}
"""The client's names of the fields of an update."""


class Requests:
    """Passes requests to the provider, and remembers what a lost connection must not lose silently.

    `fixed`: the fields of an update that the client may not change.
    """

    __slots__ = ("_changes", "_fixed", "awaits_answer", "fresh")

    def __init__(self, fixed: Collection[str]) -> None:
        self._fixed = fixed
        self._changes = Update()
        """The changes that took effect, over all connections."""
        self.awaits_answer: bool = False
        """Whether an answer was asked for, and none has ended since."""
        self.fresh: bool = False
        """Whether context was passed on so recently that it may not have arrived."""

    def pass_on(self, provider: ProviderDialect, request: ExtensionCommand) -> ErrorFrame | None:
        """Pass `request` to the provider; return the error for the client if it is refused.

        Raises `ConnectionClosed` when the provider's session is over.
        """
        if isinstance(request, Update):
            made, refusal = _change(provider, request, self._fixed)
            self._changes = msgspec.structs.replace(self._changes, **made)
            return refusal
        try:
            answered = _send(provider, request)
        except LocalProtocolError as error:
            return ErrorFrame(codes.REFUSED[extension_of(request)], str(error))
        if answered:
            self.awaits_answer = True
        else:
            self.fresh = True
        return None

    def restore(self, provider: ProviderDialect) -> ErrorFrame | None:
        """Repeat the changes on a new connection; return and raise as `pass_on` does."""
        return _change(provider, self._changes, ())[1] if self._changes.fields else None

    def lose(self) -> bool:
        """Forget what was under way to a lost connection; return whether anything was."""
        lost = self.awaits_answer or self.fresh
        self.awaits_answer = self.fresh = False
        return lost


def _send(provider: ProviderDialect, request: TextIn | ImageIn | Respond | Say) -> bool:
    """Pass `request` on; return whether it asks for an answer."""
    match request:
        case TextIn(text=text, role=role, respond=respond):
            provider.send_text(text, role=role, respond=respond)
            return respond
        case ImageIn(mime_type=mime_type, data=data, respond=respond):
            provider.send_image(data, mime_type=mime_type, respond=respond)
            return respond
        case Respond(instructions=instructions):
            provider.respond(instructions)
        case Say(text=text):
            provider.say(text)
        case _:
            assert_never(request)
    return True


def _change(
    provider: ProviderDialect, update: Update, forbidden: Collection[str]
) -> tuple[dict[str, Any], ErrorFrame | None]:
    """Change what can be changed now; return that, and the error that names the other fields."""
    able = provider.capabilities.update
    fixed = tuple(name for name in update.fields if name not in able)
    barred = tuple(name for name in update.fields if name in able and name in forbidden)
    reasons = {name: str(unchangeable(fixed, provider.who)) for name in fixed}
    reasons |= dict.fromkeys(barred, "the server's operator does not let clients change it")
    asked = {name: getattr(update, name) for name in update.fields if name not in reasons}
    made: dict[str, Any] = {}
    try:
        if asked:
            provider.update(Update(**asked))
            made = asked
    except LocalProtocolError:
        # One of them is at fault, and the others take effect.
        for name, value in asked.items():
            try:
                provider.update(Update(**{name: value}))
                made[name] = value
            except LocalProtocolError as error:
                reasons[name] = str(error)
    if not reasons:
        return made, None
    names = ", ".join(_WIRE_NAMES[name] for name in reasons)
    message = f"not changed: {names}; {'; '.join(dict.fromkeys(reasons.values()))}"
    return made, ErrorFrame(codes.REFUSED[extension_of(update)], message)
