"""The loop level: what generated code is made of. Small frozen dataclasses; `interpreter` says what each one means.

A stage is a list of statements over flat buffers. There are three statements:

    Nest     independent iterations over a box; per element: `Let` a name be a load, a constant or an operation, then
             `Store` it, or `Fold` it into one element over all iterations
    MatVec   out[n] = Σ_k x[k] W[k, n], with x in one or several pieces
    (a copy is a nest of one load and one store; a view is an index map and no statement at all)

Every element that a statement touches is an affine index map: offset + row · row_stride + Σ strides[d] · i[d], where
`row` is an integer item of the front end, which makes a table row a view too.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from math import prod

import numpy as np

KINDS = ("item", "value", "state", "weight", "local")
UNARY = (
    "neg",
    "abs",
    "sqrt",
    "reciprocal",
    "exp",
    "log",
    "sin",
    "cos",
    "tanh",
    "sigmoid",
    "erf",
    "floor",
    "not",
    "relu",
)
BINARY = ("add", "sub", "mul", "div", "max", "min", "less", "less_equal", "equal", "and", "or")
OPERATIONS = dict.fromkeys(UNARY, 1) | dict.fromkeys(BINARY, 2) | {"select": 3, "cast": 1}
"""Operations and their number of operands; a comparison yields bool, `select(c, a, b)` is a where c holds, else b."""
FOLDS = ("sum", "max", "min")


@dataclass(frozen=True)
class Buffer:
    """A flat piece of memory.

    Attributes:
        name: Unique in the program; locals are unique in their stage.
        dtype: NumPy's name, e.g. `float32`.
        size: Number of elements.
        kind: `item` (front end's value), `value` (between stages), `state`, `weight` or `local` (one firing).
    """

    name: str
    dtype: str
    size: int
    kind: str


@dataclass(frozen=True)
class Access:
    """An index map into a buffer.

    Attributes:
        buffer: The buffer.
        offset: Element of iteration (0, .., 0) and row 0.
        strides: One per dimension of the nest, in elements.
        row: Name of the int64 scalar item that selects a row, or empty.
        row_stride: Elements per row.
        rows: Number of rows; `row` lies in `[0, rows)`.
    """

    buffer: Buffer
    offset: int
    strides: tuple[int, ...]
    row: str = ""
    row_stride: int = 0
    rows: int = 1

    def span(self, shape: tuple[int, ...]) -> tuple[int, int]:
        """First and last element touched in row 0."""
        reach = [stride * (size - 1) for stride, size in zip(self.strides, shape, strict=True)]
        return self.offset + sum(min(r, 0) for r in reach), self.offset + sum(max(r, 0) for r in reach)


@dataclass(frozen=True)
class Load:
    """The element under the index map."""

    access: Access


@dataclass(frozen=True)
class Constant:
    """A number."""

    value: float | int | bool
    dtype: str


@dataclass(frozen=True)
class Apply:
    """One of `OPERATIONS` on names let before; `dtype` is the result's."""

    operation: str
    operands: tuple[str, ...]
    dtype: str


@dataclass(frozen=True)
class Let:
    """Names a per-element value."""

    name: str
    value: Load | Constant | Apply


@dataclass(frozen=True)
class Store:
    """Writes a named value to the element under the index map."""

    access: Access
    name: str


@dataclass(frozen=True)
class Fold:
    """Combines a named value over all iterations into one element; `kind` is one of `FOLDS`."""

    kind: str
    access: Access
    name: str


@dataclass(frozen=True)
class Nest:
    """Independent iterations over the box `shape` (`()` is a single one)."""

    shape: tuple[int, ...]
    body: tuple[Let | Store | Fold, ...]


@dataclass(frozen=True)
class MatVec:
    """out[n] = Σ_k x[k] W[k, n].

    Attributes:
        out: Index map over (N,).
        pieces: x, as (index map over (length,), length); the lengths add up to K.
        weight: Buffer of K·N elements, row-major (K, N).
        inputs: K.
        outputs: N.
    """

    out: Access
    pieces: tuple[tuple[Access, int], ...]
    weight: Buffer
    inputs: int
    outputs: int


Statement = Nest | MatVec


@dataclass(frozen=True)
class StageLoops:
    """One stage.

    Attributes:
        name: The stage's name.
        locals: Buffers that live during one firing.
        statements: In order of execution.
    """

    name: str
    locals: tuple[Buffer, ...]
    statements: tuple[Statement, ...]


@dataclass(frozen=True, eq=False)
class LoopProgram:
    """All stages over shared buffers.

    Attributes:
        items: Buffers of the front end's values, in its order.
        values: Buffers between stages.
        states: Buffers of the states, in table order.
        weights: Constant buffers by name, with their contents.
        stages: By name, in table order.
    """

    items: tuple[Buffer, ...]
    values: tuple[Buffer, ...]
    states: tuple[Buffer, ...]
    weights: dict[str, np.ndarray] = field(repr=False)
    stages: dict[str, StageLoops]

    @property
    def multiply_adds(self) -> dict[str, int]:
        """Multiply-adds of the matrix-vector products, per firing of each stage."""
        return {
            name: sum(s.inputs * s.outputs for s in stage.statements if isinstance(s, MatVec))
            for name, stage in self.stages.items()
        }


def accesses(statement: Statement) -> Iterator[tuple[Access, tuple[int, ...], bool]]:
    """Every index map of a statement with its box, and whether it is written."""
    if isinstance(statement, MatVec):
        for access, length in statement.pieces:
            yield access, (length,), False
        yield statement.out, (statement.outputs,), True
        return
    for line in statement.body:
        if isinstance(line, Let):
            if isinstance(line.value, Load):
                yield line.value.access, statement.shape, False
        else:
            yield line.access, statement.shape if isinstance(line, Store) else (1,) * len(line.access.strides), True


def check(stage: StageLoops) -> None:
    """Raises `ValueError` if an index map leaves its buffer, a name is used too early, or an operation is unknown."""
    for statement in stage.statements:
        for access, shape, written in accesses(statement):
            low, high = access.span(shape)
            high += access.row_stride * (access.rows - 1)
            if low < 0 or high >= access.buffer.size:
                raise ValueError(f"stage {stage.name}: elements {low}..{high} of {access.buffer} do not exist")
            if written and access.buffer.kind in ("weight", "item"):
                raise ValueError(f"stage {stage.name} writes the constant {access.buffer.name}")
        if isinstance(statement, MatVec):
            if statement.weight.size != statement.inputs * statement.outputs:
                raise ValueError(
                    f"stage {stage.name}: {statement.weight} is not {statement.inputs} x {statement.outputs}"
                )
            if sum(length for _, length in statement.pieces) != statement.inputs:
                raise ValueError(f"stage {stage.name}: the pieces of x do not add up to {statement.inputs}")
        else:
            _check_names(stage.name, statement)


def _check_names(stage: str, nest: Nest) -> None:
    known: set[str] = set()
    if prod(nest.shape) < 1:
        raise ValueError(f"stage {stage} has an empty nest")
    for line in nest.body:
        if isinstance(line, Let):
            if isinstance(line.value, Apply):
                if OPERATIONS.get(line.value.operation) != len(line.value.operands):
                    raise ValueError(f"stage {stage}: {line.value} is no operation")
                if missing := [name for name in line.value.operands if name not in known]:
                    raise ValueError(f"stage {stage} uses {missing} before they are let")
            known.add(line.name)
        elif line.name not in known:
            raise ValueError(f"stage {stage} stores {line.name!r} before it is let")
