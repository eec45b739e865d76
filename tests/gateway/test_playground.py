"""The playground's routes: there when asked for, and only then. The page itself is tested in a browser."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import httpx
import pytest

from speko_anyio._version import __version__
from speko_anyio.gateway import _playground as playground
from tests.support.processes import run

from .support import make_gateway


async def get(path: str, *, playground: bool) -> httpx.Response:
    transport = httpx.ASGITransport(make_gateway(playground=playground).app)
    async with httpx.AsyncClient(transport=transport, base_url="http://gateway.test") as http:
        return await http.get(path)


@pytest.mark.anyio
@pytest.mark.parametrize("path", ["/", "/playground/app.js", "/playground/about.json"])
async def test_there_is_no_page_unless_it_is_asked_for(path: str) -> None:
    assert (await get(path, playground=False)).status_code == 404


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("path", "media_type"),
    [
        ("/", "text/html; charset=utf-8"),
        ("/playground/style.css", "text/css; charset=utf-8"),
        ("/playground/worklet.js", "text/javascript; charset=utf-8"),
    ],
)
async def test_it_serves_its_files_under_a_strict_policy(path: str, media_type: str) -> None:
    answer = await get(path, playground=True)
    assert answer.status_code == 200
    assert answer.headers["content-type"] == media_type
    assert "default-src 'none'; script-src 'self'" in answer.headers["content-security-policy"]
    assert answer.headers["x-content-type-options"] == "nosniff"


@pytest.mark.anyio
async def test_it_tells_what_the_gateway_serves_and_no_more() -> None:
    answer = await get("/playground/about.json", playground=True)
    assert answer.json() == {"version": __version__, "providers": ["echo"]}


@pytest.mark.anyio
@pytest.mark.parametrize("path", ["/playground/__init__.py", "/playground/../app.py", "/playground/"])
async def test_it_serves_nothing_else(path: str) -> None:
    assert (await get(path, playground=True)).status_code == 404


@pytest.mark.skipif(shutil.which("node") is None, reason="needs node")
def test_the_pages_tools_take_no_arguments_in_any_notation(tmp_path: Path) -> None:
    tools = Path(playground.__file__ or "").parent / "tools.js"
    (tmp_path / "tools.mjs").write_text(tools.read_text(encoding="utf-8"), encoding="utf-8")
    script = """
        import { runTool } from "./tools.mjs";
        for (const given of ["", " ", "null", "{}"]) console.log(runTool("roll_dice", given));
        for (const given of [" ", "null"]) console.log(runTool("get_weather", given));
    """
    (tmp_path / "run.mjs").write_text(script, encoding="utf-8")
    done = run(["node", "run.mjs"], cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert "failed" not in done.stdout
    assert done.stdout.count("You rolled") == 4


@pytest.mark.skipif(shutil.which("node") is None, reason="needs node")
@pytest.mark.parametrize(
    ("offered", "sent"),
    [(["new", "usage"], ['{"t":"extensions","use":["usage"]}']), ([], []), (None, [])],
)
def test_the_page_asks_for_the_ends_of_answers_where_they_are_offered(
    offered: list[str] | None, sent: list[str], tmp_path: Path
) -> None:
    session = Path(playground.__file__ or "").parent / "session.js"
    (tmp_path / "session.mjs").write_text(session.read_text(encoding="utf-8"), encoding="utf-8")
    ready: dict[str, object] = {"t": "ready", "inputSampleRate": 16_000, "outputSampleRate": 16_000}
    if offered is not None:
        ready["extensions"] = offered
    script = f"""
        import {{ Session }} from "./session.mjs";
        const sent = [];
        let socket;
        globalThis.WebSocket = class {{
          static OPEN = 1;
          readyState = 1;
          constructor() {{ socket = this; }}
          send(data) {{ sent.push(data); }}
        }};
        const opened = Session.open({{ wsUrl: "ws://x", wsToken: "t" }}, {{ onFrame() {{}} }});
        socket.onmessage({{ data: JSON.stringify({json.dumps(ready)}) }});
        await opened;
        console.log(JSON.stringify(sent));
    """
    (tmp_path / "run.mjs").write_text(script, encoding="utf-8")
    done = run(["node", "run.mjs"], cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout) == sent
