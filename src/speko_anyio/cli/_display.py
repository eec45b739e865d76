"""The display of a command at work: progress, transcripts as they grow, and a summary."""

from __future__ import annotations

from rich.console import Console, Group
from rich.live import Live
from rich.spinner import Spinner
from rich.text import Text

from ..protocol._text import UNSAFE, clean, escape
from ..protocol._tokens import redact
from ..protocol.frames import ErrorFrame, Frame, Interruption, ServerToolCall, ToolCall, Transcript

_NAMES = {"user": "you", "assistant": "assistant"}


def _line(text: str, style: str) -> Text:
    return Text(escape(text), style=style)


class Display:
    """Lines that stay above, one status line that moves below. On a pipe only the lines that stay."""

    def __init__(self, console: Console | None = None) -> None:
        self.console: Console = console or Console(highlight=False, stderr=False)
        self._status = ""
        self._partial: Transcript | None = None
        self._live = Live(
            console=self.console, transient=True, refresh_per_second=12, get_renderable=self._now
        )

    def __enter__(self) -> Display:
        if self.console.is_terminal:
            self._live.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._live.stop()

    def status(self, text: str) -> None:
        """Show what is going on now."""
        self._status = clean(text)

    def line(self, text: str | Text) -> None:
        """Print a line that stays."""
        # A file may be called [bold].wav: nothing here is markup.
        if isinstance(text, str):
            text = escape(text)
        elif UNSAFE.search(text.plain):
            text = Text(escape(text.plain), style=text.style)
        self.console.print(text, soft_wrap=True, markup=False, emoji=False)

    def progress(self, done: float) -> None:
        """Show how much of the question was spoken, from 0 to 1."""
        bar = "━" * round(24 * done)
        self.status(f"speaking the question {bar:<24} {done:4.0%}" if done < 1 else "waiting for the answer")

    def show(self, frame: Frame) -> None:
        """Show a frame, as far as a person wants to see it."""
        match frame:
            case Transcript(final=True):
                self._partial = None
                self.line(self._spoken(frame))
            case Transcript():
                self._partial = frame
            case ToolCall(name=name, arguments=arguments):
                self.line(_line(f"tool      {name}({arguments})", "cyan"))
            case ServerToolCall(name=name, status=status):
                self.line(_line(f"tool      {name} {status}", "cyan"))
            case Interruption():
                self.line(Text("interrupted", style="yellow"))
            case ErrorFrame(code=code, message=message):
                self.line(_line(redact(f"error     {code}: {message}"), "red"))
            case _:
                pass

    def _spoken(self, transcript: Transcript) -> Text:
        name = _NAMES[transcript.role]
        return Text.assemble(
            (f"{name:<10}", "bold green" if name == "you" else "bold magenta"), escape(transcript.text)
        )

    def _now(self) -> Group:
        spinner = Spinner("dots", Text(self._status, style="dim"))
        if self._partial is None:
            return Group(spinner)
        growing = self._spoken(self._partial)
        growing.stylize("dim")
        return Group(growing, spinner)
