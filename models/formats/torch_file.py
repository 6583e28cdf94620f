"""PyTorch files: checkpoints of `python -m train fit`, of Lightning, and whatever else `torch.save` wrote.

They are pickles. `weights_only` reads tensors and plain containers and executes nothing; a file that needs more is
opened only for a user who trusts it.
"""

from __future__ import annotations

import re
import warnings
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from models.formats.content import Content
from models.formats.safetensors_file import KEY
from runtime.errors import UserError

_WEIGHTS = ("state_dict", "model_state_dict", "model")
_WRAPPERS = ("model.", "module.")
_COMPILED = re.compile(r"(^|\.)_orig_mod\.")
_REFUSED = re.compile(r"WeightsUnpickler error:\s*(.+)|(Trying to load unsupported GLOBAL .*)")
_GLOBAL = re.compile(r"GLOBAL (\S+)")


def recognises(path: Path, start: bytes) -> bool:
    """Whether a file that begins so is a zip archive or a pickle of protocol 2 to 5."""
    return start.startswith(b"PK\x03\x04") or (start[:1] == b"\x80" and start[1:2] in (b"\2", b"\3", b"\4", b"\5"))


def read(path: Path, *, trust_pickle: bool = False) -> Content:
    """Reads the weights of a PyTorch file.

    Averaged weights (`ema_state_dict`) are preferred where the file has them.

    Args:
        path: The file.
        trust_pickle: Whether the pickle may run the code it asks for.

    Returns:
        The tensors, without the prefix of a wrapping module.

    Raises:
        UserError: If the file is damaged, needs code without permission, or holds no weights.
    """
    saved = _load(path, trust_pickle)
    notes = []
    if isinstance(saved, Mapping):
        saved = {key: value.state_dict() if isinstance(value, nn.Module) else value for key, value in saved.items()}
    elif isinstance(saved, nn.Module):
        saved = saved.state_dict()
    if not isinstance(saved, Mapping):
        raise UserError(
            f"checkpoint {path} holds a {type(saved).__name__}, not a dictionary of tensors; save a state_dict"
        )
    header = saved.get(KEY)
    weights: Mapping[str, Any] = next((saved[key] for key in _WEIGHTS if isinstance(saved.get(key), Mapping)), saved)
    if isinstance(saved.get("ema_state_dict"), Mapping) and saved["ema_state_dict"]:
        # Whatever the average does not cover, such as counters, stays as trained.
        weights = {**weights, **saved["ema_state_dict"]}
        notes.append("averaged (EMA) weights used")
    tensors = {str(name): tensor for name, tensor in weights.items() if isinstance(tensor, torch.Tensor)}
    if isinstance(header, str):
        tensors = {name[6:]: tensor for name, tensor in tensors.items() if name.startswith("model.")}
    else:
        header = None
    tensors = _unwrapped(tensors)
    if not tensors:
        keys = ", ".join(sorted(map(str, saved))[:4]) or "nothing"
        raise UserError(f"checkpoint {path} holds no tensors (its keys: {keys}); save the model's state_dict")
    lightning = "pytorch-lightning_version" in saved
    steps = {"step": saved["global_step"]} if isinstance(saved.get("global_step"), int) else {}
    return Content("Lightning checkpoint" if lightning else "PyTorch file", tensors, header, steps, tuple(notes))


def _unwrapped(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The tensors without the names of wrapping modules: of compiled parts anywhere, of others around the whole."""
    plain = {_COMPILED.sub(r"\1", name): tensor for name, tensor in tensors.items()}
    # Names that would coincide stay apart, so that the family refuses them.
    tensors = plain if len(plain) == len(tensors) else tensors
    while tensors and (prefix := next((p for p in _WRAPPERS if all(name.startswith(p) for name in tensors)), None)):
        tensors = {name[len(prefix) :]: tensor for name, tensor in tensors.items()}
    return tensors


def _load(path: Path, trust_pickle: bool) -> Any:
    zipped = _is_zip(path)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return torch.load(path, map_location="cpu", weights_only=not trust_pickle)
    except Exception as error:  # Unpickling raises anything, and all of it means that this file cannot be read.
        reason = _reason(error)
        if code := _needed_code(path, zipped, reason):
            raise UserError(
                f"checkpoint {path} is a pickle that needs to run code ({code}) and was not opened; "
                "if you trust where it comes from, say so with --trust-pickle"
            ) from error
        if "GLOBAL" in reason:
            reason = "it ends in the middle of a name"
        raise UserError(
            f"checkpoint {path} is damaged or no PyTorch checkpoint: {reason}; fetch or save it again"
        ) from error


def _is_zip(path: Path) -> bool:
    """Whether a file is a zip archive, as PyTorch writes since 1.6; one that is damaged or without weights is refused.

    PyTorch writes checksums but does not read them, so that a flipped bit would become another network. It writes 0
    where it was told to leave them out.
    """
    with path.open("rb") as file:
        if file.read(2) != b"PK":
            return False
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
            for entry in archive.infolist():
                if entry.CRC and entry.compress_type in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                    _read_through(archive, entry)
    except (zipfile.BadZipFile, zlib.error, OSError, ValueError, EOFError, RuntimeError) as error:
        raise UserError(f"checkpoint {path} is damaged or cut off: {error}; fetch or save it again") from error
    if not any(name.endswith("data.pkl") for name in names):
        raise UserError(f"{path} is a zip archive without PyTorch weights, so no checkpoint; name another file")
    return True


def _read_through(archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> None:
    """Reads an entry to its end, where its checksum is compared."""
    with archive.open(entry) as file:
        while file.read(1 << 20):
            pass


def _reason(error: Exception) -> str:
    """The one line of an error that says what happened."""
    text = str(error).strip()
    if refused := _REFUSED.search(text):
        return (refused[1] or refused[2]).strip()
    return text.splitlines()[0].split(". ")[0].rstrip(".") if text else type(error).__name__


def _needed_code(path: Path, zipped: bool, reason: str) -> str | None:
    """What a refused pickle wanted to run; `None` if it failed for another reason."""
    if wanted := _GLOBAL.search(reason):
        # Without a zip directory a cut can fall inside a harmless name, which then looks like an unknown one; the
        # unpickler takes the last byte before the cut for the end of the line.
        module, _, name = wanted[1].rpartition(".")
        line = f"{module}\n{name}".encode()
        cut = not zipped and (not name or line in path.read_bytes()[-len(line) - 1 :])
        return None if cut else wanted[1]
    return reason if reason.startswith(("Unsupported operand", "Can only", "Trying to call")) else None
