"""The XML that carriers take for an answer."""

from __future__ import annotations

import html
import re
from collections.abc import Mapping
from typing import Any, Final

from ..protocol._text import clean
from ..protocol.errors import LocalProtocolError
from ._carrier import ConnectAnswer

_FORBIDDEN: Final = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]")
"""Characters that XML 1.0 can't carry, or that a parser changes in an attribute."""


def check_url(url: Any, *, query: bool = True) -> str:
    """Return the URL of a media stream; `LocalProtocolError` if a carrier can't call it."""
    if not isinstance(url, str):
        raise TypeError(f"the URL of a media stream must be text, not {type(url).__name__}")
    if not url.startswith(("wss://", "ws://")):
        raise LocalProtocolError("the URL of a media stream must begin with wss://")
    if not query and "?" in url:
        raise LocalProtocolError(
            "this carrier drops the query of a media stream's URL; pass it as parameters, which come back in "
            "CallStarted.parameters"
        )
    return escape("URL", url)


def check_parameters(parameters: Any) -> Mapping[str, str]:
    """Return the parameters of a call; TypeError unless they are a mapping of text to text."""
    if parameters is None:
        return {}
    if not isinstance(parameters, Mapping):
        raise TypeError(f"the parameters of a call must be a dict, not {type(parameters).__name__}")
    for name, value in parameters.items():
        if not isinstance(name, str) or not isinstance(value, str):
            other = type(value if isinstance(name, str) else name).__name__
            raise TypeError(
                f"the parameter {clean(str(name), limit=40)!r} of a call must be text, not {other}"
            )
    return parameters


def escape(what: str, text: str) -> str:
    """Return `text` for an attribute or an element; `LocalProtocolError`, naming `what`, if XML can't."""
    if _FORBIDDEN.search(text):
        raise LocalProtocolError(f"the {what} holds a control character, which XML can't carry; remove it")
    return html.escape(text)


def stream_answer(url: str, attributes: str, parameters: Mapping[str, str]) -> ConnectAnswer:
    """Return TwiML, or its dialect TeXML, that connects a call to a media stream. `url` is escaped."""
    nested = "".join(
        f'<Parameter name="{escape("name of a parameter", name)}" '
        f'value="{escape(f"value of the parameter {name!r}", value)}"/>'
        for name, value in parameters.items()
    )
    return document(f'<Connect><Stream url="{url}"{attributes}>{nested}</Stream></Connect>')


def document(content: str) -> ConnectAnswer:
    """Return an answer with this content."""
    return ConnectAnswer(
        "application/xml", f'<?xml version="1.0" encoding="UTF-8"?><Response>{content}</Response>'
    )
