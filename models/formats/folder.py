"""Finds the one checkpoint that a path means: a file, an Orbax entry, or the folder that training wrote them to."""

from __future__ import annotations

import re
from pathlib import Path

from runtime.errors import UserError

_ENTRY = re.compile(r"checkpoint_(\d+)")
_UNFINISHED = ".orbax-checkpoint-tmp"


def locate(path: Path) -> Path:
    """The file to read, or the directory if it is an Orbax OCDBT store.

    A folder of `checkpoint_<n>` entries means its highest number; unfinished saves never count.

    Args:
        path: What the user named.

    Returns:
        A regular file, or a directory that contains `manifest.ocdbt`.

    Raises:
        UserError: If nothing is there, or the folder holds no checkpoint.
    """
    try:
        return _locate(path)
    except OSError as error:
        raise UserError(f"checkpoint {path} cannot be read: {error.strerror}; check its permissions") from error


def _locate(path: Path) -> Path:
    if not path.exists():
        raise UserError(f"checkpoint {path} does not exist; check the path")
    if path.name == "manifest.ocdbt" and path.is_file():
        return path.parent
    if path.is_file():
        return path
    if not path.is_dir():
        raise UserError(f"checkpoint {path} is neither a file nor a folder; name a checkpoint")
    # The store goes first: an Orbax version that wrote both kept only placeholders in the aggregate file.
    if (path / "manifest.ocdbt").is_file():
        return path
    if (path / "checkpoint").is_file():
        return path / "checkpoint"
    numbered = [(int(match[1]), entry) for entry in path.iterdir() if (match := _ENTRY.fullmatch(entry.name))]
    if numbered:
        return _locate(max(numbered)[1])
    if (path / "model.pt").is_file():
        return path / "model.pt"
    if (path / "checkpoints").is_dir():
        return _locate(path / "checkpoints")
    raise UserError(f"folder {path} holds no checkpoint ({_inside(path)}); name a file or an Orbax directory")


def _inside(path: Path) -> str:
    names = sorted(entry.name for entry in path.iterdir())
    if not names:
        return "it is empty"
    if any(_UNFINISHED in name for name in names):
        return "only a save that was interrupted"
    return f"it has {', '.join(names[:4])}{', ...' if len(names) > 4 else ''}"
