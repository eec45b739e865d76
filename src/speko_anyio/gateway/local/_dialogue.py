"""The brain of the offline voice: a small, fixed set of rules, so that a test knows what it will say.

It looks at the user's last sentence. The first rule that fits answers:

1. one of the client's tools is asked for (`_tool_matching` says when): it is called, its output is spoken;
2. a sum ("what is two plus three");
3. a timer: set, cancelled, or asked for ("set a timer for ten seconds");
4. the time, the day or the date;
5. a story, and after an interruption "continue"; a joke; "say that again";
6. a greeting, thanks, a farewell, or a question about what it can do;
7. anything else: it asks to say it again, and what it can be asked for.

There is no language model: the session's system prompt, model and temperature change nothing. A sentence in
writing is answered like one that was heard.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from datetime import datetime
from itertools import takewhile
from typing import TYPE_CHECKING, Any, Final

import msgspec

from ..engines import Message, ToolRequest
from . import _numbers as numbers
from ._grammar import Grammar
from ._timers import CANCEL_TIMERS, CHECK_TIMERS, MAX_TIMER, SET_TIMER, duration_in, say_duration
from ._tool_matching import PREPOSITIONS, ToolMatcher, words

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from speko_anyio.protocol.mint import ToolSpec

MAX_SPOKEN_OUTPUT: Final = 400
"""Characters of a tool's output that are spoken: about half a minute."""

MAX_SPOKEN_DEPTH: Final = 4
"""Levels of a tool's JSON output that are spoken."""

GREETING: Final = "Hello! I am the offline voice. Ask me for the time, a sum, a timer or a story."
"""What it says when it is asked to speak first."""

NOT_UNDERSTOOD: Final = (
    "Sorry, I didn't catch that. Could you say it again? I can tell the time, do sums, or tell you a story.",
    "I still didn't catch that. Say, for example: what time is it? Or: tell me a story.",
)
"""What it asks when it understood nothing: the first time, and when the next attempt failed too."""

ASK_DURATION: Final = "For how long? Say, for example: ten seconds."

ASK_MISSING: Final = "For that I need the "

STORY: Final = (
    "Once there was a lighthouse keeper called Ada, who had nobody to talk to.",
    "Every evening she lit the lamp, and told the sea what she had seen that day.",
    "The sea listened politely, as the sea does, and never said a word.",
    "One night a small boat came out of the fog, and on its bow sat a parrot.",
    "The parrot had belonged to a captain who talked all day, and had learned everything but to stop.",
    "It told Ada about islands in the south, where the rain is warm and the shops close at noon.",
    "It told her about whales, about soup, and about a card game whose rules nobody could remember.",
    "Ada listened until midnight. Then she said: wait!",
    "The parrot stopped in the middle of a word, which had never happened to it before.",
    "It tilted its head, and for the first time in its life, it heard the waves.",
    "After a while it asked her a question, and Ada answered, and the parrot did not interrupt.",
    "From then on they took turns, and the evenings were never too long again.",
    "Sailors say that on quiet nights you can hear two voices from the lighthouse, one after the other.",
    "And that is the whole story.",
)
"""About a minute, to try an interruption on."""

_TIME_PHRASES: Final = (
    "what time is it",
    "what time is it now",
    "what is the time",
    "what's the time",
    "tell me the time",
    "can you tell me the time",
)
_DAY_PHRASES: Final = (
    "what day is it",
    "what day is it today",
    "what is the date",
    "what's the date",
    "what is today's date",
)
_TIMER_PHRASES: Final = (
    "set a timer for <number> <unit>",
    "set a timer",
    "cancel the timer",
    "stop the timer",
    "how much time is left",
    "how long is left",
)
_SUM_PHRASES: Final = ("<sum> <number> <operator> <number>",)
_STORY_PHRASES: Final = (
    "tell me a story",
    "tell me the story",
    "can you tell me a story",
    "continue",
    "please continue",
    "continue the story",
)
_GO_ON: Final = ("go on", "keep going", "where was i", "where were we", "where were you")
_SLOTS: Final = {
    **numbers.SLOTS,
    "operator": ("plus", "minus", "times", "multiplied by", "divided by"),
    "sum": ("what is", "what's", "how much is"),
    "unit": ("second", "seconds", "minute", "minutes", "hour", "hours"),
}

_REPEAT_PHRASES: Final = ("say that again", "can you repeat that", "repeat that", "what did you say")

_FIXED: Final = (
    # What is listened for, the words of which one suffices, and the answer.
    (
        ("what can you do", "help", "can you help me"),
        frozenset({"help"}),
        (
            "I can tell you the time and the date, do sums, set a timer, tell a story, and use your tools. "
            "Say, for example: set a timer for ten seconds. And interrupt me whenever you like."
        ),
    ),
    (
        ("how are you", "how are you today"),
        frozenset({"how are you"}),
        "I'm fine, thank you. What can I do for you?",
    ),
    (
        ("who are you", "what is your name", "what's your name"),
        frozenset({"who are you", "your name"}),
        "I am the offline voice. I listen and speak without any service on the network.",
    ),
    (
        ("tell me a joke",),
        frozenset({"joke"}),
        "Why did the loudspeaker never win an argument? The microphone always had the last word.",
    ),
    (
        ("what is the weather", "what's the weather like"),
        frozenset({"weather"}),
        "I have no tool for the weather. Give this session one, and I will ask it.",
    ),
    (("thank you", "thanks"), frozenset({"thank", "thanks"}), "You are welcome."),
    (("goodbye", "bye bye"), frozenset({"goodbye", "bye"}), "Goodbye!"),
    (
        ("hello", "hello there", "good morning", "good afternoon", "good evening"),
        frozenset({"hello", "hi", "hey", "good morning", "good afternoon", "good evening"}),
        GREETING,
    ),
    (
        ("never mind",),
        frozenset({"okay", "ok", "yes", "no", "never mind", "stop", "quiet"}),
        "All right.",
    ),
)


class SmallTalk:
    """The brain of the offline voice, a `LanguageModel` without a model: a few rules answer.

    It greets, tells the time, the date, a joke and a story of a minute, does sums, sets timers, and calls
    tools that the user's words ask for. What it does not understand it asks to repeat. It understands only
    English. The same messages get the same answer, except for the time.

    Args:
        now: returns the local time that answers mention; a parameter for tests.
    """

    def __init__(self, *, now: Callable[[], datetime] | None = None) -> None:
        self._now = now or _local_time
        self._prepared: tuple[Sequence[ToolSpec], ToolMatcher] = ((), ToolMatcher(()))

    def grammar(self, tools: Sequence[ToolSpec] = ()) -> Grammar:
        """Return the sentences that it expects from a user who is offered `tools`.

        Thousands of tools take a tenth of a second, which the next `answer` for them is spared.
        """
        offered = self._matcher(tools).grammar()
        fixed = (phrase for phrases, _, _ in _FIXED for phrase in phrases)
        expected = (*_TIME_PHRASES, *_DAY_PHRASES, *_TIMER_PHRASES, *_SUM_PHRASES, *_STORY_PHRASES)
        return Grammar((*expected, *_REPEAT_PHRASES, *fixed, *offered.templates), {**_SLOTS, **offered.slots})

    async def answer(
        self, messages: Sequence[Message], tools: Sequence[ToolSpec]
    ) -> AsyncGenerator[str | ToolRequest, None]:
        """See `LanguageModel.answer`."""
        for part in self._answer(messages, tools):
            yield part

    def _matcher(self, tools: Sequence[ToolSpec]) -> ToolMatcher:
        if self._prepared[0] is not tools:
            self._prepared = tools, ToolMatcher(tools)
        return self._prepared[1]

    def _answer(self, messages: Sequence[Message], tools: Sequence[ToolSpec]) -> Iterator[str | ToolRequest]:
        if messages and messages[-1].role == "tool":
            results = list(takewhile(lambda message: message.role == "tool", reversed(messages)))
            yield report(
                [(each.request.name if each.request else "", each.text) for each in reversed(results)]
            )
            return
        said = [message for message in messages if message.role in ("user", "assistant")]
        if not said or said[-1].role == "assistant":
            yield GREETING
            return
        heard = said[-1].text
        before = said[-2] if len(said) > 1 else Message("assistant", "")
        answer = self._react(heard, said, tools)
        if answer is None and _goes_on(before):
            # The rest of a sentence that was interrupted by a pause, or the answer to a question.
            earlier = next((message.text for message in reversed(said[:-1]) if message.role == "user"), "")
            joint = " " if {*words(heard)[:1]} & PREPOSITIONS else " for "
            answer = self._react(f"{earlier}{joint}{heard}", said, tools)
        yield from answer or [ask_again(messages)]

    def _react(
        self, heard: str, said: Sequence[Message], tools: Sequence[ToolSpec]
    ) -> Sequence[str | ToolRequest] | None:
        """Return the answer to a sentence, None if it is not understood."""
        spoken = words(heard)
        unique = set(spoken)
        text = f" {' '.join(spoken)} "
        if calls := self._matcher(tools).plan_calls(heard):
            if complete := [call for call in calls if not call.missing]:
                return [ToolRequest(call.name, _json(call.arguments)) for call in complete]
            return [f"{ASK_MISSING}{_join(calls[0].missing)}."]
        if (asked := numbers.find_sum(heard)) is not None:
            return [_say_sum(asked)]
        if (timer := _timer(heard, unique, said)) is not None:
            return [timer]
        if {"time", "clock"} & unique:
            now = self._now()
            return [f"It is {now.hour % 12 or 12}:{now:%M} {'AM' if now.hour < 12 else 'PM'}."]
        if {"date", "today's"} & unique or ("day" in unique and "what" in unique):
            now = self._now()
            return [f"Today is {now:%A}, {now:%B} {now.day}."]
        if "continue" in unique or any(f" {phrase} " in text for phrase in _GO_ON):
            return _rest_of_story(said) or (STORY if "story" in unique else None)
        if "story" in unique:
            return STORY
        if {"repeat", "again"} & unique or " you say " in text:
            last = next((message.text for message in reversed(said) if message.role == "assistant"), "")
            return [last] if last else None
        for _, triggers, answer in _FIXED:
            if any(f" {trigger} " in text for trigger in triggers):
                return [answer]
        if " can you do " in text:
            return [_FIXED[0][2]]
        return None


def ask_again(messages: Sequence[Message]) -> str:
    """Return what is said when nothing was understood."""
    last = next((message.text for message in reversed(messages) if message.role == "assistant"), "")
    return NOT_UNDERSTOOD[last == NOT_UNDERSTOOD[0]]


def _goes_on(before: Message) -> bool:
    return before.role == "user" or before.text.startswith(ASK_MISSING)


def _timer(heard: str, unique: set[str], said: Sequence[Message]) -> str | ToolRequest | None:
    """Return what to do about a sentence that mentions a timer."""
    asked = len(said) > 1 and said[-2].text == ASK_DURATION
    seconds = duration_in(heard)
    if not {"timer", "timers"} & unique and not (asked and seconds):
        left = {"left", "remaining"} & unique and {"time", "long"} & unique
        return ToolRequest(CHECK_TIMERS, "{}") if left else None
    if {"cancel", "stop", "delete", "clear"} & unique:
        return ToolRequest(CANCEL_TIMERS, "{}")
    if {"left", "remaining"} & unique:
        return ToolRequest(CHECK_TIMERS, "{}")
    if not seconds:
        return ASK_DURATION
    if seconds > MAX_TIMER:
        return f"I can set a timer for up to {say_duration(MAX_TIMER)}."
    text = f"Your timer for {say_duration(seconds)} is up."
    return ToolRequest(SET_TIMER, _json({"seconds": seconds, "text": text}))


def _say_sum(asked: numbers.Sum) -> str:
    if asked.value is None:
        return "Nobody can divide by zero."
    if abs(asked.value) >= 10**numbers.MAX_DIGITS:
        return "That number is too large to say."
    about = "" if asked.value * 1000 % 1 == 0 else "about "
    return f"{asked.text[:1].upper()}{asked.text[1:]} is {about}{numbers.say(asked.value)}."


def _rest_of_story(said: Sequence[Message]) -> Sequence[str]:
    """Return the story from the sentence on in which it was interrupted; nothing if none was told.

    Of an interrupted answer `said` has only what was heard. Of a story that was told to its end, the end.
    """
    for message in reversed(said):
        if message.role == "assistant":
            for at, sentence in reversed(list(enumerate(STORY))):
                if sentence in message.text:
                    return STORY[min(at + 1, len(STORY) - 1) :]
                if message.text and sentence.startswith(message.text):
                    return STORY[at:]
    return ()


def _json(value: object) -> str:
    return msgspec.json.encode(value).decode()


def no_answer(name: str) -> str:
    """Return what is said of a tool that gave no answer in time."""
    return f"{_spoken(name).capitalize()} did not answer."


def report(outputs: Sequence[tuple[str, str]]) -> str:
    """Return sentences that tell tools' outputs, given as (name, output)."""
    return " ".join(_report_one(name, output) for name, output in outputs)


def _report_one(name: str, output: str) -> str:
    try:
        value: Any = msgspec.json.decode(output)
    except (msgspec.DecodeError, RecursionError):  # the client's text, so of any depth
        value = output
    said = _beginning(_say_value(value)).strip()
    if not said:
        return f"{_spoken(name).capitalize()} is done."
    return said if said[-1] in ".!?" else f"{said}."


def _beginning(pieces: Iterator[str]) -> str:
    """Join as many pieces as are spoken: the client's output may hold a hundred thousand."""
    text = ""
    for piece in pieces:
        text += piece[:MAX_SPOKEN_OUTPUT]
        if len(text) >= MAX_SPOKEN_OUTPUT:
            break
    return text[:MAX_SPOKEN_OUTPUT]


def _say_value(value: Any, depth: int = 0) -> Iterator[str]:
    if depth > MAX_SPOKEN_DEPTH:
        yield "more"
        return
    match value:
        case dict():
            for index, (key, item) in enumerate(value.items()):
                yield f"{', ' if index else ''}{_spoken(str(key)[:MAX_SPOKEN_OUTPUT])} "
                yield from _say_value(item, depth + 1)
        case list():
            for index, item in enumerate(value):
                yield ", " if index else ""
                yield from _say_value(item, depth + 1)
        case None:
            yield "nothing" if depth else ""
        case bool():
            yield "yes" if value else "no"
        case _:
            yield str(value)


def _spoken(name: str) -> str:
    return " ".join(words(name))


def _join(names: Sequence[str]) -> str:
    return " and the ".join(map(_spoken, names))


def _local_time() -> datetime:
    return datetime.now().astimezone()
