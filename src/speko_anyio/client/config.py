"""What a session is to be, out of what a caller said."""

from __future__ import annotations

import math
from collections.abc import Iterable

from ..errors import ConfigurationError
from ..protocol.mint import SampleRate, SessionConfig
from .arguments import check_number, check_text, tool_list
from .tools import AnyTool, Toolbox


def session_config(
    *,
    provider: str,
    model: str,
    voice: str | None,
    system_prompt: str | None,
    temperature: float | None,
    input_sample_rate: SampleRate | None,
    output_sample_rate: SampleRate | None,
    tools: Iterable[AnyTool],
) -> SessionConfig:
    """The configuration; `ConfigurationError` when `temperature` is not finite, which no JSON can carry."""
    for name, text in (("provider", provider), ("model", model)):
        check_text(name, text, required=True)
    for name, optional in (("voice", voice), ("system_prompt", system_prompt)):
        check_text(name, optional)
    if not (isinstance(temperature, float) and math.isnan(temperature)):
        check_number("temperature", temperature)
    if temperature is not None and not math.isfinite(temperature):
        raise ConfigurationError(f"the temperature is {temperature}; pass a finite number, or None")
    return SessionConfig(
        provider=provider,
        model=model,
        voice=voice,
        system_prompt=system_prompt,
        temperature=temperature,
        input_sample_rate=input_sample_rate,
        output_sample_rate=output_sample_rate,
        tools=Toolbox(tool_list(tools)).specs,
    )
