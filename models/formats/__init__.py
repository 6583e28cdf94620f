"""On-disk formats of checkpoints, one file each; `read` tells them apart by content, never by name.

Nothing here executes code from a file unless the caller says `trust_pickle`.
"""

from __future__ import annotations

import os
from pathlib import Path

from models.formats import flax_msgpack, flax_ocdbt, safetensors_file, torch_file
from models.formats.content import Content
from models.formats.folder import locate
from runtime.errors import UserError

__all__ = ["Content", "read"]

_FORMATS = (
    (safetensors_file.recognises, safetensors_file.read),
    (torch_file.recognises, torch_file.read),
    (flax_msgpack.recognises, flax_msgpack.read),
)


def read(path: str | os.PathLike[str], *, trust_pickle: bool = False) -> Content:
    """Reads a checkpoint of any known format.

    Args:
        path: A file, an Orbax checkpoint directory, or a folder of `checkpoint_<n>` entries.
        trust_pickle: Whether a pickle may run the code it asks for.

    Returns:
        The weights under the names that the file uses.

    Raises:
        UserError: If there is nothing at `path`, or nothing of a known format, or it is damaged.
    """
    entry = locate(Path(path))
    if entry.is_dir():
        return flax_ocdbt.read(entry)
    try:
        size = entry.stat().st_size
        with entry.open("rb") as file:
            start = file.read(16)
    except OSError as error:
        raise UserError(f"checkpoint {entry} cannot be read: {error.strerror}; check its permissions") from error
    if not size:
        raise UserError(f"checkpoint {entry} is empty (0 bytes), so its copy or save never finished; fetch it again")
    for recognises, reader in _FORMATS:
        if recognises(entry, start):
            return reader(entry, trust_pickle=trust_pickle)
    raise UserError(
        f"{entry} is not a checkpoint of a known format (it begins with {start[:8]!r}); known are .safetensors, "
        "PyTorch .ckpt/.pt/.pth, Flax MessagePack and Orbax directories"
    )
