"""What the client says to the server: one frozen Struct per command.

Names are snake_case here and camelCase on the wire (speko-protocol, "Client to server"). `TextIn`, `ImageIn`,
`Respond`, `Say`, `Update` and `Played` are extensions: a client sends them only to a server that offers them.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, Final, Literal, TypeAlias, cast

import msgspec
from msgspec import UNSET, Meta, UnsetType

from .frames import Close, Expiring, Unknown

MAX_PLAYED: Final = 1_000_000_000
"""The most milliseconds of a `Played`: eleven days, far longer than a session lasts."""


class UpgradeRequest(msgspec.Struct, frozen=True):
    """A client asks for a WebSocket. Answer with `ServerConnection.accept` or `refuse`."""

    target: str
    """Path and query, as sent."""
    host: str
    subprotocols: tuple[str, ...]
    """As offered, in order; the first one is the session's token (speko-protocol, section 2)."""
    headers: tuple[tuple[str, str], ...]
    """The other header fields, names in lower case."""

    def __repr__(self) -> str:
        # The subprotocols hold the token, the headers may hold more: neither belongs in a log.
        return f"UpgradeRequest(target={self.target!r}, host={self.host!r})"

    def __rich_repr__(self) -> list[tuple[str, Any]]:
        return [("target", self.target), ("host", self.host)]


class AudioIn(msgspec.Struct, frozen=True, gc=False):
    """A piece of the user's speech: a binary message."""

    pcm: bytes
    """PCM16, little-endian, mono: whole samples, so always an even number of bytes."""
    sample_rate: int
    """Samples a second."""

    def __repr__(self) -> str:
        return f"AudioIn(pcm=<{len(self.pcm)} bytes>, sample_rate={self.sample_rate})"


class Commit(msgspec.Struct, frozen=True, gc=False):
    """The user's turn is over: take the buffered audio and answer it."""


class Clear(msgspec.Struct, frozen=True, gc=False):
    """Forget the buffered audio that was not committed."""


class EndTurn(msgspec.Struct, frozen=True, gc=False):
    """The user's turn is over, in a session whose server detects turns (VAD)."""


class Interrupt(msgspec.Struct, frozen=True, gc=False, rename="camel", tag_field="t", tag="interrupt"):
    """Stop the response in flight."""


class ToolResult(msgspec.Struct, frozen=True, gc=False, rename="camel", tag_field="t", tag="tool_result"):
    """The result of a tool call."""

    call_id: str = ""
    output: str = ""
    """Text for the model; a structured result is JSON text."""


TextRole: TypeAlias = Literal["user", "assistant", "system"]
"""Whose words a text is."""

TurnMode: TypeAlias = Literal["auto", "manual"]
"""Who ends the user's turns: the service, which detects the end of speech, or the client by `Commit`."""


class TextIn(msgspec.Struct, frozen=True, gc=False, rename="camel", tag_field="t", tag="text"):
    """An item of the conversation in writing. An extension."""

    text: str = ""
    role: TextRole = "user"
    respond: bool = False
    """Whether it is answered, as a turn of the user is: then it interrupts as speech does. Otherwise it is
    context."""


class ImageIn(msgspec.Struct, frozen=True, gc=False, rename="camel", tag_field="t", tag="image"):
    """A picture as context. An extension."""

    mime_type: str = ""
    """Such as ``image/jpeg``."""
    data: bytes = b""
    """The content of the image's file; base64 on the wire."""
    respond: bool = False
    """Whether it is answered."""

    def __repr__(self) -> str:
        return (
            f"ImageIn(mime_type={self.mime_type!r}, data=<{len(self.data)} bytes>, respond={self.respond!r})"
        )


class Respond(
    msgspec.Struct, frozen=True, gc=False, rename="camel", tag_field="t", tag="respond", omit_defaults=True
):
    """The assistant speaks now, without a turn of the user: a greeting, or a nudge after silence.

    An extension. While a response is under way, it waits for its end.
    """

    instructions: str = ""
    """For this response; empty for none."""


class Say(msgspec.Struct, frozen=True, gc=False, rename="camel", tag_field="t", tag="say"):
    """The assistant says this text, verbatim or by instruction; see `Capabilities.say`. An extension."""

    text: str = ""


class ToolSpec(msgspec.Struct, frozen=True, kw_only=True):
    """A function the model may call."""

    name: str
    description: str = ""
    parameters: dict[str, Any] = {}
    """A JSON Schema object for the arguments."""


class Update(msgspec.Struct, frozen=True, kw_only=True, rename="camel", tag_field="t", tag="update"):
    """Changes the settings of the session from the next response on. An extension.

    A field that is `msgspec.UNSET` stays as it is.
    """

    system_prompt: str | UnsetType = UNSET
    tools: tuple[ToolSpec, ...] | UnsetType = UNSET
    """All tools from now on, in place of the earlier ones."""
    voice: str | UnsetType = UNSET
    turns: TurnMode | UnsetType = UNSET

    @property
    def fields(self) -> tuple[str, ...]:
        """The names of the fields that change."""
        return tuple(name for name in self.__struct_fields__ if getattr(self, name) is not UNSET)


class Played(msgspec.Struct, frozen=True, gc=False, rename="camel", tag_field="t", tag="played"):
    """How much of the assistant's audio the user has heard. An extension.

    The server may estimate it, from the times at which it sent the audio. Only the client knows.
    """

    ms: Annotated[int, Meta(ge=0, le=MAX_PLAYED)] = 0
    """Milliseconds of the assistant's audio that were played since the last `Interruption`, or since the
    session began. Counted in the audio as the server sent it, at the session's output rate."""


ExtensionCommand: TypeAlias = TextIn | ImageIn | Respond | Say | Update
"""The commands that are extensions and ask for something."""

Command: TypeAlias = (
    UpgradeRequest
    | AudioIn
    | Commit
    | Clear
    | EndTurn
    | Interrupt
    | ToolResult
    | TextIn
    | ImageIn
    | Respond
    | Say
    | Update
    | Played
    | Unknown
    | Expiring
    | Close
)
"""Anything a server receives; an `UpgradeRequest` comes only at byte level, and only first."""


def text_in(text: str, role: TextRole, respond: bool | None) -> TextIn:
    """Return a `TextIn` that by default is answered if it is the user's."""
    return TextIn(text, role, role == "user" if respond is None else respond)


def extension_of(command: ExtensionCommand | Played) -> str:
    """Return the name of the extension that `command` belongs to; it is also the ``t`` of its message."""
    return cast("str", command.__struct_config__.tag)


_IMAGE_TYPE: Final = re.compile(r"image/[a-zA-Z0-9][a-zA-Z0-9.+-]{0,63}")
"""A MIME type of images without parameters: providers get it as part of a URL."""


def find_problem(command: ExtensionCommand | Played, *, max_image_size: int) -> str | None:
    """Return why the content of `command` can't be used, as a sentence; None if it can."""
    match command:
        case TextIn(text="") | Say(text=""):
            return "the text is empty; send some"
        case ImageIn(data=b""):
            return "the image is empty; send the content of its file"
        case ImageIn(data=data) if len(data) > max_image_size:
            return f"the image has more than {max_image_size} bytes; send a smaller one"
        case ImageIn(mime_type=mime_type) if not _IMAGE_TYPE.fullmatch(mime_type):
            return "the image's MIME type is invalid; send one such as image/jpeg"
        case Update(fields=()):
            return "the update changes nothing; set at least one field"
        case Update(voice=""):
            return "the voice is empty; name one, or leave it out"
        case Update(tools=tuple() as tools) if not all(tool.name for tool in tools):
            return "a tool has no name; give each tool one"
        case _:
            return None


_DECODED: Final = 22
"""How many times more memory JSON takes as objects, at most."""


def content_size(command: Command) -> int:
    """Return how many bytes of memory the content of `command` takes, about."""
    match command:
        case AudioIn(pcm=data) | ImageIn(data=data):
            return len(data)
        case TextIn(text=text) | Say(text=text) | Respond(instructions=text):
            return len(text)
        case ToolResult(call_id=name, output=text) | Unknown(t=name, raw=text):
            return len(name) + len(text)
        case Update(system_prompt=prompt, tools=tools, voice=voice):
            objects = 0 if tools is UNSET else _DECODED * len(msgspec.json.encode(tools))
            return objects + sum(len(text) for text in (prompt, voice) if text is not UNSET)
        case _:
            return 0
