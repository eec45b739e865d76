"""Masking: the exclusive-or both ways, and keys that no two processes share."""

from __future__ import annotations

import importlib.util
import os
import sys
from collections.abc import Callable
from importlib.machinery import EXTENSION_SUFFIXES, ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from speko_anyio.protocol import _masking as masking
from speko_anyio.protocol._masking import MaskingKeys, mask, mask_in_python
from tests.support.maskers import use_masker
from tests.support.processes import run

from .helpers import fixed_entropy, xor


def another_copy() -> ModuleType:
    """The module executed once more, under another name: what it finds at import is up to the test."""
    spec = importlib.util.spec_from_file_location("another_masking", masking.__file__)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("apply", [mask, mask_in_python], ids=["fastest", "python"])
@pytest.mark.parametrize(
    "key", [b"\x00\x5a\xa5\xff", b"\xff\xa5\x5a\x00", bytes(4), b"\xff" * 4], ids=bytes.hex
)
@pytest.mark.parametrize("size", [0, 1, 2, 3, 4, 5, 7, 8, 125, 960, 961, 962, 963, 32_768, 32_769, 32_773])
def test_the_exclusive_or(apply: Callable[[bytes, bytes], bytes], key: bytes, size: int) -> None:
    data = fixed_entropy(size).randbytes(size)
    masked = apply(data, key)
    assert masked == xor(data, key)
    assert type(masked) is bytes
    assert apply(masked, key) == data


def test_with_websockets_installed_its_c_masker_does() -> None:
    speedups = pytest.importorskip("websockets.speedups")
    assert mask.__name__ == speedups.apply_mask.__name__
    assert mask is not mask_in_python


def websockets_in(folder: Path | None, monkeypatch: pytest.MonkeyPatch) -> ModuleSpec | None:
    """Makes the package be installed in `folder` as far as anybody can see, or nowhere."""
    spec = None
    if folder is not None:
        # One that can't be imported: no test that goes on from here has done so.
        (folder / "__init__.py").write_text("raise AssertionError('imported')")
        spec = importlib.util.spec_from_file_location(
            "websockets", folder / "__init__.py", submodule_search_locations=[str(folder)]
        )
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: spec if name == "websockets" else find(name)
    )
    return spec


def test_without_websockets_python_does(monkeypatch: pytest.MonkeyPatch) -> None:
    websockets_in(None, monkeypatch)
    copy = another_copy()
    assert copy.mask is copy.mask_in_python


def test_without_the_extension_python_does(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    websockets_in(tmp_path, monkeypatch)
    copy = another_copy()
    assert copy.mask is copy.mask_in_python


def test_a_folder_of_that_name_is_no_extension(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "speedups").mkdir()
    spec = websockets_in(tmp_path, monkeypatch)
    assert spec is not None
    # What lies in a package without being a module is only found once that package is imported.
    monkeypatch.setitem(sys.modules, "websockets", importlib.util.module_from_spec(spec))
    copy = another_copy()
    assert copy.mask is copy.mask_in_python


def test_the_extension_is_loaded_without_its_package(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "speedups.py").write_text("def apply_mask(data, mask): return b'by the other masker'")
    websockets_in(tmp_path, monkeypatch)
    assert another_copy().mask(b"ab", b"\0\0\0\0") == b"by the other masker"


def test_an_extension_that_does_not_load_is_as_good_as_none(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / f"speedups{EXTENSION_SUFFIXES[0]}").write_bytes(b"not for this machine")
    websockets_in(tmp_path, monkeypatch)
    copy = another_copy()
    assert copy.mask is copy.mask_in_python


def take(keys: Any, count: int) -> list[bytes]:
    return [key for _ in range(count) for key in keys.take()]


def test_keys_come_from_the_entropy_in_order_and_every_byte_once() -> None:
    drawn: list[bytes] = []
    source = fixed_entropy()

    def entropy(size: int) -> bytes:
        drawn.append(source.randbytes(size))
        return drawn[-1]

    keys = take(MaskingKeys(entropy), 3000)
    assert len(drawn) > 1
    assert all(len(key) == 4 for key in keys)
    assert b"".join(drawn).startswith(b"".join(keys))


def test_where_python_masks_keys_come_as_numbers_too_and_from_one_sequence(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    in_c = take(MaskingKeys(fixed_entropy().randbytes), 100)
    use_masker("mask_in_python", monkeypatch)
    keys = MaskingKeys(fixed_entropy().randbytes)
    drawn = []
    for turn in range(50):
        drawn += [keys.take_number().to_bytes(4, "little"), *keys.take()]
        assert len(drawn) == 2 * turn + 2
    assert drawn == in_c


def test_the_entropy_is_asked_only_when_a_key_is_taken() -> None:
    def entropy(size: int) -> bytes:
        raise AssertionError("asked")

    keys = MaskingKeys(entropy)
    with pytest.raises(AssertionError, match="asked"):
        keys.take()


def test_keys_are_unpredictable_by_default() -> None:
    assert take(MaskingKeys(), 4) != take(MaskingKeys(), 4)


def test_forgetting_throws_the_rest_of_the_block_away() -> None:
    source = fixed_entropy()
    keys = MaskingKeys(source.randbytes)
    taken = take(keys, 2)
    keys.forget()
    taken += take(keys, 2)
    twin = fixed_entropy()
    first, second = twin.randbytes(256), twin.randbytes(256)
    assert b"".join(taken) == first[:8] + second[:8]


def test_a_forked_child_forgets_what_it_inherited(monkeypatch: pytest.MonkeyPatch) -> None:
    hooks: list[Callable[[], None]] = []
    monkeypatch.setattr(os, "register_at_fork", lambda *, after_in_child: hooks.append(after_in_child))
    copy = another_copy()
    keys = copy.MaskingKeys(fixed_entropy().randbytes)
    untouched = take(copy.MaskingKeys(fixed_entropy().randbytes), 2)
    first = take(keys, 1)
    (after_in_child,) = hooks
    after_in_child()
    assert [*first, *take(keys, 1)] != untouched


def test_where_there_is_no_fork_nothing_is_registered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "register_at_fork")
    assert len(take(another_copy().MaskingKeys(), 1)) == 1


FORK = """
import os
from speko_anyio.protocol._masking import MaskingKeys

keys = MaskingKeys()
keys.take()
reader, writer = os.pipe()
child = os.fork()
mine = b"".join(keys.take()[0] for _ in range(64))
if child == 0:
    os.write(writer, mine)
    os._exit(0)
os.waitpid(child, 0)
theirs = os.read(reader, 1024)
assert len(mine) == len(theirs) == 256
assert not {mine[i:i + 4] for i in range(0, 256, 4)} & {theirs[i:i + 4] for i in range(0, 256, 4)}
print("no key in common")
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this platform")
def test_two_sides_of_a_real_fork_share_no_key() -> None:
    # In a fresh interpreter: forking this one, with whatever threads it has, would be asking for trouble.
    done = run([sys.executable, "-W", "error", "-c", FORK])
    assert (done.stdout, done.stderr) == ("no key in common\n", "")
