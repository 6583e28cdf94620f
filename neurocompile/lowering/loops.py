"""The loop level: what generated code is made of. Small frozen dataclasses; `interpreter` says what each one means.

A stage is a list of statements over flat buffers:

    Nest       independent iterations over a box; per element: `Let` a name be a load, a constant or an operation, then
               `Store` it, or `Fold` it over the dimensions that its index map does not walk through
    MatVec     out[n] = Σ_k x[k] W[k, n], with x in one or several pieces
    MatMul     the same for every row of x; rows may overlap, which makes a convolution of it
    Rows       rows of a table, one per element of an integer vector
    Scatter    rows of a table, which such a vector names, replaced
    Attention  softmax attention that looks back and decays by a gate per step, see the op `forgetting_attention`
    (a copy is a nest of one load and one store; a view is an index map and no statement at all)

Every element that a statement touches is an affine index map: offset + row · row_stride + Σ strides[d] · i[d], where
`row` is an integer item of the front end, which makes a table row a view too.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from math import prod
from typing import Any

import numpy as np

from neurocompile.lowering.access import Access, Buffer
from neurocompile.lowering.attention import Attention

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
    """Combines a named value over all iterations that share an element; `kind` is one of `FOLDS`.

    Dimensions in which the index map has stride 0 are folded; all folds of a nest fold the same ones.
    """

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


@dataclass(frozen=True)
class MatMul:
    """out[r, n] = Σ_k x[r, k] W[k, n].

    Attributes:
        out: Index map over (R, N).
        pieces: x, as (index map over (R, length) with neighbouring inputs side by side, length).
        weight: Buffer of K·N elements, row-major (K, N).
        rows: R.
        inputs: K.
        outputs: N.
    """

    out: Access
    pieces: tuple[tuple[Access, int], ...]
    weight: Buffer
    rows: int
    inputs: int
    outputs: int


@dataclass(frozen=True)
class Rows:
    """out[r, :] = table[index[r], :].

    Attributes:
        out: Index map over (R, W).
        table: Index map over (V, W), a whole constant or state.
        index: Index map over (R,), int64, in `[0, V)`.
        rows: R.
        table_rows: V.
        width: W.
    """

    out: Access
    table: Access
    index: Access
    rows: int
    table_rows: int
    width: int


@dataclass(frozen=True)
class Scatter:
    """out[index[r], :] = x[r, :]; the other rows are those of `source`.

    Attributes:
        out: Index map over (V, W), all of a buffer.
        source: The same, perhaps of the same buffer.
        x: Index map over (R, W) with neighbouring elements side by side.
        index: Index map over (R,), int64, in `[0, V)`, no two equal.
        rows: R.
        table_rows: V.
        width: W.
    """

    out: Access
    source: Access
    x: Access
    index: Access
    rows: int
    table_rows: int
    width: int


Statement = Nest | MatVec | MatMul | Rows | Scatter | Attention


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
        """Multiply-adds of products and attention, per firing of each stage."""
        return {name: sum(map(multiply_adds, stage.statements)) for name, stage in self.stages.items()}

    @property
    def matrix_elements(self) -> dict[str, int]:
        """Elements of the matrices that a firing of each stage reads."""
        return {
            name: sum(s.inputs * s.outputs for s in stage.statements if isinstance(s, MatVec | MatMul))
            for name, stage in self.stages.items()
        }


def multiply_adds(statement: Statement) -> int:
    """Multiply-adds of a product or an attention; a nest has none that count."""
    if isinstance(statement, Attention):
        return statement.multiply_adds
    if isinstance(statement, MatVec | MatMul):
        return (statement.rows if isinstance(statement, MatMul) else 1) * statement.inputs * statement.outputs
    return 0


def accesses(statement: Statement) -> Iterator[tuple[Access, tuple[int, ...], bool]]:
    """Every index map of a statement with its box, and whether it is written."""
    if isinstance(statement, MatVec | MatMul):
        rows = (statement.rows,) if isinstance(statement, MatMul) else ()
        for access, length in statement.pieces:
            yield access, (*rows, length), False
        yield statement.out, (*rows, statement.outputs), True
        return
    if isinstance(statement, Rows):
        yield statement.table, (statement.table_rows, statement.width), False
        yield statement.index, (statement.rows,), False
        yield statement.out, (statement.rows, statement.width), True
        return
    if isinstance(statement, Scatter):
        table, values = (statement.table_rows, statement.width), (statement.rows, statement.width)
        yield from ((statement.source, table, False), (statement.x, values, False))
        yield from ((statement.index, (statement.rows,), False), (statement.out, table, True))
        return
    if isinstance(statement, Attention):
        for name, access in statement.operands.items():
            yield access, statement.boxes[name], False
        yield statement.out, statement.boxes["out"], True
        return
    for line in statement.body:
        if isinstance(line, Let):
            if isinstance(line.value, Load):
                yield line.value.access, statement.shape, False
        else:
            yield line.access, statement.shape, True


def folded(access: Access, shape: tuple[int, ...]) -> tuple[bool, ...]:
    """Which dimensions a fold into this element combines."""
    return tuple(stride == 0 for stride, _ in zip(access.strides, shape, strict=True))


def renamed(statement: Statement, old: Buffer, new: Buffer) -> Statement:
    """The statement with every index map into one buffer turned into the same map into another."""

    def access(a: Access) -> Access:
        return replace(a, buffer=new) if a.buffer == old else a

    if isinstance(statement, MatVec | MatMul):
        pieces = tuple((access(a), length) for a, length in statement.pieces)
        return replace(statement, out=access(statement.out), pieces=pieces)
    if isinstance(statement, Rows | Scatter | Attention):
        maps: dict[str, Any] = {name: access(a) for name, a in vars(statement).items() if isinstance(a, Access)}
        return replace(statement, **maps)
    body: list[Let | Store | Fold] = []
    for line in statement.body:
        if not isinstance(line, Let):
            body.append(replace(line, access=access(line.access)))
        elif isinstance(line.value, Load):
            body.append(replace(line, value=Load(access(line.value.access))))
        else:
            body.append(line)
    return replace(statement, body=tuple(body))


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
        if isinstance(statement, MatVec | MatMul):
            if statement.weight.size != statement.inputs * statement.outputs:
                raise ValueError(
                    f"stage {stage.name}: {statement.weight} is not {statement.inputs} x {statement.outputs}"
                )
            if sum(length for _, length in statement.pieces) != statement.inputs:
                raise ValueError(f"stage {stage.name}: the pieces of x do not add up to {statement.inputs}")
        elif isinstance(statement, Nest):
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
    if len({folded(line.access, nest.shape) for line in nest.body if isinstance(line, Fold)}) > 1:
        raise ValueError(f"stage {stage} folds over different dimensions in one nest")
