"""Where Gemini Live is, and how its keys travel."""

from __future__ import annotations

from typing import Final, Literal, TypeAlias

from .._endpoint import Endpoint, provider_endpoint

GoogleAuthStyle: TypeAlias = Literal["header", "token", "query", "bearer"]
"""What the key is and how it travels: an API key in the ``x-goog-api-key`` header; an ephemeral token
(``auth_tokens/...``) in the ``Authorization`` header, or, for a transport without headers (a browser), in the
query; or an OAuth access token, for Vertex AI."""

_SERVICE: Final = "/ws/google.ai.generativelanguage."
_API_KEY_PATH: Final = f"{_SERVICE}v1beta.GenerativeService.BidiGenerateContent"
_TOKEN_PATH: Final = f"{_SERVICE}v1alpha.GenerativeService.BidiGenerateContentConstrained"


def google_endpoint(
    api_key: str,
    *,
    base_url: str = "wss://generativelanguage.googleapis.com",
    path: str | None = None,
    auth: GoogleAuthStyle = "header",
) -> Endpoint:
    """Build the endpoint to connect to. The model is not part of it: the setup names it.

    - `base_url`: may have any path and query of its own; `path` is added to it.
    - `path`: by default the service's own, which differs for ephemeral tokens. For Vertex AI pass
      ``/ws/google.cloud.aiplatform.v1beta1.LlmBidiService/BidiGenerateContent``.

    Raises `LocalProtocolError` when an argument can't be used.
    """
    ephemeral = auth in ("token", "query")
    if path is None:
        path = _TOKEN_PATH if ephemeral else _API_KEY_PATH
    endpoint = provider_endpoint(
        api_key,
        base_url=base_url,
        path=path,
        query=[("access_token", api_key)] if auth == "query" else [],
        auth="header",
        subprotocols=(),
    )
    headers = {
        "header": (("x-goog-api-key", api_key),),
        "token": (("Authorization", f"Token {api_key}"),),
        "query": (),
        "bearer": endpoint.headers,
    }
    return Endpoint(endpoint.url, headers[auth], secrets=endpoint.secrets)
