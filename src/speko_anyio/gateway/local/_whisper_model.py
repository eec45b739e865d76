"""Tells a folder with a Whisper model from the name of one.

It is apart from the worker, which loads the library: a gateway checks its settings without that.
"""

from __future__ import annotations

from pathlib import Path

_NEEDED = ("config.json", "model.bin", "tokenizer.json")
"""Of a model in CTranslate2's format. Without the tokenizer, faster-whisper would ask the network for one."""


def find_folder(name: str) -> str | None:
    """Return the folder that `name` means; None if it can only be the name of a model, or a repository.

    Raises ValueError if that folder is missing or holds no model; the message is the rest of a sentence.
    """
    folder = Path(name).expanduser()
    if folder.is_dir():
        if missing := [file for file in _NEEDED if not (folder / file).is_file()]:
            raise ValueError(
                f"found no {missing[0]} in {name}; name a folder with a Whisper model in CTranslate2's format"
            )
        return str(folder)
    if folder.is_absolute() or name.startswith((".", "~")) or name.count("/") > 1:
        raise ValueError(f"found no folder {name}; name one that holds a Whisper model")
    return None
