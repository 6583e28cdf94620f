"""Orbax OCDBT directory: a TensorStore key-value store with one Zarr array per leaf; needs the package tensorstore.

The key of a leaf is its path joined by dots, `params.decoder.kernel/`. Optimiser state is not read.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from models.formats.content import Content
from runtime.errors import UserError

# Zarr's own descriptions of an array, by version, and the TensorStore driver that reads it.
_DRIVERS = {".zarray": "zarr", "zarr.json": "zarr3"}
_COLLECTIONS = {"params": "params", "batch_stats": "batch_stats", "model_state.batch_stats": "batch_stats"}


def read(path: Path) -> Content:
    """Reads the parameters and running statistics of an Orbax OCDBT checkpoint.

    Args:
        path: The directory that contains `manifest.ocdbt`.

    Returns:
        `params/...` and, with batch norm, `batch_stats/...`.

    Raises:
        UserError: If tensorstore is missing, or a part of the store is missing or damaged.
    """
    try:
        import tensorstore
    except ModuleNotFoundError as error:
        raise UserError(
            f"checkpoint {path} is an Orbax OCDBT directory, which needs the package tensorstore; "
            "install it with: pip install 'neurocompile[flax]'"
        ) from error
    store: dict[str, Any] = {"driver": "ocdbt", "base": path.absolute().as_uri() + "/"}
    try:
        keys = [key.decode() for key in tensorstore.KvStore.open(store).result().list().result()]
        pending = {}
        for key in keys:
            if (leaf := _leaf(key)) is None:
                continue
            # A chunk that is missing is an error: read as zeros it would be a model that is silently wrong.
            spec = {"kvstore": {**store, "path": key[: key.rindex("/") + 1]}, "fill_missing_data_reads": False}
            pending[leaf.name] = tensorstore.open({"driver": leaf.driver, **spec}, open=True, read=True).result().read()
        tensors = {name: _tensor(future.result(), name, path) for name, future in pending.items()}
        step = tensors.pop("step", None)
    except (ValueError, OSError, RuntimeError, UnicodeDecodeError) as error:
        reason = str(error).split("[")[0].strip().rstrip(".:")
        raise UserError(f"checkpoint {path} is damaged or incomplete: {reason}; fetch or save it again") from error
    return Content("Orbax OCDBT directory", tensors, metadata={} if step is None else {"step": int(step)})


class _Leaf(NamedTuple):
    name: str
    driver: str


def _leaf(key: str) -> _Leaf | None:
    """The flat name and driver of the array that a key describes; `None` for other keys."""
    leaf, _, last = key.rpartition("/")
    if last in _DRIVERS:
        if leaf == "step":
            return _Leaf(leaf, _DRIVERS[last])
        for prefix, collection in _COLLECTIONS.items():
            if leaf.startswith(f"{prefix}."):
                return _Leaf(f"{collection}/{leaf[len(prefix) + 1 :].replace('.', '/')}", _DRIVERS[last])
    return None


def _tensor(array: np.ndarray, name: str, path: Path) -> torch.Tensor:
    try:
        return torch.from_numpy(array)
    except TypeError as error:
        raise UserError(
            f"{name} in checkpoint {path} has dtype {array.dtype}, which this reader does not take; save it as float32"
        ) from error
