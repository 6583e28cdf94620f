"""Where things lie: names in C, the weights file, packed matrices and tables.

A matrix (K, N) is cut into panels of neighbouring outputs. A panel holds, for every input k, the weights of its outputs
one behind the other, so that one step of the product is one contiguous load; the last panel is padded with zeros. Table
rows are padded to whole cache lines. Everything begins on a cache line.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass

import numpy as np

from neurocompile.lowering.loops import LoopProgram, MatVec, Statement, accesses
from runtime.errors import InternalError

LINE = 64
HEADER = 64
MAGIC = b"NCWEIGH1"
GRAIN = 16
"""Outputs that a panel's width is a multiple of: the widest vector of any processor."""


@dataclass(frozen=True)
class Panel:
    """Neighbouring outputs of a matrix.

    Attributes:
        begin: First output.
        outputs: Number of outputs.
        width: The same, padded.
        offset: Bytes from the matrix' beginning.
    """

    begin: int
    outputs: int
    width: int
    offset: int


def panels(inputs: int, outputs: int, widest: int, item: int = 4) -> list[Panel]:
    """Cuts a matrix into panels of about equal width, at most `widest` outputs each."""
    count = -(-outputs // widest)
    width = _rounded(-(-outputs // count))
    result, offset = [], 0
    for begin in range(0, outputs, width):
        size = min(width, outputs - begin)
        padded = _rounded(size)
        result.append(Panel(begin, size, padded, offset))
        offset += padded * inputs * item
    return result


def _rounded(outputs: int) -> int:
    return -(-outputs // GRAIN) * GRAIN


def pack(matrix: np.ndarray, widest: int) -> bytes:
    """The bytes of a (K, N) float32 matrix, panel by panel."""
    inputs, outputs = matrix.shape
    parts = []
    for panel in panels(inputs, outputs, widest):
        block = np.zeros((inputs, panel.width), np.float32)
        block[:, : panel.outputs] = matrix[:, panel.begin : panel.begin + panel.outputs]
        parts.append(block.tobytes())
    return b"".join(parts)


def row_stride(width: int, item: int = 4) -> int:
    """Elements from one table row to the next, such that every row begins on a cache line."""
    per_line = LINE // item
    return -(-width // per_line) * per_line


@dataclass(frozen=True, eq=False)
class Weights:
    """The weights file.

    Attributes:
        data: Its bytes; the program's identity in the header is filled in by `sealed`.
        offsets: Buffer name -> byte offset.
    """

    data: bytes
    offsets: dict[str, int]

    def sealed(self, identity: bytes) -> bytes:
        """The file with its header."""
        header = MAGIC + identity + len(self.data).to_bytes(8, "little")
        return header.ljust(HEADER, b"\0") + self.data[HEADER:]


def lay_out(program: LoopProgram, widest: int) -> Weights:
    """Lays out all constants in the order in which the stages use them, so that a firing reads forwards.

    Args:
        program: The loops.
        widest: Widest panel of a matrix.

    Returns:
        The weights.
    """
    kinds: dict[str, str] = {}
    for statement in (statement for stage in program.stages.values() for statement in stage.statements):
        for name, kind in _constants(statement):
            if kinds.setdefault(name, kind) != kind:
                raise InternalError(f"constant {name} is used as {kinds[name]} and as {kind}")
    parts, offsets, position = [bytes(HEADER)], {}, HEADER
    # Tables last: they are large, and one row at a time is used.
    for name in sorted(kinds, key=lambda name: kinds[name] == "table"):
        array = program.weights[name]
        if kinds[name] == "matrix":
            data = pack(array, widest)
        elif kinds[name] == "table":
            rows = array.reshape(array.shape[0], -1)
            data = np.pad(rows, ((0, 0), (0, row_stride(rows.shape[1]) - rows.shape[1]))).tobytes()
        else:
            data = array.tobytes()
        data += bytes(-len(data) % LINE)
        parts.append(data)
        offsets[name] = position
        position += len(data)
    return Weights(b"".join(parts), offsets)


def _constants(statement: Statement) -> list[tuple[str, str]]:
    found = [
        (a.buffer.name, "table" if a.row else "vector") for a, _, _ in accesses(statement) if a.buffer.kind == "weight"
    ]
    return [(statement.weight.name, "matrix"), *found] if isinstance(statement, MatVec) else found


def identifier(name: str) -> str:
    """A C identifier for a name of the program."""
    return re.sub(r"\W", "_", name)


def identity(*parts: bytes) -> bytes:
    """32 bytes that tell programs apart."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(len(part).to_bytes(8, "little") + part)
    return digest.digest()
