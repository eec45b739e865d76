"""The command line: what can be typed, and the one place where failures become a line and a code."""

from __future__ import annotations

import argparse
import sys
import warnings
from collections.abc import Callable, Coroutine, Sequence
from pathlib import Path
from typing import Any, Final

import anyio

from .._extras import install_extra
from .._version import __version__
from ..protocol.errors import SpekoError
from .failures import EXIT_CODES_HELP, FAILED, INTERRUPTED, CommandError, exit_code_of
from .output import check_output, sturdy_output

SCOPES: Final = ("mint", "read", "admin")
"""As the gateway knows them; named here so that ``--help`` loads no gateway."""

BACKENDS: Final = ("asyncio", "uvloop", "trio")

Command = Callable[[argparse.Namespace], Coroutine[Any, Any, None]]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code (see ``--help``)."""
    with sturdy_output():
        return _main(arguments)


def _main(arguments: Sequence[str] | None) -> int:
    options = _parser().parse_args(arguments)
    try:
        _run(options)
        check_output("the command did its work")
    except KeyboardInterrupt:
        return _interrupted()
    except CommandError as error:
        return _failed(*error.lines, exit_code=error.exit_code)
    except SpekoError as error:
        return _failed(str(error), exit_code=exit_code_of(error))
    except BaseExceptionGroup as group:
        # trio delivers Ctrl-C inside whichever task runs, and that task's group wraps it.
        if group.split(KeyboardInterrupt)[0] is not None:
            return _interrupted()
        broken = group.split(OSError)[0]
        if broken is None:
            raise
        return _failed(f"the system reports: {_first(broken)}; check the files and addresses")
    except OSError as error:
        return _failed(f"the system reports: {error}; check the files and addresses")
    return 0


def _first(group: BaseExceptionGroup[OSError]) -> BaseException:
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


def _interrupted() -> int:
    # On trio Ctrl-C may strike between the making of a task and its start; Python would tell of the coroutine
    # that was never awaited, in lines of its own, when the process ends.
    warnings.filterwarnings("ignore", "coroutine .* was never awaited", RuntimeWarning)
    return _failed("interrupted", exit_code=INTERRUPTED)


def _failed(*messages: str, exit_code: int = FAILED) -> int:
    for message in messages:
        # No line ends or control characters: a peer could use them against the terminal.
        line = "".join(c for c in " ".join(message.split()) if c.isprintable())
        print(f"speko-anyio: {line}", file=sys.stderr)
    return exit_code


def _run(options: argparse.Namespace) -> None:
    command = _command(options.command)
    if options.backend == "uvloop":
        _require("uvloop", "install uvloop, or choose --backend asyncio")
        anyio.run(command, options, backend="asyncio", backend_options={"use_uvloop": True})
    else:
        if options.backend == "trio":
            _require("trio", f"{install_extra('trio')}, or choose --backend asyncio")
        anyio.run(command, options, backend=options.backend)


def _command(name: str) -> Command:
    # Imported when chosen: `--help` and mistakes are answered without loading a server or a voice.
    try:
        if name == "demo":
            from .demo import demo

            return demo
        if name == "say":
            from .say import say

            return say
        if name == "talk":
            from .talk import talk

            return talk
        if name == "bench":
            from .bench import bench

            return bench
        if name == "keys":
            from .keys import keys

            return keys
        if name == "gateway":
            from .gateway import gateway

            return gateway
        if name == "timeline":
            from .timeline import timeline

            return timeline
        from .serve import serve

        return serve
    except ImportError as error:
        if error.name is None or error.name.startswith("speko_anyio."):
            raise
        raise CommandError(
            f"`speko-anyio {name}` needs {error.name}, which is not installed; "
            f"{install_extra('cli', 'gateway', 'local')}"
        ) from None


def _require(module: str, advice: str) -> None:
    try:
        __import__(module)
    except ImportError:
        raise CommandError(f"{module} is not installed; {advice}") from None


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="speko-anyio",
        description="Speech-to-speech sessions: ask, serve, try out.",
        epilog=EXIT_CODES_HELP,
    )
    parser.add_argument("--version", action="version", version=f"speko-anyio {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    demo = commands.add_parser(
        "demo",
        help="ask the built-in gateway a spoken question; needs no account",
        description="Start a gateway in this process, ask its offline voice aloud, write the answer.",
        epilog=EXIT_CODES_HELP,
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

    say = commands.add_parser(
        "say",
        help="ask any endpoint a spoken question",
        description="Ask with a WAV file or with a text that is spoken for you, at the speed of speech, and "
        "write the answer to another WAV file. Without --base-url, a gateway in this process serves the "
        "providers local and echo, and openai, xai and google when OPENAI_API_KEY, XAI_API_KEY or "
        "GEMINI_API_KEY is set, and neither SPEKO_BASE_URL nor SPEKO_API_KEY.",
        epilog=EXIT_CODES_HELP + "; a service's API key is read from SPEKO_API_KEY",
    )
    question = say.add_mutually_exclusive_group(required=True)
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
    _add_session(say)
    _add_output(say)
    _add_backend(say)

    timeline = commands.add_parser(
        "timeline",
        help="draw a recorded session",
        description="Draw who spoke when in a recording that `say --record` or speko_anyio.testing made, "
        "with transcripts, tool calls, interruptions and the time to first audio.",
        epilog=EXIT_CODES_HELP,
    )
    timeline.add_argument("recording", type=Path, metavar="DIR", help="the recording's folder")
    timeline.add_argument(
        "--title", type=_text, default="", help="of the picture (default: the provider and its model)"
    )
    timeline.add_argument(
        "-o",
        "--output",
        type=Path,
        default=Path("timeline.svg"),
        metavar="FILE.svg",
        help="(default: %(default)s)",
    )
    timeline.set_defaults(backend="asyncio")

    talk = commands.add_parser(
        "talk",
        help="talk by microphone and loudspeaker",
        description="Hold a conversation until Ctrl-C. Speak while the assistant does to interrupt it; wear "
        "headphones, or it interrupts itself. On a computer without devices, files stand in for them.",
        epilog=EXIT_CODES_HELP + "; the API key is read from SPEKO_API_KEY",
    )
    _add_session(talk)
    talk.add_argument(
        "--tools",
        nargs="+",
        default=(),
        metavar="MODULE:FUNCTION",
        help="functions that the model may call, looked for in the current folder too",
    )
    talk.add_argument("--input-device", type=_device, default=None, metavar="DEVICE", help="number or name")
    talk.add_argument(
        "--output-device",
        type=_device,
        default=None,
        metavar="DEVICE",
        help="likewise; `python -m sounddevice` lists them",
    )
    talk.add_argument(
        "--wav",
        type=Path,
        default=None,
        metavar="FILE",
        help="say this instead of using a microphone, and hang up when the answer was heard",
    )
    talk.add_argument(
        "-o",
        "--output",
        type=Path,
        default=None,
        metavar="FILE",
        help="write what would be heard to this WAV instead of using a loudspeaker",
    )
    _add_backend(talk)

    bench = commands.add_parser(
        "bench",
        help="put a load on any gateway",
        description="Hold many real-time sessions at once and report latencies, late and lost messages, and "
        "errors. Audio is sent without a pause and must come back as it was, as from the provider echo; with "
        "--wav or --text, that question is asked again and again. Without --base-url, the providers local "
        "and echo are served by a gateway in this process.",
        epilog=EXIT_CODES_HELP + "; 1 also when a session failed or a message was lost",
    )
    bench.add_argument("--sessions", type=_positive, default=20, metavar="N", help="at once (default: 20)")
    bench.add_argument(
        "--seconds", type=_seconds, default=10.0, metavar="S", help="of each session (default: 10)"
    )
    bench.add_argument(
        "--ramp", type=_seconds, default=2.0, metavar="S", help="in which they are opened (default: 2)"
    )
    bench.add_argument("--provider", type=_text, default="echo", help="(default: echo)")
    bench.add_argument(
        "--model", type=_text, default=None, help="the provider's model (default: its usual one)"
    )
    asked = bench.add_mutually_exclusive_group()
    asked.add_argument(
        "--wav", type=Path, default=None, metavar="FILE", help="a question to ask, any PCM WAV"
    )
    asked.add_argument("--text", type=_speech, default=None, help="a question to ask, to be spoken for you")
    bench.add_argument(
        "--rate", type=int, choices=(16000, 24000), default=24000, help="of the sessions, in Hz"
    )
    bench.add_argument(
        "--base-url", type=_text, default=None, help="of the service (default: SPEKO_BASE_URL)"
    )
    bench.add_argument("--json", type=Path, default=None, metavar="FILE", help="write the report as JSON")
    bench.add_argument(
        "--plot", type=Path, default=None, metavar="FILE.svg", help="draw the latency over time"
    )
    _add_backend(bench)

    serve = commands.add_parser(
        "serve",
        help="run a gateway",
        description="Serve sessions with the handlers that are installed, and with your own. API keys are "
        "those of the database and of SPEKO_GATEWAY_KEYS (separated by commas); where there are none, one is "
        "made up and printed. "
        "SPEKO_GATEWAY_SECRET signs the session tokens; nodes that share a database need the same.",
        epilog=EXIT_CODES_HELP,
    )
    _add_gateway(serve)

    _add_keys(commands)

    gateway = commands.add_parser("gateway", help="look after a gateway", epilog=EXIT_CODES_HELP)
    actions = gateway.add_subparsers(dest="action", required=True, metavar="ACTION")
    check = actions.add_parser(
        "check",
        help="show every setting and its source, and try what a start would need",
        description="Take the options of `serve`, show every setting and its source, and try what a start "
        "would need.",
        epilog=EXIT_CODES_HELP,
    )
    migrate = actions.add_parser("migrate", help="make the database's tables, or bring them up to date")
    _add_gateway(check)
    _add_config(migrate)
    _add_database(migrate)
    migrate.set_defaults(backend="asyncio")
    return parser


def _add_keys(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    keys = commands.add_parser(
        "keys",
        help="create, list and revoke API keys of a gateway",
        description="The API keys in a gateway's database. They are stored as hashes; gateways that run know "
        "of every change at once.",
        epilog=EXIT_CODES_HELP,
    )
    keys.set_defaults(backend="asyncio")
    actions = keys.add_subparsers(dest="action", required=True, metavar="ACTION")
    create = actions.add_parser("create", help="make a key, and show it this once")
    create.add_argument("--name", type=_text, required=True, help="whose key it is, or what it is for")
    create.add_argument(
        "--scopes",
        type=_scopes,
        default=("mint", "read"),
        help="mint: sessions; read: their records; admin: everybody's records (default: mint,read)",
    )
    for limit, what in (
        ("--max-sessions", "sessions at once"),
        ("--mints-per-minute", "sessions minted within 60 seconds"),
        ("--minutes-per-day", "minutes of sessions in a day of UTC"),
    ):
        create.add_argument(limit, type=_positive, default=None, metavar="N", help=f"{what} (default: any)")
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
        default=None,
        metavar="FILE.toml",
        help="settings; the environment (SPEKO_GATEWAY_...) goes before them, options before both",
    )


def _add_gateway(parser: argparse.ArgumentParser) -> None:
    """The options of a gateway: those of `serve`, which `gateway check` takes too."""
    _add_config(parser)
    parser.add_argument("--host", type=_text, default=None, help="address to listen on (default: 127.0.0.1)")
    parser.add_argument("--port", type=_port, default=None, help="(default: 8000) 0 takes a free one")
    parser.add_argument(
        "--public-url", type=_text, default=None, help="where clients reach it, behind a proxy"
    )
    _add_handler(parser)
    parser.add_argument(
        "--playground",
        action=argparse.BooleanOptionalAction,
        default=None,
        help="a page to talk to the gateway with (default: only when the API key is made up)",
    )
    parser.add_argument(
        "--patience",
        type=_seconds,
        default=None,
        metavar="SECONDS",
        help="time that open sessions get to finish on Ctrl-C (default: 10)",
    )
    parser.add_argument(
        "--transcript-days",
        type=_positive,
        default=None,
        metavar="N",
        help="store what is said, for so long (default: store nothing of it)",
    )
    parser.add_argument(
        "--record-days",
        type=_positive,
        default=None,
        metavar="N",
        help="store the records of sessions, for so long (default: until you delete them)",
    )
    _add_database(parser, "; 'memory': none, the records end with the process")
    _add_backend(parser, choices=("asyncio", "uvloop"))


def _add_handler(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--handler",
        action="append",
        default=None,
        metavar="NAME=MODULE:ATTRIBUTE",
        help="a handler of your own for the provider NAME, looked for in the current folder too; again for "
        "each (default: those of the settings)",
    )


def _add_database(parser: argparse.ArgumentParser, more: str = "") -> None:
    parser.add_argument(
        "--database",
        default=None,
        metavar="URL",
        help="a file's path, or postgresql://user:password@host/name (default: SPEKO_GATEWAY_DATABASE, else "
        f"a file in the user's state folder){more}",
    )


def _add_session(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--provider", type=_text, default="local", help="openai, google, xai, local, ... (default: local)"
    )
    parser.add_argument(
        "--model", type=_text, default=None, help="the provider's model (default: its usual one)"
    )
    parser.add_argument("--voice", type=_text, default=None)
    parser.add_argument("--system-prompt", type=_text, default=None)
    parser.add_argument(
        "--rate", type=int, choices=(16000, 24000), default=24000, help="of the session, in Hz"
    )
    parser.add_argument(
        "--base-url", type=_text, default=None, help="of the service (default: SPEKO_BASE_URL)"
    )
    parser.add_argument(
        "--record", type=Path, default=None, metavar="DIR", help="write the session down, for `timeline`"
    )
    parser.add_argument(
        "--direct", action="store_true", help="your own account with the provider, and no gateway between"
    )
    parser.add_argument(
        "--provider-url",
        type=_text,
        default=None,
        metavar="URL",
        help="where the provider is, for your own account with it (default: OPENAI_BASE_URL, XAI_BASE_URL or "
        "GEMINI_BASE_URL, else the provider itself)",
    )


def _add_output(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "-o",
        "--output",
        type=Path,
        default=Path("reply.wav"),
        metavar="REPLY.wav",
        help="(default: reply.wav)",
    )


def _add_backend(parser: argparse.ArgumentParser, choices: Sequence[str] = BACKENDS) -> None:
    parser.add_argument(
        "--backend", choices=choices, default="asyncio", help="the event loop (default: asyncio)"
    )


def _text(text: str) -> str:
    from ..gateway.settings import utf8_text

    try:
        return utf8_text(text)
    except UnicodeError:
        raise argparse.ArgumentTypeError("not text in UTF-8") from None


def _scopes(text: str) -> tuple[str, ...]:
    scopes = [scope.strip() for scope in text.split(",")]
    unknown = [scope for scope in scopes if scope not in SCOPES]
    if unknown:
        raise argparse.ArgumentTypeError(f"{unknown[0]!r} is no scope; there are {', '.join(SCOPES)}")
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
