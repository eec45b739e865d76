"""A phone of a running gateway: its handler, its secret, and what its calls may use."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping
from typing import Any, Final

import msgspec

from speko_anyio._extras import install_extra
from speko_anyio.protocol.errors import LocalProtocolError
from speko_anyio.protocol.mint import SessionConfig
from speko_anyio.telephony import CARRIERS, CarrierStream

from ._capabilities import capabilities_of
from ._phone import Phone
from ._provider_handler import ProviderHandler
from ._session import Handler
from ._settings import did_you_mean
from .store import KeyLimits

_RATES: Final = (16_000, 24_000)
"""Samples a second that a session can have, the best for a phone line first: a line carries up to 4 kHz."""

_COUNTS: Final = ("ttl_seconds", "max_calls", "calls_per_minute", "minutes_per_day")


class ServedPhone:
    """The calls of one carrier. Raises ValueError for an unknown handler, or one that refuses the phone.

    - `handlers`: those of the gateway. `phones` must have passed `check_phones`.
    """

    def __init__(self, carrier: str, phone: Phone, handlers: Mapping[str, Handler]) -> None:
        handler = handlers.get(phone.handler)
        if handler is None:
            extra = f"; for the offline voice {install_extra('local')}" if phone.handler == "local" else ""
            raise ValueError(
                f"the phone {carrier} has the unknown handler {phone.handler!r}; "
                f"{did_you_mean(phone.handler, handlers)}{extra}"
            )
        self.carrier: str = carrier
        self.codec: type[CarrierStream] = CARRIERS[carrier]
        self.config: SessionConfig = _session_config(phone, handler)
        """The configuration of each call's session."""
        self.settings: Phone = phone
        self.secret: str = _secret_of(carrier, phone)
        self.limits: KeyLimits = KeyLimits(
            max_sessions=phone.max_calls,
            mints_per_minute=phone.calls_per_minute,
            minutes_per_day=phone.minutes_per_day,
        )
        if isinstance(handler, ProviderHandler):
            refusal = handler.why_not(self.config, phone.metadata)
            if refusal is not None:
                raise ValueError(f"the phone {carrier} can't use {phone.handler}: {refusal}")

    @property
    def key_id(self) -> str:
        """Stands in records for the id of an API key."""
        return f"phone:{self.carrier}"

    @property
    def path(self) -> str:
        """Where the carrier calls."""
        return phone_path(self.carrier)


def phone_path(carrier: str) -> str:
    """Return the path of the webhook of a carrier, and of its WebSocket."""
    return f"/telephony/{carrier}"


def phone_setup(carrier: str) -> str:
    """Return what to do with the URL of the webhook at a carrier."""
    return f"{carrier}: set {CARRIERS[carrier].webhook_setting} (POST) to"


def check_phones(phones: object) -> None:
    """Check the configuration of phones, except for their handlers.

    Raises TypeError or ValueError in one sentence, which shows no secret.
    """
    if not isinstance(phones, Mapping):
        raise TypeError(
            "phones must be a dict of phones by the carrier's name, such as "
            f"{{'twilio': Phone(handler='local')}}, not {type(phones).__name__}"
        )
    for carrier, phone in phones.items():
        if not isinstance(phone, Phone):
            raise TypeError(f"the phone {carrier!r} must be a Phone, not {type(phone).__name__}")
        if carrier not in CARRIERS:
            raise ValueError(f"unknown carrier {carrier!r}; {did_you_mean(str(carrier), CARRIERS)}")
        try:
            # A Struct does not check the types of what is passed to it.
            msgspec.convert(msgspec.to_builtins(phone, builtin_types=(bytes,)), Phone)
        except (msgspec.ValidationError, TypeError) as error:
            raise TypeError(f"the phone {carrier} is not valid: {error}") from None
        for name in _COUNTS:
            value: int | None = getattr(phone, name)
            if value is not None and value < 1:
                raise ValueError(f"the phone {carrier}: {name} must be 1 or more, or None, not {value}")
        if not phone.unsigned and not _secret_of(carrier, phone):
            codec = CARRIERS[carrier]
            raise ValueError(
                f"the phone {carrier} can't check the signatures of {carrier}; set "
                f"{codec.environment_variable} to the {codec.signed_with} of your account there, or pass "
                "auth_token"
            )
        if not phone.unsigned:
            _check_secret(carrier, phone)


def _secret_of(carrier: str, phone: Phone) -> str:
    """Return the secret for the signatures of `carrier`; empty if it is missing."""
    return (phone.auth_token or os.environ.get(CARRIERS[carrier].environment_variable, "")).strip()


def _check_secret(carrier: str, phone: Phone) -> None:
    try:
        CARRIERS[carrier].check_secret(_secret_of(carrier, phone))
    except LocalProtocolError as error:
        raise ValueError(f"the phone {carrier}: {error}") from None


def _session_config(phone: Phone, handler: Handler) -> SessionConfig:
    model = phone.model
    if model is None:
        model = handler.usual_model if isinstance(handler, ProviderHandler) else phone.handler
    config = SessionConfig(
        provider=phone.handler,
        model=model,
        voice=phone.voice,
        system_prompt=phone.system_prompt,
        temperature=phone.temperature,
    )
    able = capabilities_of(handler, config)
    return msgspec.structs.replace(
        config,
        input_sample_rate=_best_rate(() if able is None else able.input_rates),
        output_sample_rate=_best_rate(() if able is None else able.output_rates),
    )


def _best_rate(offered: Collection[int]) -> Any:
    return next((rate for rate in _RATES if rate in offered), _RATES[0])
