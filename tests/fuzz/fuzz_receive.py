"""Coverage-guided fuzzing of the two receive paths with atheris, for as long as one says.

Run it from the root of the repository, with a folder that keeps what was found from run to run::

    python -m tests.fuzz.fuzz_receive -max_total_time=300 corpus/

The folder is filled with the seeds of `receive` first. Any finding ends the run with a traceback and a
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
    for folder in (Path(argument) for argument in arguments[1:] if not argument.startswith("-")):
        folder.mkdir(parents=True, exist_ok=True)
        for seed in receive.seeds():
            (folder / hashlib.sha256(seed).hexdigest()[:16]).write_bytes(seed)
    atheris.Setup(arguments, receive.receive)
    atheris.Fuzz()


if __name__ == "__main__":
    main(sys.argv)
