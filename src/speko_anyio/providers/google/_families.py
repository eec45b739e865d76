"""The families of Gemini Live models: what each can do, and the form in which each takes it.

Gemini closes the connection over one message that the model does not take, so this table decides what is
sent, what is refused, and what `google_capabilities` reports.
"""

from __future__ import annotations

import enum
from typing import Final

import msgspec

from ...protocol.capabilities import Capabilities
from ..models import dated

OUTPUT_SAMPLE_RATE: Final = 24_000
"""The only rate of the model's speech, in samples a second."""

INPUT_SAMPLE_RATES: Final = (16_000, 24_000)
"""The rates of a session's audio. The model hears 16 kHz; the provider converts."""


class Generation(enum.Enum):
    """The kinds of models, which differ in the settings they accept."""

    V2_5 = "2.5"
    V3_1 = "3.1"
    V3_8 = "3.8"
    V3_8_THINKING = "3.8 extended thinking"
    OTHER = "other"


def generation_of(model: str) -> Generation:
    """Return the kind of `model`, by its name."""
    if "extended-thinking" in model:
        return Generation.V3_8_THINKING
    if "3.8" in model:
        return Generation.V3_8
    if "3.1" in model:
        return Generation.V3_1
    return Generation.V2_5 if "2.5" in model else Generation.OTHER


class Family(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """What a family of models takes on the wire."""

    generation: Generation
    content: bool = True
    """Whether `clientContent` is taken at any time. It cuts off an answer that is under way."""
    seeded: bool = False
    """Whether `clientContent` is taken as the initial history, which the setup announces."""
    placeholder: bool = False
    """Whether what the model is to answer must end with something that the user says."""
    context_update: bool = False
    """Whether `contextUpdate` replaces the system instruction and the tools."""
    system_role: bool = False
    """Whether content of the role ``system`` replaces the system instruction."""
    schedules: bool = True
    """Whether the result of a tool may say when the model is to speak about it."""

    @property
    def updates(self) -> tuple[str, ...]:
        """The fields of `Update` that can change in mid-session."""
        if self.context_update:
            return ("system_prompt", "tools")
        return ("system_prompt",) if self.system_role else ()


def family_of(model: str) -> Family:
    """Return the family of `model`, by its name. An unknown one counts as the newest kind."""
    generation = generation_of(model)
    vertex = is_vertex(model)
    match generation:
        case Generation.V2_5:
            return Family(generation=generation, placeholder=True, system_role=vertex, schedules=not vertex)
        case Generation.V3_1:
            return Family(generation=generation, content=False, seeded=not vertex, schedules=False)
        case Generation.V3_8_THINKING:
            return Family(generation=generation, context_update=True, schedules=False)
    return Family(generation=generation, context_update=True, schedules=not vertex)


def is_vertex(model: str) -> bool:
    """Whether `model` is named as on Vertex AI, which lacks some fields and has others."""
    return model.startswith(("projects/", "publishers/")) or "gemini-live-2.5" in model


def google_capabilities(model: str, *, resumable: bool = True) -> Capabilities:
    """Return what a session with `model` can do, as far as its name tells.

    `resumable`: as `GoogleOptions.resumption`.
    """
    family = family_of(model)
    capabilities = Capabilities(
        text=True,
        image=True,
        respond=True,
        say="instructed",
        update=family.updates,
        history=family.content or family.seeded,
        manual_turns=True,
        interrupt=True,
        truncate=False,
        resume="handle" if resumable else "no",
        text_output=False,
        server_tools=True,
        full_duplex=False,
        input_rates=INPUT_SAMPLE_RATES,
        output_rates=(OUTPUT_SAMPLE_RATE,),
    )
    return dated(capabilities, model)
