"""The steps of a script, for use in a list: each calls the `FakePeer` method of the same name."""

from __future__ import annotations

import anyio

from ..protocol._commands import Command, Commit
from ..protocol.frames import Frame, ResponseStatus, Role
from ._peer import Step


def expect(wanted: type[Command] | Command, *, within: float = 10.0) -> Step:
    """Wait for the client's next command, audio aside; the test fails when it is not `wanted`."""
    return lambda peer: peer.expect(wanted, within=within)


def on(wanted: type[Command], *steps: Step) -> Step:
    """Run `steps`, in parallel to everything else, whenever the client sends a `wanted` from now on."""
    return lambda peer: peer.on(wanted, *steps)


def on_commit(*steps: Step) -> Step:
    """Run `steps` whenever the client's turn ends."""
    return on(Commit, *steps)


def wait(seconds: float) -> Step:
    """Let time pass."""
    return lambda _: anyio.sleep(seconds)


def send(*frames: Frame) -> Step:
    """Send frames."""
    return lambda peer: peer.send(*frames)


def say(pcm: bytes, *, pace: float | None = None) -> Step:
    """Speak: all at once, or `pace` times as fast as real time."""
    return lambda peer: peer.say(pcm, pace=pace)


def transcript(role: Role, text: str, *, final: bool = True) -> Step:
    """Send what `role` said, as text."""
    return lambda peer: peer.transcript(role, text, final=final)


def end_response(status: ResponseStatus = "done", reason: str = "") -> Step:
    """End one answer. Clients count turns by it."""
    return lambda peer: peer.end_response(status, reason)


def call_tool(name: str, /, **arguments: object) -> Step:
    """Have the client run a tool, and wait for the result."""
    return lambda peer: peer.call_tool(name, **arguments)


def interrupt(at: Role = "user") -> Step:
    """Tell the client that the assistant was cut off."""
    return lambda peer: peer.interrupt(at)


def close(code: int = 1000, reason: str = "") -> Step:
    """End the session."""
    return lambda peer: peer.close(code, reason)


def drop() -> Step:
    """Close the connection without a goodbye."""
    return lambda peer: peer.drop()


def reset() -> Step:
    """Break the connection both ways."""
    return lambda peer: peer.reset()


def fail_sends() -> Step:
    """Make the client's sends fail from now on."""
    return lambda peer: peer.fail_sends()


def stall(*, receiving: bool = True, sending: bool = True) -> Step:
    """Freeze the connection until `resume`."""
    return lambda peer: peer.stall(receiving=receiving, sending=sending)


def resume() -> Step:
    """End a `stall`."""
    return lambda peer: peer.resume()


def deliver(max_bytes: int) -> Step:
    """Deliver at most so many bytes to the client at a time."""
    return lambda peer: peer.deliver(max_bytes)


def delay(seconds: float) -> Step:
    """Delay everything that is sent from now on."""
    return lambda peer: peer.delay(seconds)


def malformed(message: str = '{"t": "transcript"') -> Step:
    """Send a text message unchecked; by default one that is not valid JSON."""
    return lambda peer: peer.malformed(message)


def truncate(announced: int = 1024, sent: int = 100) -> Step:
    """Begin an audio message and lose the connection within it."""
    return lambda peer: peer.truncate(announced, sent)
