"""The command line: every command and option, with its help.

It imports nothing of the library, so that ``--help`` and mistakes are answered at once.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Final, NoReturn, TypeAlias

from .._version import __version__
from ._failures import EXIT_CODES_HELP

WRITTEN: Final = "text"
"""The value of ``--output`` with which the assistant answers in writing."""

BACKENDS: Final = ("asyncio", "uvloop", "trio")

_Commands: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"


def make_parser() -> argparse.ArgumentParser:
    """Return the parser of the whole command line."""
    parser = argparse.ArgumentParser(
        prog="speko-anyio",
        description="Speech-to-speech sessions: ask, serve, try out.",
        epilog=EXIT_CODES_HELP,
    )
    parser.add_argument("--version", action="version", version=f"speko-anyio {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    demo = _add_command(
        commands,
        "demo",
        "ask the built-in gateway a spoken question; needs no account",
        "Start a gateway in this process, ask its offline voice aloud, write the answer.",
    )
    question = demo.add_mutually_exclusive_group()
    question.add_argument(
        "--text", type=_speech, default="What time is it?", help="the question, to be spoken for you"
    )
    question.add_argument("--wav", type=Path, metavar="FILE", help="the question, recorded")
    demo.add_argument(
        "--turns", type=_positive, default=1, metavar="N", help="ask N times; prints the median"
    )
    _add_output(demo)
    _add_backend(demo)

    say = _add_command(
        commands,
        "say",
        "ask any endpoint a question",
        "Ask with a text, or with a WAV file or a text that is spoken for you, at the speed of speech, and "
        "write the answer to another WAV file. Without --base-url and SPEKO_BASE_URL, a gateway "
        "in this process serves the providers local and echo. Without SPEKO_API_KEY too, it also serves "
        "openai, xai and google, each if its key is set: OPENAI_API_KEY, XAI_API_KEY or GEMINI_API_KEY.",
        more="; a service's API key is read from SPEKO_API_KEY",
    )
    question = say.add_mutually_exclusive_group()
    question.add_argument(
        "wav", type=Path, nargs="?", metavar="QUESTION.wav", help="any PCM WAV: every rate and channel count"
    )
    question.add_argument(
        "--say",
        type=_speech,
        dest="text",
        metavar="TEXT",
        help="the question, to be spoken for you by the offline voice",
    )
    question.add_argument(
        "--text", type=_speech, dest="typed", metavar="TEXT", help="the question, in writing"
    )
    _add_session(say)
    _add_conversation(say)
    say.add_argument(
        "-o",
        "--output",
        type=_output,
        default=Path("reply.wav"),
        metavar="REPLY.wav",
        help="the answer (default: reply.wav); with `text` the assistant answers in writing instead",
    )
    _add_backend(say)

    timeline = _add_command(
        commands,
        "timeline",
        "draw a recorded session",
        "Draw who spoke when in a recording that `say --record` or speko_anyio.recording made, "
        "with transcripts, tool calls, interruptions and the time to first audio.",
    )
    timeline.add_argument("recording", type=Path, metavar="DIR", help="the recording's folder")
    timeline.add_argument(
        "--title", type=_text, default="", help="of the picture (default: the provider and its model)"
    )
    _add_output(timeline, "timeline.svg", "FILE.svg")
    timeline.set_defaults(backend="asyncio")

    talk = _add_command(
        commands,
        "talk",
        "talk by microphone and loudspeaker",
        "Hold a conversation until Ctrl-C. Speak while the assistant does to interrupt it; its echo and "
        "steady noise are removed from what the microphone hears. You can also type: each line is a turn. "
        "Without a microphone you can only type; with `--output text` you need no loudspeaker either. Files "
        "can stand in for both.",
        more="; the API key is read from SPEKO_API_KEY",
    )
    _add_session(talk)
    talk.add_argument(
        "--tools",
        nargs="+",
        default=(),
        metavar="MODULE:FUNCTION",
        help="functions that the model may call, looked for in the current folder too",
    )
    _add_conversation(talk)
    talk.add_argument("--input-device", type=_device, metavar="DEVICE", help="number or name")
    talk.add_argument(
        "--output-device", type=_device, metavar="DEVICE", help="likewise; `python -m sounddevice` lists them"
    )
    talk.add_argument(
        "--no-echo-cancellation",
        dest="echo_cancellation",
        action="store_false",
        help="send what the microphone hears unchanged: for headphones only, or the assistant hears itself",
    )
    talk.add_argument(
        "--wav",
        type=Path,
        metavar="FILE",
        help="say this instead of using a microphone, and hang up when the answer was heard",
    )
    talk.add_argument(
        "-o",
        "--output",
        type=_output,
        metavar="FILE",
        help="write what would be heard to this WAV instead of using a loudspeaker; with `text` the "
        "assistant answers in writing instead",
    )
    _add_backend(talk)

    bench = _add_command(
        commands,
        "bench",
        "put a load on any gateway",
        "Hold many real-time sessions at once and report latencies, late and lost messages, and "
        "errors. Audio is sent without a pause and must come back unchanged, as from the provider echo; with "
        "--wav or --text, that question is asked again and again. Without --base-url, the providers local "
        "and echo are served by a gateway in this process.",
        more="; 1 also when a session failed or a message was lost",
    )
    bench.add_argument("--sessions", type=_positive, default=20, metavar="N", help="at once (default: 20)")
    bench.add_argument(
        "--seconds", type=_seconds, default=10.0, metavar="S", help="of each session (default: 10)"
    )
    bench.add_argument(
        "--ramp", type=_seconds, default=2.0, metavar="S", help="in which they are opened (default: 2)"
    )
    _add_service(bench, provider="echo")
    asked = bench.add_mutually_exclusive_group()
    asked.add_argument("--wav", type=Path, metavar="FILE", help="a question to ask, any PCM WAV")
    asked.add_argument("--text", type=_speech, help="a question to ask, to be spoken for you")
    bench.add_argument("--json", type=Path, metavar="FILE", help="write the report as JSON")
    bench.add_argument("--plot", type=Path, metavar="FILE.svg", help="draw the latency over time")
    _add_backend(bench)

    serve = _add_command(
        commands,
        "serve",
        "run a gateway",
        "Serve sessions with the handlers that are installed, and with your own. API keys are "
        "those of the database and of SPEKO_GATEWAY_KEYS (separated by commas); the first start generates "
        "one and prints it. "
        "SPEKO_GATEWAY_SECRET signs the session tokens; nodes that share a database need the same.",
    )
    _add_gateway(serve)

    _add_keys(commands)

    gateway = _add_command(commands, "gateway", "look after a gateway")
    actions = gateway.add_subparsers(dest="action", required=True, metavar="ACTION")
    check = _add_command(
        actions,
        "check",
        "show every setting and its source, and try what a start would need",
        "Take the options of `serve`, show every setting and its source, and try what a start would need.",
    )
    migrate = actions.add_parser("migrate", help="make the database's tables, or bring them up to date")
    _add_gateway(check)
    _add_config(migrate)
    _add_database(migrate)
    migrate.set_defaults(backend="asyncio")
    return parser


def _add_command(
    commands: _Commands, name: str, purpose: str, description: str | None = None, *, more: str = ""
) -> argparse.ArgumentParser:
    return commands.add_parser(name, help=purpose, description=description, epilog=EXIT_CODES_HELP + more)


def _add_keys(commands: _Commands) -> None:
    keys = _add_command(
        commands,
        "keys",
        "create, list and revoke API keys of a gateway",
        "The API keys in a gateway's database. They are stored as hashes; gateways that run know "
        "of every change at once.",
    )
    keys.set_defaults(backend="asyncio")
    actions = keys.add_subparsers(dest="action", required=True, metavar="ACTION")
    create = actions.add_parser("create", help="make a key, and show it this once")
    create.add_argument("--name", type=_text, required=True, help="whose key it is, or what it is for")
    create.add_argument(
        "--scopes",
        type=_scopes,
        default=("mint", "read"),
        help="mint: sessions; read: their records; admin: all records (default: mint,read)",
    )
    for limit, what in (
        ("--max-sessions", "sessions at once"),
        ("--mints-per-minute", "sessions minted within 60 seconds"),
        ("--minutes-per-day", "minutes of sessions in a day of UTC"),
    ):
        create.add_argument(limit, type=_positive, metavar="N", help=f"{what} (default: any)")
    shown = actions.add_parser("list", help="show the keys, revoked ones too; not the secrets")
    revoke = actions.add_parser("revoke", help="let a key mint and read nothing more")
    revoke.add_argument("key_id", metavar="KEY_ID", help="as `keys list` shows it")
    for action in (create, shown, revoke):
        _add_config(action)
        _add_database(action)


def _add_config(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--config",
        type=Path,
        metavar="FILE.toml",
        help="settings; the environment (SPEKO_GATEWAY_...) overrides them, options override both",
    )


def _add_gateway(parser: argparse.ArgumentParser) -> None:
    """Add the options of `serve`, which `gateway check` takes too."""
    _add_config(parser)
    parser.add_argument("--host", type=_text, help="address to listen on (default: 127.0.0.1)")
    parser.add_argument("--port", type=_port, help="(default: 8000) 0 takes a free one")
    parser.add_argument("--public-url", type=_text, help="where clients reach it, behind a proxy")
    parser.add_argument(
        "--handler",
        action="append",
        metavar="NAME=MODULE:ATTRIBUTE",
        help="a handler of your own for the provider NAME, also looked for in the current folder; repeat it "
        "for more (default: those of the settings)",
    )
    parser.add_argument(
        "--phone",
        action="append",
        metavar="CARRIER=HANDLER",
        help="take phone calls of twilio, telnyx, plivo or vonage, such as twilio=local; repeat it for more "
        "(default: those of the settings)",
    )
    parser.add_argument(
        "--unsigned-phones",
        action="store_true",
        help="check no signatures of carriers, and take calls only from this machine: for development",
    )
    parser.add_argument(
        "--ear",
        type=_text,
        metavar="EAR",
        help="what the offline voice hears with: pocketsphinx or whisper:MODEL, as in whisper:tiny.en, where "
        "MODEL may be a folder (default: pocketsphinx)",
    )
    parser.add_argument(
        "--temporary-key",
        action=argparse.BooleanOptionalAction,
        help="generate an API key for this run, and print it (default: only on a loopback address, as long "
        "as no other key was ever used with the database)",
    )
    parser.add_argument(
        "--playground",
        action=argparse.BooleanOptionalAction,
        help="a page to talk to the gateway with (default: only on a loopback address with a generated key)",
    )
    parser.add_argument(
        "--drain-seconds",
        "--patience",
        type=_seconds,
        metavar="SECONDS",
        help="time that open sessions get to finish on Ctrl-C (default: 10)",
    )
    parser.add_argument(
        "--transcript-days",
        type=_positive,
        metavar="N",
        help="store what is said, for so long (default: store nothing of it)",
    )
    parser.add_argument(
        "--record-days",
        type=_positive,
        metavar="N",
        help="store the records of sessions, for so long (default: until you delete them)",
    )
    _add_database(parser, "; 'memory': none, the records end with the process")
    _add_backend(parser, choices=("asyncio", "uvloop"))


def _add_database(parser: argparse.ArgumentParser, more: str = "") -> None:
    parser.add_argument(
        "--database",
        metavar="URL",
        help="a file's path, or postgresql://user:password@host/name (default: SPEKO_GATEWAY_DATABASE, else "
        f"a file in the user's state folder){more}",
    )


def _add_service(parser: argparse.ArgumentParser, *, provider: str) -> None:
    """Add the options that say where sessions are opened, and with which provider."""
    parser.add_argument(
        "--provider",
        type=_text,
        default=provider,
        help="openai, google, xai, local, echo, ... (default: %(default)s)",
    )
    parser.add_argument("--model", type=_text, help="the provider's model (default: its usual one)")
    parser.add_argument(
        "--rate", type=int, choices=(16000, 24000), default=24000, help="samples a second (default: 24000)"
    )
    parser.add_argument("--base-url", type=_text, help="the service's URL (default: SPEKO_BASE_URL)")
    parser.add_argument("--api-key", action=_RefuseKey, help=argparse.SUPPRESS)


class _RefuseKey(argparse.Action):
    """Refuse a key on the command line, where every user of the machine can read it."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> NoReturn:
        parser.error("a key on the command line is visible to others; set SPEKO_API_KEY instead")


def _add_session(parser: argparse.ArgumentParser) -> None:
    _add_service(parser, provider="local")
    parser.add_argument("--voice", type=_text)
    parser.add_argument("--system-prompt", type=_text)
    parser.add_argument("--record", type=Path, metavar="DIR", help="write the session down, for `timeline`")
    parser.add_argument(
        "--direct", action="store_true", help="your own account with the provider, and no gateway between"
    )
    parser.add_argument(
        "--provider-url",
        type=_text,
        metavar="URL",
        help="where the provider is, for your own account with it (default: OPENAI_BASE_URL, XAI_BASE_URL or "
        "GEMINI_BASE_URL, else the provider itself)",
    )


def _add_conversation(parser: argparse.ArgumentParser) -> None:
    """Add the options that say what the conversation begins with."""
    parser.add_argument("--greet", action="store_true", help="the assistant speaks first")
    parser.add_argument(
        "--history",
        type=Path,
        metavar="FILE.json",
        help="continue the conversation in this file, if it exists, and save all of it there at the end",
    )


def _output(text: str) -> Path | str:
    # A file of that name is ./text.
    return WRITTEN if text == WRITTEN else Path(text)


def _add_output(
    parser: argparse.ArgumentParser, default: str = "reply.wav", metavar: str = "REPLY.wav"
) -> None:
    parser.add_argument(
        "-o", "--output", type=Path, default=Path(default), metavar=metavar, help="(default: %(default)s)"
    )


def _add_backend(parser: argparse.ArgumentParser, choices: Sequence[str] = BACKENDS) -> None:
    parser.add_argument(
        "--backend", choices=choices, default="asyncio", help="the event loop (default: asyncio)"
    )


def _text(text: str) -> str:
    from ..gateway._settings import utf8_text

    try:
        return utf8_text(text)
    except UnicodeError:
        raise argparse.ArgumentTypeError("not text in UTF-8") from None


def _scopes(text: str) -> tuple[str, ...]:
    from ..gateway.store._records import SCOPES

    scopes = [scope.strip() for scope in text.split(",")]
    unknown = [scope for scope in scopes if scope not in SCOPES]
    if unknown:
        raise argparse.ArgumentTypeError(f"{unknown[0]!r} is not a scope; choose from {', '.join(SCOPES)}")
    return tuple(scope for scope in SCOPES if scope in scopes)


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text} is not a whole number above 0")
    return int(text)


def _speech(text: str) -> str:
    if not text.strip():
        raise argparse.ArgumentTypeError("the text is blank; give something to say")
    return _text(text)


def _device(text: str) -> int | str:
    return int(text) if text.isdecimal() else text


def _port(text: str) -> int:
    if not text.isdecimal() or int(text) > 65_535:
        raise argparse.ArgumentTypeError(f"{text} is not a port, 0 to 65535")
    return int(text)


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds < 1e6:
        raise argparse.ArgumentTypeError(f"{text} is not a number of seconds")
    return seconds
