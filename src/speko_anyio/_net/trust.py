"""The certificates that all connections of this library trust, unless the caller passes a context."""

from __future__ import annotations

import functools
import logging
import os
import ssl
from pathlib import Path
from typing import Final

logger: Final = logging.getLogger("speko_anyio.client")

VARIABLES: Final = ("SSL_CERT_FILE", "SSL_CERT_DIR")
"""Environment variables that override the file and the folder of OpenSSL's trust store."""


def default_ssl_context() -> ssl.SSLContext:
    """Return the TLS context of all connections: sessions, minting and telemetry, also through proxies.

    It trusts the system's store, or the store that ``SSL_CERT_FILE`` and ``SSL_CERT_DIR`` name. If the system
    has no certificates, it trusts certifi's list, which httpx installs. Loading the store takes milliseconds,
    so the context is made once, when first needed, and shared: don't modify it.
    """
    return _make_context(*map(os.environ.get, VARIABLES))


@functools.lru_cache(maxsize=2)
def _make_context(*named: str | None) -> ssl.SSLContext:
    for variable, path in zip(VARIABLES, named, strict=True):
        # SSL_CERT_DIR may list several folders. OpenSSL silently ignores a wrong one.
        if path and not any(map(os.path.exists, path.split(os.pathsep))):
            logger.warning("%s names a path that doesn't exist; correct the variable or unset it", variable)
    context = ssl.create_default_context()
    # httpx sets this on every context it uses. Setting it here makes the order of use irrelevant.
    context.set_alpn_protocols(["http/1.1"])
    if not any(named) and _is_empty(context):
        try:
            import certifi
        except ImportError:
            logger.warning(
                "this system has no trusted certificates; set SSL_CERT_FILE to a file that has them"
            )
        else:
            context.load_verify_locations(certifi.where())
    return context


def _is_empty(context: ssl.SSLContext) -> bool:
    if context.get_ca_certs():
        return False
    # OpenSSL has read the file by now, but reads a folder only when it verifies a certificate.
    folder = ssl.get_default_verify_paths().capath
    try:
        return not folder or not any(Path(folder).iterdir())
    except OSError:
        return True


def tls_advice(error: ssl.SSLError, argument: str) -> str:
    """Advice for a TLS failure; `argument` names the parameter that takes the caller's own context."""
    if error.reason == "WRONG_VERSION_NUMBER":  # what came is no TLS at all
        return "it seems to have no TLS; if so, write http:// instead of https://, or ws:// instead of wss://"
    named = [variable for variable in VARIABLES if os.environ.get(variable)]
    store = " and ".join(named) if named else "the system's trust store"
    return f"check its certificate and {store}, or pass {argument}"
