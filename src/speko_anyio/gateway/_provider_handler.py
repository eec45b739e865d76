"""The handler that joins a session to a provider, with the operator's own account there."""

from __future__ import annotations

import logging
import ssl
from collections.abc import Collection, Mapping
from typing import Any, Final, get_args

import msgspec

from speko_anyio._accounts import PROVIDERS, Provider
from speko_anyio._net.proxies import ProxyOption
from speko_anyio.audio.resample import Resampler
from speko_anyio.protocol import close_codes
from speko_anyio.protocol._commands import TurnMode
from speko_anyio.protocol._timeouts import DEFAULT_TIMEOUTS
from speko_anyio.protocol.capabilities import Capabilities
from speko_anyio.protocol.errors import LocalProtocolError, SpekoError
from speko_anyio.protocol.mint import SampleRate, SessionConfig
from speko_anyio.providers import codes
from speko_anyio.providers.bridge import OPENING_TIMEOUT, Bridge

from ._provider_driver import ProviderDriver
from ._session import Handler, ServerSession

logger: Final = logging.getLogger("speko_anyio.gateway")

_RATES: Final = get_args(SampleRate)
"""The rates that a session can have, whatever the provider takes: the bridge converts."""

_CLOSE_TIMEOUT: Final = 2.0
"""Seconds that a provider has to answer our close; less than the gateway gives a handler to return."""


class ProviderHandler:
    """Serves each session with a session of the provider's.

    - `provider`: the account, such as ``OpenAI()``.
    - `models`: the models that clients may use; others are refused. A dict maps the names that clients use to
      the provider's own. None: any model, with the names of `Provider.speko_models`.
    - `connect_timeout`: seconds to look up the provider's host, connect and complete TLS. All attempts
      together get 20 seconds until the provider is ready, or twice `connect_timeout` if that is more.
    - `ssl_context`, `proxy`: as in `SessionOptions`.

    Clients can set options of the provider in the mint's metadata, as in
    ``{"provider_options": {"openai": {"speed": 1.2}}}``, with the fields of `OpenAIOptions`, `XAIOptions` or
    `GoogleOptions`. Those of `provider` are caps, see `Provider.check_metadata`. The mint refuses what can't
    be granted, and so does the session, with an `ErrorFrame`.

    A failure of the provider comes as an `ErrorFrame` with a code of `speko_anyio.providers.codes` in
    capitals, and never shows the key. The session goes on as long as the provider's can be resumed.
    """

    def __init__(
        self,
        provider: Provider,
        *,
        models: Mapping[str, str] | Collection[str] | None = None,
        connect_timeout: float = DEFAULT_TIMEOUTS.connect,
        ssl_context: ssl.SSLContext | None = None,
        proxy: ProxyOption = True,
    ) -> None:
        self._provider = provider
        self._models = _names(provider, models)
        self._any_model = models is None
        self._fixed = _fixed_fields(provider)
        self._connect_timeout = connect_timeout
        self._ssl_context = ssl_context
        self._proxy: ProxyOption = proxy

    def __repr__(self) -> str:
        return f"ProviderHandler({self._provider!r})"

    async def __call__(self, session: ServerSession) -> None:
        """Serve `session` until either side ends it."""
        refusal = self.why_not(session.config, session.metadata)
        if refusal is not None:
            await _refuse(session, refusal)
            return
        config = msgspec.structs.replace(
            session.config, model=self._models.get(session.config.model, session.config.model)
        )
        try:
            endpoint = self._provider.endpoint(config.model)
            prepared = await self._provider.prepare(config, metadata=session.metadata)
            notes = prepared.connection().dialect.notes
        except LocalProtocolError as error:
            await _refuse(session, str(error))
            return
        for note in notes:
            logger.info("session %s: %s", session.session_id, note)
        bridge = Bridge(
            client=session.take_core(),
            resampling=Resampler,
            secrets=endpoint.secrets,
            opening_timeout=max(OPENING_TIMEOUT, 2 * self._connect_timeout),
            on_emitted=session.meter.queued,
            fixed=self._fixed,
        )
        driver = ProviderDriver(
            session,
            bridge,
            make_connection=lambda resumption: prepared.connection(
                resumption=resumption, close_timeout=_CLOSE_TIMEOUT
            ),
            url=endpoint.url,
            connect_timeout=self._connect_timeout,
            ssl_context=self._ssl_context,
            proxy=self._proxy,
            secrets=endpoint.secrets,
        )
        await driver.run()

    @property
    def usual_model(self) -> str:
        """The model for a session that names none: the provider's usual one, or the first that is allowed."""
        usual = self._provider.usual_model
        return usual if self._any_model or usual in self._models else next(iter(self._models))

    def capabilities(self, config: SessionConfig) -> Capabilities:
        """Return what a session of `config` can do: what its model can, at the gateway's sample rates."""
        try:
            able = self._provider.capabilities(self._models.get(config.model, config.model))
        except LocalProtocolError:
            return Capabilities()  # the session is refused, and says why
        update = tuple(name for name in able.update if name not in self._fixed)
        return msgspec.structs.replace(able, update=update, input_rates=_RATES, output_rates=_RATES)

    def why_not(self, config: SessionConfig, metadata: Mapping[str, Any] | None) -> str | None:
        """Return why a client can't have the session, in a sentence; None if it is to be tried."""
        if not self._any_model and config.model not in self._models:
            models = ", ".join(sorted(self._models))
            return f"this gateway does not serve that model of {self._provider.name}; choose from {models}"
        try:
            self._provider.endpoint(self._models.get(config.model, config.model))
            self._provider.check_metadata(metadata)
        except LocalProtocolError as error:
            return str(error)
        return None


def _names(provider: Provider, models: Mapping[str, str] | Collection[str] | None) -> dict[str, str]:
    """Return the provider's own names for models, by the names that clients use."""
    if models is None:
        return dict(provider.speko_models)
    if isinstance(models, str):
        raise TypeError("models must be a dict or a collection of names, not one string; put it into a list")
    if not models:
        raise ValueError("models has no model; name those that clients may use, or leave it out for any")
    if isinstance(models, Mapping):
        return dict(models)
    aliases = {name: model for name, model in provider.speko_models.items() if model in models}
    return aliases | {name: name for name in models}


def _fixed_fields(provider: Provider) -> tuple[str, ...]:
    """Return the fields of `Update` whose options the operator has set, so that no client may change them."""
    for turns in get_args(TurnMode):
        try:
            provider.check_metadata({"provider_options": {provider.name: {"turns": turns}}})
        except LocalProtocolError:
            return ("turns",)
    return ()


async def _refuse(session: ServerSession, message: str) -> None:
    """Tell the client that it can't have what it asked for, and close."""
    try:
        await session.send_error(codes.CONFIGURATION_REFUSED.upper(), message)
        await session.close(close_codes.POLICY, codes.CONFIGURATION_REFUSED)
    except SpekoError:
        pass  # the client has left


def provider_handlers(
    *,
    models: Mapping[str, Collection[str]] | None = None,
    provider_options: Mapping[str, Any] | None = None,
) -> dict[str, Handler]:
    """Make a handler for each provider whose API key is in the environment.

    - `models`: those that clients may use, by the provider's name; any, if the provider is missing.
    - `provider_options`: such as `OpenAIOptions`, by the provider's name.

    Raises `ConfigurationError` when a base URL there is invalid.
    """
    options = provider_options or {}
    handlers: dict[str, Handler] = {}
    for kind in PROVIDERS:
        if kind.is_configured():
            make: Any = kind  # each takes options of its own type
            account: Provider = make(options=options.get(kind.name, kind.options_type()))
            handlers[kind.name] = ProviderHandler(account, models=(models or {}).get(kind.name))
    return handlers
