"""MATLAB 5 files: numbers, cells and structs into arrays, lists and dicts, without scipy.

file      128 bytes of header, whose last two say the byte order, then elements
element   type (u32), bytes (u32), data padded to 8 bytes; up to 4 bytes of data stand in the tag itself
matrix    elements: flags with the class, dimensions, name, and then what the class wants
"""

from __future__ import annotations

import math
import struct
import zlib
from collections.abc import Iterator
from typing import Any

import numpy as np

HEADER = 128
NUMBERS = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 9: "f8", 12: "i8", 13: "u8"}
MATRIX, COMPRESSED = 14, 15
CELL, STRUCT, NUMERIC = 1, 2, range(6, 16)
DEEPEST = 16


def load(data: bytes) -> dict[str, Any]:
    """The variables of a file by name: arrays, lists of the entries of a cell, dicts of the fields of a 1 x 1 struct.

    Variables of other classes (text, sparse, objects, larger structs) are `None`.

    Raises:
        ValueError: If the file is damaged.
    """
    order = {b"IM": "<", b"MI": ">"}.get(data[HEADER - 2 : HEADER])
    if order is None:
        raise ValueError("its header names no byte order")
    variables = {}
    try:
        for kind, content in _elements(data[HEADER:], order):
            if kind == COMPRESSED:
                kind, content = next(_elements(zlib.decompress(content), order))
            if kind == MATRIX:
                name, value = _matrix(content, order, 0)
                variables[name] = value
    except (struct.error, zlib.error, StopIteration, OverflowError) as error:
        raise ValueError(f"an element breaks off ({error})") from None
    return variables


def _elements(data: bytes, order: str) -> Iterator[tuple[int, bytes]]:
    at = 0
    while at < len(data):
        kind, size = struct.unpack_from(f"{order}II", data, at)
        if kind >> 16:
            kind, size, begin = kind & 0xFFFF, kind >> 16, at + 4
            at += 8
        else:
            begin = at + 8
            # Only compressed elements are not padded.
            at = begin + size + (-size % 8 if kind != COMPRESSED else 0)
        if begin + size > len(data):
            raise ValueError(f"an element of {size} bytes breaks off")
        yield kind, data[begin : begin + size]


def _matrix(data: bytes, order: str, depth: int) -> tuple[str, Any]:
    """Name and value of one matrix element."""
    if not data:
        return "", np.empty((0, 0))
    if depth > DEEPEST:
        raise ValueError(f"it nests cells and structs deeper than {DEEPEST}")
    elements = _elements(data, order)
    flags = struct.unpack_from(f"{order}I", next(elements)[1])[0]
    shape = np.frombuffer(next(elements)[1], f"{order}i4").tolist()
    name = next(elements)[1].decode("latin-1")
    kind = flags & 0xFF
    if min(shape, default=0) < 0:
        raise ValueError(f"matrix {name!r} has a negative size")
    if kind in NUMERIC:
        stored, content = next(elements)
        if stored not in NUMBERS:
            raise ValueError(f"matrix {name!r} is stored as unknown type {stored}")
        values = np.frombuffer(content, order + NUMBERS[stored])
        if len(values) != math.prod(shape):
            raise ValueError(f"matrix {name!r} of {shape} holds {len(values)} numbers")
        return name, values.reshape(shape, order="F")
    if kind == CELL:
        entries = [_matrix(content, order, depth + 1)[1] for _, content in elements]
        if len(entries) != math.prod(shape):
            raise ValueError(f"cell {name!r} of {shape} holds {len(entries)} entries")
        return name, entries
    if kind == STRUCT and math.prod(shape) == 1:
        (width,) = struct.unpack_from(f"{order}i", next(elements)[1])
        packed = next(elements)[1]
        if width <= 0:
            raise ValueError(f"struct {name!r} has field names of {width} bytes")
        names = [packed[at : at + width].split(b"\0")[0].decode("latin-1") for at in range(0, len(packed), width)]
        return name, {field: _matrix(next(elements)[1], order, depth + 1)[1] for field in names}
    return name, None
