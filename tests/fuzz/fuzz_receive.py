"""Coverage-guided fuzzing of the two receive paths with atheris, for as long as one says.

Run it from the root of the repository, with a folder for what it finds and the one that is kept::

    python -m tests.fuzz.fuzz_receive -max_total_time=300 found/ tests/fuzz/corpus/

The first folder is filled with the seeds of `receive` first. To keep what reached new code, give libFuzzer
``-merge=1 tests/fuzz/corpus/ found/``. Any finding ends the run with a traceback and a
``crash-…`` file, which is the input: hand it to `receive.receive` to see it again.
"""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path

import atheris  # type: ignore[import-untyped, import-not-found, unused-ignore] # pyright: ignore[reportMissingImports]

with atheris.instrument_imports(  # pyright: ignore[reportAttributeAccessIssue]
    include=["speko_anyio.protocol", "wsproto"]
):
    from tests.fuzz import receive


def main(arguments: list[str]) -> None:
    """Fuzz; the arguments are libFuzzer's."""
    folders = [Path(argument) for argument in arguments[1:] if not argument.startswith("-")]
    if folders and "-merge=1" not in arguments:
        folder = folders[0]
        folder.mkdir(parents=True, exist_ok=True)
        for seed in receive.seeds():
            (folder / hashlib.sha256(seed).hexdigest()[:16]).write_bytes(seed)
    atheris.Setup(arguments, receive.receive)
    atheris.Fuzz()


if __name__ == "__main__":
    main(sys.argv)
