"""The gateway's configuration: one schema, from a TOML file and from the environment.

A setting ``name`` stands in the file as ``name = ...`` and in the environment as ``SPEKO_GATEWAY_NAME``; or
``SPEKO_GATEWAY_NAME_FILE`` names a file that holds it, as container platforms hand secrets out. The
environment overrides the file. Variables that only look like settings, because a service has the same name as
the gateway, are ignored; see `is_service_link`.
"""

from __future__ import annotations

import codecs
import difflib
import math
import os
import re
import tomllib
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Final, Literal, TypeVar

import msgspec
import msgspec.inspect
from msgspec import Meta

from speko_anyio.protocol._text import clean
from speko_anyio.protocol._tokens import redact, strip_invisible
from speko_anyio.protocol.errors import SpekoError

from ._phone import Phone

PREFIX: Final = "SPEKO_GATEWAY_"
_FROM_FILE: Final = "_FILE"

_SECRETS: Final = frozenset({"keys", "secret", "database", "provider_options"})
"""Settings that are never shown: a database's URL may hold a password, and a server tool a credential."""

Seconds = Annotated[float, Meta(ge=0)]

_Table = TypeVar("_Table", bound=msgspec.Struct)


class SettingsError(SpekoError):
    """Invalid settings: `faults` has a message for each, which names its source."""

    def __init__(self, *faults: str) -> None:
        super().__init__("\n".join(faults))
        self.faults = faults


class Settings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """All settings of the gateway. Times are in seconds."""

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
    """Handlers of your own: ``module:attribute`` by the name that clients mint with; in the environment
    ``name=module:attribute``, separated by commas."""
    phones: dict[str, Phone] = {}
    """Phone carriers whose calls it takes, by name: a table of `Phone` each; in the environment
    ``carrier=handler``, separated by commas."""
    ear: str | None = None
    """The offline voice's speech to text: ``pocketsphinx`` or ``whisper:MODEL``."""
    models: dict[str, tuple[str, ...]] = {}
    """The models that clients may use, by the provider's name; any of a provider that is missing. In the
    environment ``provider=model``, separated by commas."""
    provider_options: dict[str, dict[str, Any]] = {}
    """Options of the accounts, by the provider's name, which are caps for clients; in the environment as
    JSON."""
    database: str | None = None
    """A SQLite file's path, a ``postgresql://`` URL, or ``memory``: records end with the process. None: a
    file in the user's state folder."""
    transcript_days: Annotated[float, Meta(gt=0)] | None = None
    """Seconds for which transcripts are stored; None: they are not stored."""
    record_days: Annotated[float, Meta(ge=1)] | None = None
    """Seconds for which the records of sessions are stored; None: until you delete them."""
    temporary_key: bool | None = None
    """Whether to generate an API key for this run and print it. None: on a loopback address without a public
    URL, as long as no other key was ever used with the database."""
    playground: bool | None = None
    """A page to talk to the gateway with; None: on a loopback address with a generated API key."""
    metrics: bool = False
    """``/metrics`` for Prometheus, without authentication."""
    log_format: Literal["text", "json"] = "text"
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    drain_seconds: Seconds = 10.0
    """Time that open sessions get to finish on shutdown."""
    lease_seconds: Annotated[float, Meta(ge=1)] = 30.0
    """A node silent for this long is considered lost."""
    token_seconds: Annotated[int, Meta(ge=1)] = 60
    """Time from the mint in which a session must be opened."""
    max_sessions: Annotated[int, Meta(ge=1)] = 1000
    """Most sessions open at once on this node."""
    idle_seconds: Annotated[float, Meta(gt=0)] | None = 300.0
    """Time without a message from the client after which a session is ended."""
    allowed_origins: tuple[str, ...] | None = None
    """Origins of the web pages that may use the gateway, such as https://app.example.com; in the environment
    separated by commas. None: any page may open a session with its token, but none of another origin may
    create one."""
    mints_per_second: Annotated[float, Meta(gt=0)] = 20.0
    """Mints a second for each API key, on average, on this node."""
    mints_at_once: Annotated[int, Meta(ge=1)] = 200
    reads_per_second: Annotated[float, Meta(gt=0)] = 5.0
    """Requests of records a second for each API key, on average, on this node."""
    reads_at_once: Annotated[int, Meta(ge=1)] = 20

    def __repr__(self) -> str:
        shown = ", ".join(f"{name}={text}" for name, text in self.shown())
        return f"Settings({shown})"

    def shown(self) -> list[tuple[str, str]]:
        """Return every setting and its value for people to read; secrets only say whether they are set."""
        return [(name, _shown(name, getattr(self, name))) for name in self.__struct_fields__]


def _shown(name: str, value: object) -> str:
    if name in _SECRETS:
        return "(set)" if value else "(not set)"
    if isinstance(value, dict):
        value = ", ".join(f"{key}={_shown_item(item)}" for key, item in value.items()) or None
    return "(not set)" if value is None else clean(redact(str(value)))


def _shown_item(item: Any) -> str:
    match item:
        case str():
            return item
        case Phone(handler=handler):
            return handler
        case _:
            return "|".join(item)


class Loaded(msgspec.Struct, frozen=True):
    """The settings, and the source of each one that was given."""

    settings: Settings
    sources: dict[str, str]
    faults: tuple[str, ...] = ()
    """One message for each invalid setting; `settings` has the default instead."""
    service_links: tuple[str, ...] = ()
    """The variables that were ignored; see `is_service_link`."""


def read_settings(file: Path | None, environment: Mapping[str, str]) -> Loaded:
    """Read the settings.

    `Loaded.faults` names the file or variable of every fault and the valid values, but never the value.
    """
    given: dict[str, Any] = {}
    sources: dict[str, str] = {}
    faults: list[str] = []
    links: list[str] = []
    try:
        found = _read(file)
    except SettingsError as error:
        faults += error.faults
        found = {}
    for name, value in found.items():
        try:
            given[name] = _convert(name, _stripped(value), source=str(file), strict=True)
            sources[name] = str(file)
        except SettingsError as error:
            faults += error.faults
    for variable, text in environment.items():
        if not variable.startswith(PREFIX):
            continue
        if is_service_link(variable, text):
            links.append(variable)
            continue
        name = variable.removeprefix(PREFIX).lower()
        try:
            if variable.endswith(_FROM_FILE):
                name = name.removesuffix(_FROM_FILE.lower())
                text = _read_secret(variable, text)
            elif name != "database":  # a path keeps its bytes
                text = utf8_text(text)
            given[name] = _convert(name, _parse(name, text, variable), source=variable, strict=False)
            sources[name] = variable
        except SettingsError as error:
            faults += error.faults
        except UnicodeError:
            faults.append(f"{variable}: {name} is invalid; it must be UTF-8 text")
    return Loaded(Settings(**given), sources, tuple(faults), tuple(links))


_LINK_NAME: Final = re.compile(
    r"(?:.+_)?(?:SERVICE_HOST|SERVICE_PORT(?:_[A-Z0-9_]+)?|PORT_\d+_(?:TCP|UDP|SCTP)(?:_(?:PROTO|PORT|ADDR))?"
    r"|ENV_.+)"
)
_LINK_VALUES: Final = {
    "PORT": re.compile(r"(?:tcp|udp|sctp)://\S+"),
    "NAME": re.compile(r"/\S+/\S+"),
}
"""Values that tell a link from a setting, by the last word of the variable's name."""


def is_service_link(variable: str, text: str) -> bool:
    """Return whether a variable describes a service named ``speko-gateway...`` rather than a setting.

    Kubernetes sets such variables in every container (see its "Service environment variables"), and Docker
    does for its links. They are ``*_SERVICE_HOST``, ``*_SERVICE_PORT``, ``*_SERVICE_PORT_NAME``,
    ``*_PORT_8000_TCP`` and its longer forms, and ``*_PORT`` when it holds a URL such as
    ``tcp://10.96.7.8:8000``. Docker also sets ``*_ENV_NAME``, and ``*_NAME`` to a path such as
    ``/client/speko-gateway``.
    """
    name = variable.removeprefix(PREFIX)
    value = _LINK_VALUES.get(name.rpartition("_")[2])
    if value is not None and value.fullmatch(text.strip()):
        return True
    return _LINK_NAME.fullmatch(name) is not None


def utf8_text(text: str) -> str:
    """Return the UTF-8 text of an environment variable or a command-line argument, whatever the locale.

    Python keeps bytes that the locale can't decode as surrogates. Raises UnicodeError if it is not UTF-8.
    """
    try:
        text.encode()
    except UnicodeError:
        return os.fsencode(text).decode("utf-8")
    return text


def _read(file: Path | None) -> dict[str, Any]:
    if file is None:
        return {}
    try:
        return tomllib.loads(_read_text(file))
    except OSError as error:
        raise SettingsError(f"{file} can't be read: {error.strerror}; check the path") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingsError(f"{file} is not valid TOML: {error}; fix it there") from None


def _read_secret(variable: str, path: str) -> str:
    try:
        return _read_text(Path(path))
    except (OSError, ValueError):  # ValueError: not UTF-8, or a path with a null character
        raise SettingsError(f"{variable} names a file that can't be read; check its path") from None


def _read_text(file: Path) -> str:
    """Read a file in UTF-8, or in UTF-16 as PowerShell writes it, without its byte order mark."""
    content = file.read_bytes()
    utf16 = content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    return content.decode("utf-16" if utf16 else "utf-8-sig").replace("\r\n", "\n")


_TYPES: Final = {field.name: field.type for field in msgspec.structs.fields(Settings)}


def parse_handlers(texts: Iterable[str], *, source: str) -> dict[str, str]:
    """Parse each ``name=module:attribute`` into what a file would hold.

    Raises `SettingsError`, which names `source`, for another form and for a repeated name.
    """
    form = "a handler; write name=module:attribute"
    found = _named(texts, source, form, repeated="two handlers are named {}; rename one")
    return {name: target for name, [target] in found.items()}


def parse_phones(texts: Iterable[str], *, source: str) -> dict[str, dict[str, Any]]:
    """Parse each ``carrier=handler`` into what a file would hold.

    Raises `SettingsError`, which names `source`, for another form and for a repeated carrier.
    """
    form = "a phone; write carrier=handler, such as twilio=local"
    found = _named(texts, source, form, repeated="{} has two handlers; name one")
    return {carrier: {"handler": handler} for carrier, [handler] in found.items()}


def _named(
    texts: Iterable[str], source: str, form: str, *, repeated: str | None = None
) -> dict[str, list[str]]:
    """Parse each ``name=value``; return the values of each name.

    Raises `SettingsError` with every fault: a text that is not of this `form`, and a `repeated` name, unless
    that is None.
    """
    found: dict[str, list[str]] = {}
    faults: list[str] = []
    for text in texts:
        name, _, value = (part.strip() for part in text.partition("="))
        if not (name and value):
            faults.append(f"{source}: {text!r} is not {form}")
        elif name in found and repeated is not None:
            faults.append(f"{source}: {repeated.format(name)}")
        else:
            found.setdefault(name, []).append(value)
    if faults:
        raise SettingsError(*faults)
    return found


def _parse(name: str, text: str, variable: str) -> object:
    """Parse a variable into what a file would hold; an empty one is not set."""
    parts = [part for part in map(_stripped, text.split(",")) if part]
    match name:
        case "keys" | "allowed_origins":
            return parts
        case "handlers":
            return parse_handlers(parts, source=variable)
        case "phones":
            return parse_phones(parts, source=variable)
        case "models":
            return _named(parts, variable, "a model; write provider=model")
        case "provider_options":
            try:
                return msgspec.json.decode(_stripped(text) or "{}")
            except msgspec.DecodeError as error:
                raise SettingsError(f"{variable}: {name} is not valid JSON: {error}; correct it") from None
        case _:
            return _stripped(text) or None


def _stripped(value: Any) -> Any:
    """Strip line ends, spaces and byte order marks from the texts of `value`.

    Editors and shells leave them around settings in files.
    """
    match value:
        case str():
            return strip_invisible(value)
        case list():
            return [_stripped(item) for item in value]
        case dict():
            return {name: _stripped(item) for name, item in value.items()}
        case _:
            return value


def _convert(name: str, value: object, *, source: str, strict: bool) -> object:
    if name not in _TYPES:
        raise SettingsError(f"{source}: unknown setting {name}; {did_you_mean(name, _TYPES)}")
    try:
        converted = msgspec.convert(value, _TYPES[name], strict=strict)
    except msgspec.ValidationError:
        # msgspec's message would quote the invalid value.
        converted = math.nan
    if isinstance(converted, float) and math.isnan(converted):
        if name == "phones" and isinstance(value, dict):
            for carrier, fields in value.items():
                if isinstance(fields, dict):
                    try:
                        convert_table(f"the phone {carrier}", fields, Phone)
                    except ValueError as error:
                        raise SettingsError(f"{source}: {error}") from None
        raise SettingsError(f"{source}: {name} is invalid; it must be {choices_of(name)}")
    return converted


def did_you_mean(name: str, known: Collection[str]) -> str:
    """Return what to use instead of an unknown name: the one that is alike, or any of `known`."""
    close = difflib.get_close_matches(name, known, n=1)
    return f"did you mean {close[0]}?" if close else f"choose from {', '.join(known)}"


def convert_table(what: str, given: Mapping[str, Any], kind: type[_Table]) -> _Table:
    """Return the fields of a table in the settings as a `kind`.

    Raises ValueError with the valid names or values, in the words of the other settings, about `what`.
    """
    fields = {field.name: field for field in msgspec.structs.fields(kind)}
    for option, value in given.items():
        if option not in fields:
            raise ValueError(f"{what}: unknown option {option}; {did_you_mean(option, fields)}")
        try:
            msgspec.convert(value, fields[option].type)
        except msgspec.ValidationError as error:
            if isinstance(value, dict | list):  # something in it is wrong
                raise ValueError(f"{what}: {option} can't be used: {error}; correct it") from None
            values = describe_values(msgspec.inspect.type_info(fields[option].type))
            raise ValueError(f"{what}: {option} is invalid; it must be {values}") from None
    for option, field in fields.items():
        if field.required and option not in given:
            raise ValueError(f"{what} has no {option}; name one")
    return msgspec.convert(given, kind)


def choices_of(name: str) -> str:
    """Return the valid values of a setting, in words."""
    return describe_values(msgspec.inspect.type_info(_TYPES[name]))


def describe_values(kind: msgspec.inspect.Type) -> str:
    """Return the valid values of a type, in words."""
    match kind:
        case msgspec.inspect.UnionType(types=types):
            kinds = (describe_values(one) for one in types if not isinstance(one, msgspec.inspect.NoneType))
            return " or ".join(dict.fromkeys(kinds))
        case msgspec.inspect.IntType(ge=low, le=high):
            return f"a whole number{_range(low, None, high)}"
        case msgspec.inspect.FloatType(ge=low, gt=above, le=high):
            return f"a number{_range(low, above, high)}"
        case msgspec.inspect.StrType(min_length=length):
            return "text" if length is None else f"text of {length} characters or more"
        case msgspec.inspect.BoolType():
            return "true or false"
        case msgspec.inspect.LiteralType(values=values):
            *others, last = sorted(map(str, values))
            return f"{', '.join(others)} or {last}" if others else last
        case msgspec.inspect.DictType(value_type=msgspec.inspect.StrType()):
            return "a table of names and texts"
        case msgspec.inspect.DictType(value_type=msgspec.inspect.StructType(fields=fields)):
            return f"a table for each name, with {', '.join(field.encode_name for field in fields)}"
        case msgspec.inspect.DictType(value_type=msgspec.inspect.DictType()):
            return "a table of options for each provider"
        case msgspec.inspect.DictType():
            return "a list of texts for each provider"
        case msgspec.inspect.StructType():
            return "a table"
        case msgspec.inspect.VarTupleType(item_type=msgspec.inspect.StructType()):
            return "a list of tables"
        case _:
            return "a list of texts"


def _range(low: float | None, above: float | None, high: float | None) -> str:
    if above is not None:
        return f" above {above:g}"
    if low is None:
        return ""
    return f", {low:g} or more" if high is None else f" from {low:g} to {high:g}"
