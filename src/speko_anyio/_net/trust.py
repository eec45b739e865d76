"""The certificates that all connections of this library trust, unless the caller passes a context."""

from __future__ import annotations

import logging
import os
import ssl
import threading
from pathlib import Path
from typing import Final

import anyio.to_thread

logger: Final = logging.getLogger("speko_anyio.client")

VARIABLES: Final = ("SSL_CERT_FILE", "SSL_CERT_DIR")
"""Environment variables that override the file and the folder of OpenSSL's trust store."""


_made: Final[dict[tuple[str | None, ...], ssl.SSLContext]] = {}
"""The context for the values of `VARIABLES`: one, unless they change."""
_making: Final = threading.Lock()


async def default_ssl_context() -> ssl.SSLContext:
    """Return the TLS context of all connections: sessions, minting and telemetry, also through proxies.

    It trusts the system's store, or the store that ``SSL_CERT_FILE`` and ``SSL_CERT_DIR`` name. If the system
    has no certificates, it trusts certifi's list, which httpx installs. Loading the store takes tens of
    milliseconds, so a thread makes the context once, when it is first needed. It is shared: don't modify it.
    """
    named = tuple(map(os.environ.get, VARIABLES))
    if (made := _made.get(named)) is not None:
        return made
    return await anyio.to_thread.run_sync(_make_once, named, abandon_on_cancel=True)


def _make_once(named: tuple[str | None, ...]) -> ssl.SSLContext:
    with _making:  # sessions that open at the same time need only one
        made = _made.get(named)
        if made is None:
            made = _make_context(named)
            _made.clear()
            _made[named] = made
        return made


def _make_context(named: tuple[str | None, ...]) -> ssl.SSLContext:
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
    if context.cert_store_stats()["x509_ca"]:
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
