"""Flax MessagePack: the `checkpoint` file of an Orbax aggregate directory, and the older single file; needs no JAX.

Maps have string keys. An array is an extension value whose payload is MessagePack again:

    1  array    [shape, dtype name, bytes in C order, little endian]
    2  complex  [real, imaginary]
    3  scalar   as 1, without dimensions

An array above 2**30 bytes is a map `{__msgpack_chunked_array__: true, shape, chunks}` of flat pieces. An empty map is
the string `PLACEHOLDER://<its path>`; so is an array that a multi-device save left in a directory of its own.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from models.formats.content import Content
from models.formats.flax_state import select
from runtime.errors import UserError

_PLACEHOLDER = "PLACEHOLDER://"
_CHUNKED = "__msgpack_chunked_array__"
_ARRAY, _COMPLEX, _SCALAR = 1, 2, 3
# First byte of a map with a length of its own -> where its first key begins.
_LONG_MAPS = {0xDE: 3, 0xDF: 5}
# Closed on purpose: a dtype name is input, and numpy would accept far more than arrays of numbers.
_DTYPES = {
    **{f"float{bits}": getattr(torch, f"float{bits}") for bits in (16, 32, 64)},
    **{f"int{bits}": getattr(torch, f"int{bits}") for bits in (8, 16, 32, 64)},
    **{f"uint{bits}": getattr(torch, f"uint{bits}") for bits in (8, 16, 32, 64)},
    **{name: getattr(torch, name) for name in ("bfloat16", "bool", "complex64", "complex128")},
}


def recognises(path: Path, start: bytes) -> bool:
    """Whether a file that begins so is a MessagePack map whose first key is text."""
    if not 0x80 < start[0] <= 0x8F and start[0] not in _LONG_MAPS:
        return False
    key = start[_LONG_MAPS.get(start[0], 1) :][:1]
    return not key or 0xA0 <= key[0] <= 0xBF or 0xD9 <= key[0] <= 0xDB


def read(path: Path, *, trust_pickle: bool = False) -> Content:
    """Reads a Flax training state or a bare tree of parameters.

    Args:
        path: The file.
        trust_pickle: Without meaning here; MessagePack holds no code.

    Returns:
        `params/...` and, with batch norm, `batch_stats/...`.

    Raises:
        UserError: If the file is cut off or damaged, or holds placeholders where arrays should be.
    """
    aggregate = path.name == "checkpoint"
    tree = _unpack(path.read_bytes(), str(path))
    if not isinstance(tree, Mapping):
        raise UserError(f"checkpoint {path} holds no Flax tree but a {type(tree).__name__}; name a training checkpoint")
    leaves: dict[str, Any] = {}
    _flatten(select(tree), "", leaves, path)
    tensors = {name: _tensor(leaf, name, path) for name, leaf in leaves.items()}
    step = tree.get("step")
    if isinstance(step, _ext_type()) and (value := _tensor(step, "step", path)).numel() == 1:
        step = value.item()
    return Content(
        format="Orbax aggregate directory" if aggregate else "Flax MessagePack file",
        tensors=tensors,
        metadata={"step": step} if isinstance(step, int) else {},
    )


def _ext_type() -> Any:
    import msgpack

    return msgpack.ExtType


def _unpack(data: bytes, what: str) -> Any:
    try:
        import msgpack
    except ModuleNotFoundError as error:
        raise UserError(
            f"checkpoint {what} is Flax MessagePack, which needs the package msgpack; "
            "install it with: pip install 'neurocompile[compile]'"
        ) from error
    try:
        # unpackb bounds every length by the size of its input, so a forged length cannot ask for memory.
        return msgpack.unpackb(data, raw=False, strict_map_key=True)
    except (ValueError, msgpack.exceptions.UnpackException, RecursionError, MemoryError) as error:
        reason = str(error) or type(error).__name__
        if "incomplete" in reason or "exceeds max_" in reason:
            reason = f"the data ends early, after {len(data)} bytes"
        raise UserError(f"checkpoint {what} is damaged or cut off: {reason}; fetch or save it again") from error


def _flatten(tree: Mapping[str, Any], prefix: str, leaves: dict[str, Any], path: Path) -> None:
    for key, value in tree.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping) and _CHUNKED not in value:
            _flatten(value, f"{name}/", leaves, path)
        elif isinstance(value, str) and value.startswith(_PLACEHOLDER):
            # Empty collections of a whole training state read like this; within the parameters there are none.
            if name in ("params", "batch_stats"):
                continue
            raise UserError(
                f"checkpoint {path} has only a placeholder for {name}, because a multi-device save keeps each array in "
                "a directory of its own; save the checkpoint again from one process"
            )
        elif value is not None:
            leaves[name] = value


def _tensor(leaf: Any, name: str, path: Path) -> torch.Tensor:
    if isinstance(leaf, Mapping):
        return _joined(leaf, name, path)
    if not isinstance(leaf, _ext_type()) or leaf.code not in (_ARRAY, _COMPLEX, _SCALAR):
        raise UserError(f"{name} in checkpoint {path} is a {_kind(leaf)}, not an array; the file is no Flax checkpoint")
    payload = _unpack(leaf.data, f"{path} at {name}")
    try:
        if leaf.code == _COMPLEX:
            real, imaginary = payload
            return torch.tensor(complex(real, imaginary))
        shape, dtype, data = payload
        dtype = dtype.decode() if isinstance(dtype, bytes) else dtype
        return _array(tuple(shape), _DTYPES[dtype], data)
    except KeyError as error:
        raise UserError(
            f"{name} in checkpoint {path} has dtype {error.args[0]!r}, which is not a number type"
        ) from error
    except (TypeError, ValueError, OverflowError, RuntimeError) as error:
        reason = str(error).partition("\n")[0]
        raise UserError(f"checkpoint {path} is damaged at {name}: {reason}; fetch or save it again") from error


def _array(shape: tuple[int, ...], dtype: torch.dtype, data: bytes) -> torch.Tensor:
    if not all(type(size) is int and 0 <= size < 2**63 for size in shape):
        raise ValueError(f"shape {shape} is impossible")
    wanted = math.prod(shape) * dtype.itemsize
    if not isinstance(data, bytes) or len(data) != wanted:
        raise ValueError(f"shape {shape} needs {wanted} bytes and {len(data)} are there")
    if not wanted:
        return torch.empty(shape, dtype=dtype)
    return torch.frombuffer(bytearray(data), dtype=dtype).reshape(shape)


def _joined(leaf: Mapping[str, Any], name: str, path: Path) -> torch.Tensor:
    try:
        shape = tuple(_in_order(leaf["shape"]))
        pieces = [_tensor(piece, name, path) for piece in _in_order(leaf["chunks"])]
        return torch.cat([piece.reshape(-1) for piece in pieces]).reshape(shape)
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise UserError(f"checkpoint {path} is damaged at {name}: its pieces do not add up; fetch it again") from error


def _in_order(items: Mapping[str, Any] | list[Any]) -> list[Any]:
    if isinstance(items, Mapping):
        return [items[str(number)] for number in range(len(items))]
    return list(items)


def _kind(leaf: Any) -> str:
    return f"MessagePack extension {leaf.code}" if isinstance(leaf, _ext_type()) else type(leaf).__name__
