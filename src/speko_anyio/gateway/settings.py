"""The gateway's configuration: one schema, from a TOML file and from the environment.

A setting ``name`` stands in the file as ``name = ...`` and in the environment as ``SPEKO_GATEWAY_NAME``; or
``SPEKO_GATEWAY_NAME_FILE`` names a file that holds it, as container platforms hand secrets out.
The environment goes before the file.
"""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Final, Literal

import msgspec
from msgspec import Meta

from speko_anyio.protocol.errors import SpekoError

PREFIX: Final = "SPEKO_GATEWAY_"
_FROM_FILE: Final = "_FILE"

_SECRETS: Final = frozenset({"keys", "secret", "database"})
"""Settings that are not shown; a database's URL may hold a password."""

Seconds = Annotated[float, Meta(ge=0)]


class SettingsError(SpekoError):
    """A setting that can't be used; says where it stands."""


class Settings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """All that can be set. Seconds, unless a name says otherwise."""

    host: str = "127.0.0.1"
    """Address to listen on."""
    port: Annotated[int, Meta(ge=0, le=65_535)] = 8000
    """0 takes a free one."""
    public_url: str | None = None
    """Where clients reach the gateway, behind a proxy."""
    keys: tuple[str, ...] = ()
    """API keys that may mint, besides those in the database; in the environment separated by commas."""
    secret: Annotated[str, Meta(min_length=32)] | None = None
    """Signs session tokens; nodes that share a database need the same. None: one of this process only."""
    handlers: dict[str, str] = {}
    """Of the operator's own: ``module:attribute`` by the name that clients mint with; in the environment
    ``name=module:attribute``, separated by commas."""
    database: str | None = None
    """A SQLite file's path, a ``postgresql://`` URL, or ``memory``: records end with the process. None: a
    file in the user's state folder."""
    transcript_days: Annotated[float, Meta(gt=0)] | None = None
    """For which what was said is stored; None: it is not."""
    record_days: Annotated[float, Meta(ge=1)] | None = None
    """For which the records of sessions are stored; None: until somebody deletes them."""
    playground: bool | None = None
    """A page to talk to the gateway with; None: when no API key is set."""
    metrics: bool = False
    """``/metrics`` for Prometheus, to whoever asks."""
    log_format: Literal["text", "json"] = "text"
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    drain_seconds: Seconds = 10.0
    """That living sessions have to finish when the gateway is told to stop."""
    lease_seconds: Annotated[float, Meta(ge=1)] = 30.0
    """After which a node that gives no sign of life is taken for lost."""
    token_seconds: Annotated[int, Meta(ge=1)] = 60
    """From the mint, in which a session must be opened."""
    max_sessions: Annotated[int, Meta(ge=1)] = 1000
    """Open at once on this node."""
    idle_seconds: Annotated[float, Meta(gt=0)] | None = 300.0
    """Without a message from the client, after which a session is ended."""
    allowed_origins: tuple[str, ...] | None = None
    """Of the web pages that may use the gateway, such as https://app.example.com; in the environment with
    commas between them. None: any."""
    mints_per_second: Annotated[float, Meta(gt=0)] = 20.0
    """For each API key, on average, on this node."""
    mints_at_once: Annotated[int, Meta(ge=1)] = 200

    def __repr__(self) -> str:
        shown = ", ".join(f"{name}={text}" for name, text in self.shown())
        return f"Settings({shown})"

    def shown(self) -> list[tuple[str, str]]:
        """Every setting and its value for people to read; secrets only say whether they are set."""
        return [(name, _shown(name, getattr(self, name))) for name in self.__struct_fields__]


def _shown(name: str, value: object) -> str:
    if name in _SECRETS:
        return "(set)" if value else "(not set)"
    if isinstance(value, dict):
        return ", ".join(f"{key}={text}" for key, text in value.items()) or "(not set)"
    return "(not set)" if value is None else str(value)


class Loaded(msgspec.Struct, frozen=True):
    """The settings, and for each one that was given where that was."""

    settings: Settings
    sources: dict[str, str]


def load_settings(file: Path | None, environment: Mapping[str, str]) -> Loaded:
    """Read the settings. Raises `SettingsError`, which names the file or the variable that is wrong, and not
    the value."""
    given: dict[str, Any] = {}
    sources: dict[str, str] = {}
    for name, value in _read(file).items():
        given[name] = _convert(name, value, source=str(file), strict=True)
        sources[name] = str(file)
    for variable, text in environment.items():
        if not variable.startswith(PREFIX):
            continue
        name = variable.removeprefix(PREFIX).lower()
        if variable.endswith(_FROM_FILE):
            name = name.removesuffix(_FROM_FILE.lower())
            text = _read_secret(variable, text)
        given[name] = _convert(name, _parse(name, text, variable), source=variable, strict=False)
        sources[name] = variable
    return Loaded(Settings(**given), sources)


def _read(file: Path | None) -> dict[str, Any]:
    if file is None:
        return {}
    try:
        return tomllib.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise SettingsError(f"{file} can't be read: {error.strerror}; check the path") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingsError(f"{file} is no TOML: {error}; mend it there") from None


def _read_secret(variable: str, path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError):
        raise SettingsError(f"{variable} names a file that can't be read; check its path") from None


_TYPES: Final = {field.name: field.type for field in msgspec.structs.fields(Settings)}


def parse_handlers(texts: Iterable[str], *, source: str) -> dict[str, str]:
    """Each ``name=module:attribute``, as a file would hold them. `SettingsError`, which names `source`, for
    one that is not written so, and for a name that comes twice."""
    found: dict[str, str] = {}
    for text in texts:
        name, separator, target = (part.strip() for part in text.partition("="))
        if not (name and separator and target):
            raise SettingsError(f"{source}: {text!r} names no handler; write name=module:attribute")
        if name in found:
            raise SettingsError(f"{source}: there are two handlers named {name}; name one of them otherwise")
        found[name] = target
    return found


def _parse(name: str, text: str, variable: str) -> object:
    """A variable's text as what a file would hold; an empty one says nothing."""
    if name in ("keys", "allowed_origins", "handlers"):
        parts = [part.strip() for part in text.split(",") if part.strip()]
        return parse_handlers(parts, source=variable) if name == "handlers" else parts
    return text.strip() or None


def _convert(name: str, value: object, *, source: str, strict: bool) -> object:
    if name not in _TYPES:
        close = difflib.get_close_matches(name, _TYPES, n=1)
        hint = f"; did you mean {close[0]}?" if close else f"; there are {', '.join(_TYPES)}"
        raise SettingsError(f"{source}: there is no setting {name}{hint}")
    try:
        return msgspec.convert(value, _TYPES[name], strict=strict)
    except msgspec.ValidationError as error:
        # msgspec names what was expected, and of the value no more than its type.
        raise SettingsError(
            f"{source}: {name} is wrong ({_without_value(error)}); correct it there"
        ) from None


def _without_value(error: msgspec.ValidationError) -> str:
    """What msgspec says, but for the value of a wrong choice."""
    text = str(error)
    return "not one of the choices" if text.startswith("Invalid enum value") else text
