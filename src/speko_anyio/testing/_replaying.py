"""Replays a recording: the gateway's part to an application under test, or the user's part to any gateway."""

from __future__ import annotations

from typing import Final

import anyio

from ..client._session import RealtimeSession
from ..protocol._commands import (
    AudioIn,
    Clear,
    Commit,
    EndTurn,
    ImageIn,
    Interrupt,
    Played,
    Respond,
    Say,
    TextIn,
    ToolResult,
    Update,
    UpgradeRequest,
    extension_of,
)
from ..protocol._extensions import KNOWN, USAGE
from ..protocol.close_codes import is_sendable
from ..protocol.errors import ConnectionClosed, LocalProtocolError
from ..protocol.frames import Close, Digit, Expiring, Ready, ResponseEnd
from ..recording._recording import Recording
from ._peer import FakePeer, Step

PATIENCE: Final = 10.0
"""Seconds by which the application's commands may be later than the recorded ones."""


def replay(recording: Recording) -> Step:
    """Play the gateway's part of `recording`, as a script for a peer with the recording's rates (`peer_of`).

    Every frame is sent at its recorded time. The script waits for each recorded command except audio, and
    continues from there: if the application takes longer, the answers come later; if it does something else,
    the test fails. The content of a tool's result may differ.
    """

    async def script(peer: FakePeer) -> None:
        shift = anyio.current_time()  # add this to a recorded time to get the time on this clock
        for moment in recording.moments:
            match moment.what:
                case AudioIn() | Played() | Ready() | Expiring() | Digit() | UpgradeRequest():
                    continue  # these come from the application or the cores, or are not on this wire
                case Close(code=code, reason=reason, initiated_by=who) if who != "local":
                    await anyio.sleep_until(shift + moment.at)
                    if who == "remote" and is_sendable(code):
                        peer.close(code, reason)
                    else:
                        peer.drop()
                case (
                    Close()
                    | Commit()
                    | Clear()
                    | EndTurn()
                    | Interrupt()
                    | ToolResult()
                    | TextIn()
                    | ImageIn()
                    | Respond()
                    | Say()
                    | Update()
                ):
                    late = anyio.current_time() - shift - moment.at
                    await peer.expect(type(moment.what), within=PATIENCE - late)
                    shift = anyio.current_time() - moment.at
                case frame:
                    await anyio.sleep_until(shift + moment.at)
                    peer.send(frame)

    return script


def peer_of(recording: Recording) -> FakePeer:
    """Make a peer with the sample rates of `recording`, which offers what the recorded service did.

    A provider, straight on the user's account, offers nothing: this peer offers what was used there.
    """
    ready = next((moment.what for moment in recording.moments if isinstance(moment.what, Ready)), Ready())
    offered = {*ready.extensions}
    for moment in recording.moments:
        match moment.what:
            case ResponseEnd():
                # Otherwise the client's core derives them from the other frames.
                offered.add(USAGE)
            case TextIn() | ImageIn() | Respond() | Say() | Update() | Played() as command:
                offered.add(extension_of(command))
            case _:
                pass
    return FakePeer(
        input_sample_rate=recording.input_sample_rate,
        output_sample_rate=recording.output_sample_rate,
        extensions=[name for name in KNOWN if name in offered],
        capabilities=ready.capabilities,
    )


async def perform(session: RealtimeSession, recording: Recording) -> None:
    """Play the client's part of `recording` into `session`, audio and commands, at the recorded times.

    Returns at the end of the recording or of the session. Skips results of calls that are not open here, and
    commands that this session's service does not take.
    """
    start = anyio.current_time()
    for moment in recording.moments:
        if moment.by != "client":
            continue
        await anyio.sleep_until(start + moment.at)
        try:
            match moment.what:
                case AudioIn(pcm=pcm):
                    await session.send_audio(pcm)
                case Commit():
                    await session.commit()
                case Clear():
                    await session.clear()
                case EndTurn():
                    await session.end_turn()
                case Interrupt():
                    await session.interrupt()
                case ToolResult(call_id=call_id, output=output):
                    await session.send_tool_result(call_id, output)
                case TextIn(text=text, role=role, respond=respond):
                    await session.send_text(text, role=role, respond=respond)
                case ImageIn(data=data, mime_type=mime_type, respond=respond):
                    await session.send_image(data, mime_type=mime_type, respond=respond)
                case Respond(instructions=instructions):
                    await session.respond(instructions)
                case Say(text=text):
                    await session.say(text)
                case Update() as changes:
                    given = {name: getattr(changes, name) for name in changes.fields}
                    await session.update(**given)
                case Played(ms=ms):
                    await session.report_played(ms / 1000)
                case Close(code=code, reason=reason):
                    await session.close(code, reason)
        except LocalProtocolError:
            continue  # the service takes no such command, or made no such call, or was answered already
        except ConnectionClosed:
            return
