"""Sessions straight with a provider: your own account there, and no service or gateway in between."""

from __future__ import annotations

import abc
import functools
import os
import uuid
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractAsyncContextManager
from types import MappingProxyType
from typing import Any, ClassVar, Final, TypeAlias, Unpack

from ._net.event_loop import clock
from ._observe.observer import with_provider
from .client._direct import HEADERS, convert, open_connection
from .client._open_core import CoreOptions
from .client._parameters import (
    AccountParameters,
    SessionOptions,
    SessionParameters,
    check_text,
    options_beside,
    session_config,
    tool_list,
)
from .client._requests import HTTPClient
from .client._session import RealtimeSession
from .client.openai_calls import OpenAICalls
from .client.tools import AnyTool, Toolbox
from .errors import ConfigurationError, MissingAPIKeyError
from .protocol._tokens import find_key_fault, strip_invisible
from .protocol.capabilities import Capabilities
from .protocol.errors import LocalProtocolError
from .protocol.mint import Kept, SessionConfig
from .providers._connection import ConnectionOptions, ProviderConnection, split_options
from .providers._endpoint import AuthStyle, Endpoint
from .providers._options import merge_client_options
from .providers._provider import DialectOptions, ProviderDialect
from .providers.google import GoogleAuthStyle, GoogleDialect, GoogleOptions, google_endpoint
from .providers.google._config import configure
from .providers.google._families import google_capabilities
from .providers.google._resumption import Carried
from .providers.openai import OpenAIDialect, OpenAIOptions, openai_capabilities, openai_endpoint
from .providers.openai_calls import OpenAICallDialect, call_endpoint
from .providers.xai import XAIDialect, XAIOptions, within, xai_capabilities, xai_endpoint

_NO_FIELDS: Final[Mapping[str, str]] = MappingProxyType({})
_OPENAI_OPTIONS: Final = OpenAIOptions()
_XAI_OPTIONS: Final = XAIOptions()
_GOOGLE_OPTIONS: Final = GoogleOptions()


_MakeDialect: TypeAlias = Callable[[str | None, DialectOptions], ProviderDialect]
"""Makes the dialect of one connection, which continues the session of that handle."""


class PreparedSession:
    """A session whose configuration is converted. Makes its connections; see `Provider.prepare`."""

    __slots__ = ("_endpoint", "_make_dialect")

    def __init__(self, endpoint: Callable[[str | None], Endpoint], make_dialect: _MakeDialect) -> None:
        self._endpoint = endpoint
        self._make_dialect = make_dialect

    def connection(
        self, *, resumption: str | None = None, **options: Unpack[ConnectionOptions]
    ) -> ProviderConnection:
        """Return a core for one connection, as `Provider.connection` does."""
        transport, rest = split_options(**options)
        dialect = self._make_dialect(resumption, rest)
        return ProviderConnection(self._endpoint(resumption), dialect, **transport)


class Provider(abc.ABC):
    """A provider's service and your account there: `OpenAI`, `XAI` or `Google`. Its repr shows no key.

    Use it for sessions straight with the provider (`connect`), or give it to a gateway.
    """

    name: ClassVar[str]
    """As in ``speko.realtime.connect(provider=...)``."""
    key_variable: ClassVar[str]
    """The environment variable that holds the API key."""
    url_variable: ClassVar[str]
    """The environment variable that holds the base URL."""
    usual_model: ClassVar[str]
    """The model to use when none is named."""
    options_type: ClassVar[type[OpenAIOptions | XAIOptions | GoogleOptions]]
    """The class of the options that only this provider has."""
    speko_models: ClassVar[Mapping[str, str]] = {}
    """The provider's own names for models that Speko's API names differently."""

    def __init__(
        self,
        api_key: str | None,
        base_url: str | None,
        default_url: str,
        headers: Mapping[str, str],
        query: Mapping[str, str],
    ) -> None:
        check_text("api_key", api_key)
        check_text("base_url", base_url)
        key = strip_invisible(api_key or os.environ.get(self.key_variable) or "")
        if not key:
            raise MissingAPIKeyError(self.key_variable, f"{type(self).__name__}(api_key=...)")
        fault = find_key_fault(key)
        if fault is not None:
            raise ConfigurationError(f"the API key {fault}; check {self.key_variable}")
        self._api_key = key
        self._headers = dict(headers)
        self._query = dict(query)
        self._base_url = strip_invisible(base_url or os.environ.get(self.url_variable) or default_url)
        # Fail here, and not when the first session opens.
        try:
            self.endpoint(self.usual_model)
        except LocalProtocolError as error:
            variables = f"{self.key_variable} and {self.url_variable}"
            raise ConfigurationError(f"{error} (what is not passed comes from {variables})") from None

    def __repr__(self) -> str:
        return f"<{type(self).__name__}: {self.endpoint(self.usual_model)!r}>"

    @classmethod
    def is_configured(cls) -> bool:
        """Whether the environment has an API key for this provider."""
        return bool(strip_invisible(os.environ.get(cls.key_variable, "")))

    @abc.abstractmethod
    def endpoint(self, model: str) -> Endpoint:
        """Where and how to connect, key included. `LocalProtocolError` when an argument is invalid."""

    def capabilities(self, model: str) -> Capabilities:
        """Return what a session with `model` can do."""
        return Capabilities()

    def connection(
        self,
        config: SessionConfig,
        *,
        metadata: Mapping[str, Any] | None = None,
        resumption: str | None = None,
        **options: Unpack[ConnectionOptions],
    ) -> ProviderConnection:
        """Return a core for one connection, at byte level, not connected yet.

        - `metadata`: of the mint; its ``provider_options`` are granted within this account's options, see
          `check_metadata`.
        - `resumption`: of an earlier connection's dialect, whose session this one continues.

        `LocalProtocolError` when `config` or `metadata` can't be used. Schemas of tools may take 0.2 seconds;
        in async code use `prepare`.
        """
        return self._prepared(config, metadata, quick=False).connection(resumption=resumption, **options)

    async def prepare(
        self, config: SessionConfig, *, metadata: Mapping[str, Any] | None = None
    ) -> PreparedSession:
        """Convert `config` and `metadata` for all connections of one session; raises as `connection`.

        A conversion that takes long runs in a worker thread. Cancelling abandons it there.
        """
        return await convert(functools.partial(self._prepared, config, metadata))

    def _prepared(
        self, config: SessionConfig, metadata: Mapping[str, Any] | None, *, quick: bool
    ) -> PreparedSession:
        endpoint = functools.partial(self._endpoint, config.model)
        return PreparedSession(endpoint, self._make_dialect(config, metadata, quick=quick))

    @abc.abstractmethod
    def check_metadata(self, metadata: Mapping[str, Any] | None) -> None:
        """Check that the ``provider_options`` in the metadata of a mint are allowed.

        This account's options are caps: of two numbers, efforts or flags that cost, the cheaper one holds,
        and a client can't change anything else that is set here. `LocalProtocolError` when they can't be
        granted.
        """

    @abc.abstractmethod
    def _make_dialect(
        self, config: SessionConfig, metadata: Mapping[str, Any] | None, *, quick: bool
    ) -> _MakeDialect:
        """Return what makes the dialects of one session. With `quick`, raise `Laborious` for long work."""

    def _endpoint(self, model: str, resumption: str | None) -> Endpoint:
        """Return where to connect for `connection`."""
        return self.endpoint(model)

    def connect(
        self,
        *,
        model: str,
        **parameters: Unpack[AccountParameters],
    ) -> AbstractAsyncContextManager[RealtimeSession, None]:
        """Hold a session with the provider open for the block, as `Realtime.connect` does.

        The parameters are those of `Realtime.connect`, without the ones that only the Speko API has. A
        parameter that the provider can't honour is logged as a warning. Audio is resampled here to a sample
        rate that the provider lacks, which takes the extra `audio` (ImportError without it) and delays speech
        by up to 20 ms; None is the provider's own rate. `session_id` is generated here, and `expires_at` is
        empty. `ping_timeout` is 60 by default, and `limits` are `PROVIDER_LIMITS`: audio travels as JSON
        here.

        Raises `APIConnectionError` when the host can't be reached, `HandshakeError` when it refuses the
        session, `LocalProtocolError` when a parameter is invalid, `ConfigurationError` when `temperature`
        is not finite. A configuration that the provider refuses is an `ErrorFrame` and the session's end.
        """
        # Once: an iterator would be empty the second time.
        parameters["tools"] = tools = tool_list(parameters.get("tools", ()))
        config = session_config(self.name, model, parameters)
        options = options_beside(SessionParameters, parameters)
        options["observer"] = with_provider(options.get("observer"), provider=self.name, model=model)

        async def make_connection(core_options: CoreOptions) -> ProviderConnection:
            prepared = await self.prepare(config)
            return prepared.connection(clock=clock(), headers=HEADERS, **core_options)

        return open_connection(
            make_connection,
            self.endpoint(model),
            config,
            session_id=f"{self.name}-{uuid.uuid4().hex[:12]}",
            tools=tools,
            **options,
        )


class OpenAI(Provider):
    """OpenAI Realtime, or any server that speaks its protocol.

    - `api_key`: else ``OPENAI_API_KEY``; `MissingAPIKeyError` when there is neither.
    - `base_url`: ``https``, ``http``, ``wss`` or ``ws``, with any path; else ``OPENAI_BASE_URL``, else OpenAI
      itself. `path` is added to it.
    - `auth`: how the key travels; see `AuthStyle`.
    - `options`: those that only OpenAI has.
    - `headers`, `query`: further fields of the opening request, such as for a proxy; they replace ours of the
      same name.
    - `http_client`: for `calls`, anything with the ``request`` of `httpx.AsyncClient`; yours to close.

    Raises `ConfigurationError` when an argument is invalid.
    """

    name = "openai"
    options_type: ClassVar[type[OpenAIOptions | XAIOptions | GoogleOptions]] = OpenAIOptions
    key_variable = "OPENAI_API_KEY"
    url_variable = "OPENAI_BASE_URL"
    usual_model = "gpt-realtime-2.1"

    def __init__(
        self,
        api_key: str | None = None,
        *,
        base_url: str | None = None,
        path: str = "/realtime",
        auth: AuthStyle = "header",
        options: OpenAIOptions = _OPENAI_OPTIONS,
        headers: Mapping[str, str] = _NO_FIELDS,
        query: Mapping[str, str] = _NO_FIELDS,
        http_client: HTTPClient | None = None,
    ) -> None:
        self._path = path
        self._auth: AuthStyle = auth
        self._options = options
        super().__init__(api_key, base_url, "wss://api.openai.com/v1", headers, query)
        self.calls: OpenAICalls = OpenAICalls(self._call_endpoint, options, http_client)
        """Phone calls that reach your project over SIP."""

    def endpoint(self, model: str) -> Endpoint:
        endpoint = openai_endpoint(
            self._api_key, model, base_url=self._base_url, path=self._path, auth=self._auth
        )
        return endpoint.extended(self._headers, self._query)

    def capabilities(self, model: str) -> Capabilities:
        return openai_capabilities(model)

    def check_metadata(self, metadata: Mapping[str, Any] | None) -> None:
        merge_client_options(self._options, metadata, self.name)

    def _make_dialect(
        self, config: SessionConfig, metadata: Mapping[str, Any] | None, *, quick: bool
    ) -> _MakeDialect:
        wanted = merge_client_options(self._options, metadata, self.name)
        kept = Kept(config, SessionConfig)
        return lambda _, options: OpenAIDialect(kept.get(), options=wanted, **options)

    def _call_endpoint(self, call_id: str, action: str | None = None) -> Endpoint:
        endpoint = call_endpoint(self._api_key, call_id, action, base_url=self._base_url, path=self._path)
        return endpoint.extended(self._headers, self._query)

    def attach(
        self,
        call_id: str,
        *,
        model: str | None = None,
        tools: Iterable[AnyTool] = (),
        **options: Unpack[SessionOptions],
    ) -> AbstractAsyncContextManager[RealtimeSession, None]:
        """Join a phone call that `calls` accepted, for the block, which ends with the call at the latest.

        The audio runs between the phone line and OpenAI: no `Audio` comes, and `send_audio` raises
        `LocalProtocolError`. Everything else is as in any session: transcripts, texts, `say`, `update`,
        tools, interruptions. Each key that the caller presses is a `Digit`. Leaving the block doesn't end the
        call; `calls.hang_up` does.

        - `call_id`: of the webhook.
        - `model`: the one that was accepted for the call, by which `capabilities` are known.
        - `tools`: those that the call was accepted with; they replace them, unless there are none.
        - `options`: see `SessionOptions`.

        Raises as `connect`; `HandshakeError` for a call that is over.
        """
        check_text("call_id", call_id, required=True)
        model = self.usual_model if model is None else model
        check_text("model", model, required=True)
        if accepted := options.keys() & SessionParameters.__annotations__.keys():
            raise TypeError(
                f"{min(accepted)} is settled when the call is accepted: pass it to calls.accept, or change "
                "it with session.update"
            )
        tools = tool_list(tools)
        specs = Toolbox(tools).specs
        endpoint = self._call_endpoint(call_id)
        options["observer"] = with_provider(options.get("observer"), provider=self.name, model=model)

        async def make_connection(core_options: CoreOptions) -> ProviderConnection:
            transport, rest = split_options(clock=clock(), headers=HEADERS, **core_options)
            dialect = OpenAICallDialect(specs, model=model, options=self._options, **rest)
            return ProviderConnection(endpoint, dialect, **transport)

        return open_connection(
            make_connection,
            endpoint,
            SessionConfig(provider=self.name, model=model),
            session_id=call_id,
            tools=tools,
            **options,
        )


class XAI(Provider):
    """xAI Grok Voice.

    - `api_key`: else ``XAI_API_KEY``; `MissingAPIKeyError` when there is neither.
    - `base_url`: ``https``, ``http``, ``wss`` or ``ws``, with any path; else ``XAI_BASE_URL``, else xAI
      itself. `path` is added to it.
    - `auth`: how the key travels; see `AuthStyle`.
    - `reasoning_effort`: passed to the service unchanged.
    - `options`: those that only xAI has.
    - `headers`, `query`: further fields of the opening request, such as for a proxy; they replace ours of the
      same name.

    Raises `ConfigurationError` when an argument is invalid.
    """

    name = "xai"
    options_type: ClassVar[type[OpenAIOptions | XAIOptions | GoogleOptions]] = XAIOptions
    key_variable = "XAI_API_KEY"
    url_variable = "XAI_BASE_URL"
    usual_model = "grok-voice-latest"
    speko_models: ClassVar[Mapping[str, str]] = {"grok-voice-beta": "grok-voice-latest"}

    def __init__(
        self,
        api_key: str | None = None,
        *,
        base_url: str | None = None,
        path: str = "/realtime",
        auth: AuthStyle = "header",
        reasoning_effort: str | None = None,
        options: XAIOptions = _XAI_OPTIONS,
        headers: Mapping[str, str] = _NO_FIELDS,
        query: Mapping[str, str] = _NO_FIELDS,
    ) -> None:
        self._path = path
        self._auth: AuthStyle = auth
        self._reasoning_effort = reasoning_effort
        self._options = options
        super().__init__(api_key, base_url, "wss://api.x.ai/v1", headers, query)

    def endpoint(self, model: str, *, conversation_id: str | None = None) -> Endpoint:
        endpoint = xai_endpoint(
            self._api_key,
            model,
            base_url=self._base_url,
            path=self._path,
            conversation_id=conversation_id,
            reasoning_effort=self._reasoning_effort,
            auth=self._auth,
        )
        return endpoint.extended(self._headers, self._query)

    def capabilities(self, model: str) -> Capabilities:
        return within(xai_capabilities(model), self._options)

    def check_metadata(self, metadata: Mapping[str, Any] | None) -> None:
        merge_client_options(self._options, metadata, self.name)

    def _make_dialect(
        self, config: SessionConfig, metadata: Mapping[str, Any] | None, *, quick: bool
    ) -> _MakeDialect:
        wanted = merge_client_options(self._options, metadata, self.name)
        kept = Kept(config, SessionConfig)
        return lambda _, options: XAIDialect(kept.get(), options=wanted, **options)

    def _endpoint(self, model: str, resumption: str | None) -> Endpoint:
        return self.endpoint(model, conversation_id=resumption)


class Google(Provider):
    """Gemini Live.

    - `api_key`: else ``GEMINI_API_KEY``; `MissingAPIKeyError` when there is neither.
    - `base_url`: ``https``, ``http``, ``wss`` or ``ws``, with any path; else ``GEMINI_BASE_URL``, else
      Google's Gemini API. `path` is added to it, by default the service's own; see `google_endpoint` for
      Vertex AI.
    - `auth`: what the key is; see `GoogleAuthStyle`.
    - `options`: those that only Gemini has.
    - `headers`, `query`: further fields of the opening request, such as for a proxy; they replace ours of the
      same name.

    Raises `ConfigurationError` when an argument is invalid.
    """

    name = "google"
    options_type: ClassVar[type[OpenAIOptions | XAIOptions | GoogleOptions]] = GoogleOptions
    key_variable = "GEMINI_API_KEY"
    url_variable = "GEMINI_BASE_URL"
    usual_model = "gemini-3.8-live"
    speko_models: ClassVar[Mapping[str, str]] = {
        "gemini-2.5-flash-native-audio": "gemini-2.5-flash-native-audio-latest"
    }

    def __init__(
        self,
        api_key: str | None = None,
        *,
        base_url: str | None = None,
        path: str | None = None,
        auth: GoogleAuthStyle = "header",
        options: GoogleOptions = _GOOGLE_OPTIONS,
        headers: Mapping[str, str] = _NO_FIELDS,
        query: Mapping[str, str] = _NO_FIELDS,
    ) -> None:
        self._path = path
        self._auth: GoogleAuthStyle = auth
        self._options = options
        super().__init__(api_key, base_url, "wss://generativelanguage.googleapis.com", headers, query)

    def endpoint(self, model: str) -> Endpoint:
        endpoint = google_endpoint(self._api_key, base_url=self._base_url, path=self._path, auth=self._auth)
        return endpoint.extended(self._headers, self._query)

    def capabilities(self, model: str) -> Capabilities:
        return google_capabilities(model, resumable=self._options.resumption)

    def check_metadata(self, metadata: Mapping[str, Any] | None) -> None:
        merge_client_options(self._options, metadata, self.name)

    def _make_dialect(
        self, config: SessionConfig, metadata: Mapping[str, Any] | None, *, quick: bool
    ) -> _MakeDialect:
        wanted = merge_client_options(self._options, metadata, self.name)
        carried = Carried(configure(config, wanted, quick=quick))
        # `carried` holds the rest; the tools in `config` would take memory for as long as the session.
        slim = SessionConfig(provider=config.provider, model=config.model)
        return lambda handle, options: GoogleDialect(
            slim, options=wanted, carried=carried, resumption_handle=handle, **options
        )


PROVIDERS: Final[tuple[type[OpenAI | XAI | Google], ...]] = (OpenAI, XAI, Google)
"""Every provider that this library has a dialect for."""
