"""What a session can do: one record for a provider's model, a handler, or a service behind the Speko wire.

The record is the only source: dialects refuse by it, a gateway offers its extensions by it (`extensions_of`),
and the documentation's table is made from it.
"""

from __future__ import annotations

from typing import Any, Final, Literal, TypeAlias

import msgspec

from . import _extensions as extensions
from .errors import LocalProtocolError

SayMode: TypeAlias = Literal["verbatim", "instructed", "no"]
"""How `say` works: the text is spoken as it is, the model is instructed to say it, or not at all."""

ResumeMode: TypeAlias = Literal["handle", "replayed", "no"]
"""How a conversation goes on over a new connection: the provider keeps it, it is replayed, or not at all."""

UPDATABLE: Final = ("system_prompt", "tools", "voice", "turns")
"""The fields of `Update`."""


class Capabilities(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, rename="camel"):
    """What a session can do, beyond hearing and speaking. The default of each field is the least."""

    text: bool = False
    """Whether it takes text: `TextIn`."""
    image: bool = False
    """Whether it takes pictures: `ImageIn`."""
    respond: bool = False
    """Whether it can be asked to speak without a turn of the user: `Respond`."""
    say: SayMode = "no"
    """How it says a given text: `Say`."""
    update: tuple[str, ...] = ()
    """The fields of `Update` that can change while the session is open."""
    history: bool = False
    """Whether it can begin with earlier turns of a conversation."""
    manual_turns: bool = False
    """Whether the client may end the user's turns by `Commit`."""
    interrupt: bool = False
    """Whether the client can stop an answer by `Interrupt`."""
    truncate: bool = False
    """Whether the model learns how much of an interrupted answer was heard, and so takes `Played`."""
    resume: ResumeMode = "no"
    """How the conversation goes on when the connection to the provider is lost."""
    text_output: bool = False
    """Whether it can answer in text without speech."""
    server_tools: bool = False
    """Whether it has tools that run on the provider's side."""
    full_duplex: bool = False
    """Whether it listens and speaks at the same time, without turns."""
    input_rates: tuple[int, ...] = ()
    """The rates of the audio that it takes, in samples a second."""
    output_rates: tuple[int, ...] = ()
    """The rates of the audio that it gives, in samples a second."""
    shutdown: str | None = None
    """The date (ISO 8601) on which the provider retires the model; None if unknown."""
    replaced_by: str | None = None
    """The model that the provider recommends instead."""
    as_of: str | None = None
    """The date (ISO 8601) on which `shutdown` and `replaced_by` were last checked."""

    @classmethod
    def from_extensions(cls, names: tuple[str, ...]) -> Capabilities:
        """Return what is known of a service that offers these extensions and sends no record."""
        return _PLAIN.offered(names)

    def offered(self, names: tuple[str, ...]) -> Capabilities:
        """Return this record, limited to the extensions `names` that a service offers.

        If an offered command lacks details here, `say` counts as ``instructed``, and all fields of an
        `Update` count as changeable.
        """
        say: SayMode = "instructed" if self.say == "no" else self.say
        return msgspec.structs.replace(
            self,
            text=extensions.TEXT in names,
            image=extensions.IMAGE in names,
            respond=extensions.RESPOND in names,
            say=say if extensions.SAY in names else "no",
            update=(self.update or UPDATABLE) if extensions.UPDATE in names else (),
            history=self.history and extensions.TEXT in names,
            truncate=extensions.PLAYED in names,
        )

    def takes(self, extension: str) -> bool:
        """Whether the session takes the command of this extension, such as ``text``."""
        match extension:
            case extensions.TEXT:
                return self.text
            case extensions.IMAGE:
                return self.image
            case extensions.RESPOND:
                return self.respond
            case extensions.SAY:
                return self.say != "no"
            case extensions.UPDATE:
                return bool(self.update)
            case extensions.PLAYED:
                return self.truncate
            case _:
                return False


_PLAIN: Final = Capabilities(
    history=True,
    manual_turns=True,
    interrupt=True,
    input_rates=(16_000, 24_000),
    output_rates=(16_000, 24_000),
)
"""What any service on the Speko wire can do, as far as it offers the extensions for it."""


def extensions_of(capabilities: Capabilities) -> tuple[str, ...]:
    """Return the extensions that a server offers for a session with these capabilities."""
    return tuple(name for name in extensions.KNOWN if name == extensions.USAGE or capabilities.takes(name))


def read_capabilities(value: object, odd: list[str]) -> Capabilities | None:
    """Read a peer's record, field by field; None if it is not an object.

    An unknown field is ignored. A field with an odd value takes its default, and its name is appended to
    `odd`.
    """
    if not isinstance(value, dict):
        odd.append("capabilities")
        return None
    read: dict[str, Any] = {}
    for field in msgspec.structs.fields(Capabilities):
        if field.encode_name in value:
            try:
                read[field.name] = msgspec.convert(value[field.encode_name], field.type)
            except (msgspec.ValidationError, RecursionError):
                odd.append(f"capabilities.{field.encode_name}")
    return Capabilities(**read)


_REFUSALS: Final = {
    extensions.TEXT: "takes no text; say it in speech",
    extensions.IMAGE: "takes no images; describe the picture in words",
    extensions.RESPOND: "can't be asked to speak; it answers turns of the user only",
    extensions.SAY: "can't be told what to say; put it in the system prompt",
    extensions.UPDATE: "can't change an open session; open a new one with the new settings",
}


def refusal(extension: str, who: str = "this service") -> LocalProtocolError:
    """Return the error for a command that `who` does not take; `extension` is its name, such as ``text``."""
    return LocalProtocolError(f"{who} {_REFUSALS[extension]}")


def unchangeable(fields: tuple[str, ...], who: str = "this service") -> LocalProtocolError:
    """Return the error for an `Update` with `fields` that `who` can't change in an open session."""
    return LocalProtocolError(
        f"{who} can't change {' and '.join(fields)} in an open session; open a new one for that"
    )
