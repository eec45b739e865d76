"""Mutational fuzzing of all parsers and of the bridge, for as long as one says, each input within bounds.

Run it from the root of the repository, with seconds and a number to begin with::

    python -m tests.fuzz.fuzz_parsers 300 7

A finding ends the run with a traceback, and with the target and the number of its input: a target called with
`random.Random` of that number finds it again.
"""

from __future__ import annotations

import logging
import sys

from .bridges import TARGETS as BRIDGES
from .carriers import TARGETS as CARRIERS
from .mutation import keep_fuzzing, limit_memory
from .parsers import TARGETS as PARSERS


def main(arguments: list[str]) -> None:
    """Fuzz for the seconds of the first argument, from the input that the second one numbers."""
    limit_memory()
    logging.disable()  # odd input gives warnings
    seconds = float(arguments[0]) if arguments else 60.0
    first = int(arguments[1]) if len(arguments) > 1 else 0
    print(f"{keep_fuzzing((*PARSERS, *BRIDGES, *CARRIERS), seconds, first)} inputs, no finding")


if __name__ == "__main__":
    main(sys.argv[1:])
