"""Errors of this client and of Speko's HTTP API; those of the protocol are in `protocol.errors`.

- `SpekoError` (core)
    - `SignatureError` (core): a request that claims to come from a service does not
    - `MissingAPIKeyError`: no key was given
    - `ConfigurationError`: an invalid key, URL or number; also a ValueError
    - `APIError`: no session was minted, or its host could not be reached
        - `APIConnectionError`: no answer: unreachable, refused, timed out, TLS failed
            - `ProxyError`: the proxy on the way could not be reached, or refused
        - `APIStatusError`: an answer with an error status
            - `BadRequestError` 400, `AuthenticationError` 401, `RateLimitError` 429, `ServerError` 5xx
        - `APIResponseError`: an answer that the protocol does not allow
        - `UnsupportedTransportError`: a grant for a transport that this client does not speak
    - `InternalError`: a bug of this library

None of them shows the API key, a token or a proxy's password.
"""

from __future__ import annotations

from .protocol.errors import SignatureError as SignatureError
from .protocol.errors import SpekoError


class MissingAPIKeyError(SpekoError):
    """No API key: neither as an argument nor in the environment."""

    def __init__(self, variable: str = "SPEKO_API_KEY", argument: str = "Speko(api_key=...)") -> None:
        super().__init__(f"no API key: set the environment variable {variable} or pass {argument}")
        self.variable = variable
        """The environment variable that was read for the key."""


class ConfigurationError(SpekoError, ValueError):
    """An argument or an environment variable is invalid; nothing was sent."""


class APIError(SpekoError):
    """The HTTP API granted no session, or its host could not be reached."""


class APIConnectionError(APIError):
    """A host gave no answer: unreachable, refused, TLS failed, or too slow."""


class ProxyError(APIConnectionError):
    """The proxy on the way to the host could not be reached, or refused to connect to it."""


class APIResponseError(APIError):
    """The API answered with something that its protocol does not allow."""


class UnsupportedTransportError(APIError):
    """The API granted a session over a transport that this client does not speak."""

    def __init__(self, transport: str, details: str = "", problem: str = "this version can't speak") -> None:
        super().__init__(
            f"the API granted a session over the transport {transport!r}{details}, which {problem}; choose a "
            "provider and model that the API serves through its own WebSocket, or upgrade speko-anyio"
        )
        self.transport = transport
        """The API's name for the transport, such as ``provider_direct``."""


class APIStatusError(APIError):
    """The API answered with an error status."""

    advice: str = "read the message and change the request"
    """What to do about the error; part of its text."""

    def __init__(
        self,
        *,
        host: str,
        status: int,
        code: str,
        message: str,
        retry_after: float | None = None,
        advice: str | None = None,
    ) -> None:
        if advice is not None:
            self.advice = advice
        wait = "" if retry_after is None else f" (not before {retry_after:g} s have passed)"
        # The gateway's own messages end with that advice.
        said = message.removesuffix("; try again") if self.advice.startswith("try again") else message
        super().__init__(f"{host} answered HTTP {status} {code}: {said}; {self.advice}{wait}")
        self.status = status
        """The HTTP status."""
        self.code = code
        """The API's code of the error; ``UNKNOWN`` when it gave none."""
        self.message = message
        """The API's message, or the text of the body if it was not the documented JSON."""
        self.retry_after = retry_after
        """Seconds that the API asks to wait before a retry; None if it did not say."""


class BadRequestError(APIStatusError):
    """400: the request for a session is invalid."""


class AuthenticationError(APIStatusError):
    """401: the API key is not accepted."""

    advice = "check the API key (SPEKO_API_KEY) and that it belongs to this base URL"


class RateLimitError(APIStatusError):
    """429: too many sessions, or too many requests for them."""

    advice = "try again later"


class ServerError(APIStatusError):
    """5xx: the service failed."""

    advice = "try again; if it persists, ask its operator"


def status_error(
    *,
    host: str,
    status: int,
    code: str,
    message: str,
    retry_after: float | None,
    advice: str | None = None,
) -> APIStatusError:
    """Return the error of the class for `status`."""
    by_status: dict[int, type[APIStatusError]] = {
        400: BadRequestError,
        401: AuthenticationError,
        429: RateLimitError,
    }
    kind = by_status.get(status, ServerError if status >= 500 else APIStatusError)
    return kind(host=host, status=status, code=code, message=message, retry_after=retry_after, advice=advice)


class InternalError(SpekoError):
    """A bug of this library: please report it, with its cause."""
