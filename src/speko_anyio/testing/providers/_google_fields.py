"""The fields that Gemini Live accepts in a client's message, and its error about unknown ones."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final, TypeAlias

from ._double_session import Json


class UnknownField(ValueError):
    """The message has an unknown field; the error's text is the close reason."""


class _Named(dict[str, Any]):
    """An object with arbitrary keys and values of one shape."""


Shape: TypeAlias = Mapping[str, Any] | None
"""The shapes of the fields; None accepts anything."""


def _anything(*names: str) -> dict[str, Any]:
    return dict.fromkeys(names)


_SCHEMA: Final[dict[str, Any]] = _anything(
    "type", "format", "title", "description", "nullable", "enum", "required", "minItems", "maxItems",
    "minLength", "maxLength", "minProperties", "maxProperties", "minimum", "maximum", "pattern", "default",
    "example", "propertyOrdering",
)  # fmt: skip
_SCHEMA["items"] = _SCHEMA["anyOf"] = _SCHEMA
_SCHEMA["properties"] = _Named(value=_SCHEMA)

_FUNCTION: Final = {
    **_anything("name", "description", "behavior", "parametersJsonSchema", "response", "responseJsonSchema"),
    "parameters": _SCHEMA,
}

_TOOLS: Final = {
    **_anything("googleSearch", "googleSearchRetrieval", "codeExecution", "urlContext", "googleMaps"),
    "functionDeclarations": _FUNCTION,
}

_TRANSCRIPTION: Final = _anything(
    "languageCodes",
    "languageAuto",
    "languageHints",
    "customVocabulary",
    "adaptationPhrases",
    "wordTimestamp",
    "diarization",
    "mode",
    "sourceText",
)

_SETUP: Final = {
    "model": None,
    "generationConfig": _anything(
        "responseModalities", "temperature", "topP", "topK", "maxOutputTokens", "candidateCount", "seed",
        "presencePenalty", "frequencyPenalty", "speechConfig", "mediaResolution", "thinkingConfig",
        "enableAffectiveDialog", "stopSequences", "translationConfig",
    ),
    "systemInstruction": None,
    "tools": _TOOLS,
    "realtimeInputConfig": {
        "automaticActivityDetection": _anything(
            "disabled", "startOfSpeechSensitivity", "endOfSpeechSensitivity", "prefixPaddingMs",
            "silenceDurationMs",
        ),
        "activityHandling": None,
        "turnCoverage": None,
    },
    "sessionResumption": _anything("handle", "transparent"),
    "contextWindowCompression": {"triggerTokens": None, "slidingWindow": _anything("targetTokens")},
    "inputAudioTranscription": _TRANSCRIPTION,
    "outputAudioTranscription": _TRANSCRIPTION,
    "proactivity": None,
    "historyConfig": _anything("initialHistoryInClientContent"),
    "safetySettings": _anything("category", "method", "threshold"),
    "labels": None,
    "explicitVadSignal": None,
    "avatarConfig": None,
}  # fmt: skip

_MESSAGE: Final = {
    "setup": _SETUP,
    "clientContent": _anything("turns", "turnComplete"),
    "contextUpdate": {"systemInstruction": None, "tools": {"tools": _TOOLS}},
    "realtimeInput": {
        **_anything("activityStart", "activityEnd", "audioStreamEnd", "text"),
        "audio": _anything("data", "mimeType"),
        "video": _anything("data", "mimeType"),
    },
    "toolResponse": {
        "functionResponses": _anything("id", "name", "response", "scheduling", "willContinue", "parts")
    },
}


def normalized(message: Json) -> Json:
    """Return `message` with its field names in camel case; the service accepts snake case as well.

    Raises `UnknownField` for a field that the service does not know.
    """
    result: Json = _normalized(message, _MESSAGE, "")
    return result


def _normalized(value: Any, shape: Shape, path: str) -> Any:
    if shape is None:
        return value
    if isinstance(value, list):
        return [_normalized(inner, shape, f"{path}[{index}]") for index, inner in enumerate(value)]
    if not isinstance(value, dict):
        return value
    if isinstance(shape, _Named):
        return {name: _normalized(inner, shape["value"], f"{path}.{name}") for name, inner in value.items()}
    result = {}
    for name, inner in value.items():
        camel = re.sub(r"_([a-z])", lambda match: match[1].upper(), name)
        if camel not in shape:
            where = f" at '{path}'" if path else ""
            raise UnknownField(
                f'Invalid JSON payload received. Unknown name "{name}"{where}: Cannot find field.'
            )
        result[camel] = _normalized(inner, shape[camel], f"{path}.{camel}" if path else camel)
    return result
