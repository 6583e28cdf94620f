"""Where things lie: names in C, the weights file, matrices in panels, tables in rows.

A matrix (K, N) is cut into panels of neighbouring outputs, see `formats`; the last panel is padded with zeros. Table
rows are padded to whole cache lines. Everything begins on a cache line.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass, field

import numpy as np

from neurocompile.lowering.loops import LoopProgram, MatMul, MatVec, Rows, Statement, accesses
from neurocompile.targets.cpu.placement.formats import Format, quantise, to_bf16
from runtime.errors import InternalError

LINE = 64
HEADER = 64
MAGIC = b"NCWEIGH1"
GRAIN = 16
"""Outputs that a panel's width is a multiple of: the widest vector of any processor."""
ITEM_BYTES = {"float32": 4, "bf16": 2}
SMALL_TABLE = 2 << 20
"""Bytes of a float32 table up to which it stays one: its rows come from a near cache, and half as many save no time."""


@dataclass(frozen=True)
class Panel:
    """Neighbouring outputs of a matrix.

    Attributes:
        begin: First output.
        outputs: Number of outputs.
        width: The same, padded.
        offset: Bytes from the matrix' beginning.
        scales: For 8-bit weights: bytes from the matrix' beginning to the scales, one float per padded output.
    """

    begin: int
    outputs: int
    width: int
    offset: int
    scales: int


def panels(product: MatVec | MatMul, widest: int, form: Format) -> list[Panel]:
    """Cuts a product's matrix into panels of about equal width, at most `widest` outputs each."""
    count = -(-product.outputs // widest)
    width = _rounded(-(-product.outputs // count))
    step = form.steps([length for _, length in product.pieces]) * form.step_bytes
    scales = sum(_rounded(min(width, product.outputs - b)) for b in range(0, product.outputs, width)) * step
    result, offset, done = [], 0, 0
    for begin in range(0, product.outputs, width):
        size = min(width, product.outputs - begin)
        result.append(Panel(begin, size, _rounded(size), offset, scales + 4 * done))
        offset += _rounded(size) * step
        done += _rounded(size)
    return result


def _rounded(outputs: int) -> int:
    return -(-outputs // GRAIN) * GRAIN


def pack(product: MatVec | MatMul, matrix: np.ndarray, widest: int, form: Format) -> bytes:
    """The bytes of a (K, N) float32 matrix, panel by panel, and its scales if it has any."""
    pieces = [length for _, length in product.pieces]
    numbers, scales = quantise(matrix) if form.name == "int8" else (matrix, None)
    parts, padded_scales = [], []
    for panel in panels(product, widest, form):
        own = slice(panel.begin, panel.begin + panel.outputs)
        block = np.zeros((product.inputs, panel.width), numbers.dtype)
        block[:, : panel.outputs] = numbers[:, own]
        parts.append(form.pack(block, pieces))
        if scales is not None:
            padded_scales.append(np.pad(scales[own], (0, panel.width - panel.outputs)).tobytes())
    return b"".join([*parts, *padded_scales])


def row_stride(width: int, storage: str) -> int:
    """Elements from one table row to the next, such that every row begins on a cache line."""
    per_line = LINE // ITEM_BYTES[storage]
    return -(-width // per_line) * per_line


@dataclass(frozen=True, eq=False)
class Weights:
    """The weights file.

    Attributes:
        data: Its bytes; the program's identity in the header is filled in by `sealed`.
        offsets: Buffer name -> byte offset.
        storage: Buffer name -> `bf16`, where it is not kept as declared.
        largest: Buffer name -> largest absolute value, of float32 vectors.
    """

    data: bytes
    offsets: dict[str, int]
    storage: dict[str, str]
    largest: dict[str, float] = field(default_factory=dict)

    def sealed(self, identity: bytes) -> bytes:
        """The file with its header."""
        header = MAGIC + identity + len(self.data).to_bytes(8, "little")
        return header.ljust(HEADER, b"\0") + self.data[HEADER:]


def lay_out(program: LoopProgram, widest: int, form: Format, widest_of_many: int = 0) -> Weights:
    """Lays out all constants in the order in which the stages use them, so that a firing reads forwards.

    Args:
        program: The loops.
        widest: Widest panel of a matrix.
        form: How matrices and tables are kept.
        widest_of_many: The same for products of many rows.

    Returns:
        The weights.
    """
    kinds: dict[str, str] = {}
    products: dict[str, MatVec | MatMul] = {}
    for statement in (statement for stage in program.stages.values() for statement in stage.statements):
        for name, kind in _constants(statement):
            if kinds.setdefault(name, kind) != kind:
                raise InternalError(f"constant {name} is used as {kinds[name]} and as {kind}")
        if isinstance(statement, MatVec | MatMul):
            before = products.setdefault(statement.weight.name, statement)
            if [length for _, length in before.pieces] != [length for _, length in statement.pieces]:
                raise InternalError(f"matrix {statement.weight.name} is used with inputs in different pieces")
    parts, offsets, storage, position = [bytes(HEADER)], {}, {}, HEADER
    # Tables last: they are large, and one row at a time is used.
    for name in sorted(kinds, key=lambda name: kinds[name] == "table"):
        array = program.weights[name]
        if name in products:
            data = pack(products[name], array, widest if kinds[name] == "matrix" else widest_of_many, form)
        elif kinds[name] == "table" and array.dtype == np.float32:
            storage[name] = table_storage(array.size, form)
            data = _table(array.reshape(array.shape[0], -1), storage[name])
        else:
            data = array.tobytes()
        data += bytes(-len(data) % LINE)
        parts.append(data)
        offsets[name] = position
        position += len(data)
    vectors = {name: program.weights[name] for name, kind in kinds.items() if kind == "vector"}
    largest = {name: float(np.abs(v).max()) for name, v in vectors.items() if v.size and v.dtype == np.float32}
    return Weights(b"".join(parts), offsets, storage, largest)


def table_storage(elements: int, form: Format) -> str:
    """How the rows of a float32 table of so many elements are kept."""
    return form.table if elements * ITEM_BYTES["float32"] > SMALL_TABLE else "float32"


def _table(rows: np.ndarray, storage: str) -> bytes:
    padded = np.pad(rows, ((0, 0), (0, row_stride(rows.shape[1], storage) - rows.shape[1])))
    return (to_bf16(padded) if storage == "bf16" else padded).tobytes()


def _constants(statement: Statement) -> list[tuple[str, str]]:
    """The constants of a statement and what they are to it."""
    if isinstance(statement, Rows) and statement.table.buffer.kind == "weight":
        return [(statement.table.buffer.name, "table")]
    constant = [access for access, _, _ in accesses(statement) if access.buffer.kind == "weight"]
    found = [(access.buffer.name, "table" if access.row else "vector") for access in constant]
    if isinstance(statement, MatVec | MatMul):
        found.append((statement.weight.name, "matrix" if isinstance(statement, MatVec) else "matrix of many rows"))
    return found


def identifier(name: str) -> str:
    """A C identifier for a name of the program."""
    return re.sub(r"\W", "_", name)


def identity(*parts: bytes) -> bytes:
    """32 bytes that tell programs apart."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(len(part).to_bytes(8, "little") + part)
    return digest.digest()
