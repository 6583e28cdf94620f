"""This software's own checkpoint: one .safetensors file, everything but the weights as JSON in its metadata."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from models.formats.content import Content
from runtime.errors import UserError

KEY = "neurocompile"
_LONGEST_HEADER = 100_000_000


def recognises(path: Path, start: bytes) -> bool:
    """Whether a file that begins so (or is called so) is .safetensors: the length of a JSON header, then the header."""
    return path.suffix == ".safetensors" or (
        start[8:9] == b"{" and int.from_bytes(start[:8], "little") <= _LONGEST_HEADER
    )


def read(path: Path, *, trust_pickle: bool = False) -> Content:
    """Reads every tensor and the header.

    Args:
        path: The file.
        trust_pickle: Without meaning here; the format holds no code.

    Returns:
        The tensors; `header` is `None` if other software wrote the file.

    Raises:
        UserError: If the file is cut off or damaged.
    """
    try:
        with safe_open(path, framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            metadata = file.metadata() or {}
    except (SafetensorError, OSError, ValueError) as error:
        reason = str(error).removeprefix("Error while deserializing header: ")
        raise UserError(
            f"checkpoint {path} is not a complete .safetensors file ({reason}); fetch or save it again"
        ) from error
    return Content("safetensors file", tensors, header=metadata.get(KEY))


def write(path: Path, tensors: Mapping[str, torch.Tensor], header: str) -> None:
    """Writes a file whole or not at all: under a temporary name beside it, then renamed.

    Args:
        path: The file; one that exists is replaced.
        tensors: Name -> tensor.
        header: JSON text.

    Raises:
        UserError: If the place cannot be written.
    """
    data = save({name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}, {KEY: header})
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        try:
            with temporary.open("wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        raise UserError(
            f"checkpoint {path} cannot be written: {error.strerror}; choose a place that exists and is writable"
        ) from error
