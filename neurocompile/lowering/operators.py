"""ONNX operators as tasks and views, one function each. What is not here is refused by name."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import prod, sqrt
from typing import Any

import numpy as np
import onnx_ir as ir

from neurocompile.lowering.loops import Constant
from neurocompile.lowering.tasks import Operand, StageBuilder
from neurocompile.lowering.views import Joined, View

Value = Operand | Joined
FEW_ROWS = 4
"""Products of fewer rows than this are made row by row."""


@dataclass(frozen=True)
class Call:
    """One node: its inputs resolved, its attributes, and where tasks go."""

    node: ir.Node
    builder: StageBuilder
    inputs: Sequence[Value | None]

    @property
    def operator(self) -> str:
        """The operator's name."""
        return f"{self.node.domain}::{self.node.op_type}" if self.node.domain else self.node.op_type

    def attribute(self, name: str, default: Any) -> Any:
        """An attribute's value."""
        found = self.node.attributes.get(name)
        return default if found is None else found.value

    def refuse(self, why: str) -> Any:
        """See `StageBuilder.refuse`."""
        self.builder.refuse(self.operator, why)

    def operand(self, number: int) -> Operand:
        """An input for elementwise use."""
        value = self.inputs[number]
        if value is None:
            self.refuse(f"input {number} is missing")
        return self.builder.materialise(value) if isinstance(value, Joined) else value  # type: ignore[return-value]

    def view(self, number: int) -> View:
        """An input as a view."""
        return self.builder.materialise(self.operand(number))

    def known(self, number: int) -> np.ndarray | None:
        """The contents of an input that is constant, `None` of one that is absent."""
        value = self.inputs[number] if number < len(self.inputs) else None
        if value is None:
            return None
        if isinstance(value, Constant):
            return np.asarray(value.value, value.dtype)
        array = value.array() if isinstance(value, View) else None
        return array if array is not None else self.refuse(f"input {number} is not constant")

    def is_known(self, number: int) -> bool:
        """Whether an input is constant."""
        value = self.inputs[number]
        return isinstance(value, Constant) or (isinstance(value, View) and value.array() is not None)

    def ints(self, number: int, name: str) -> list[int] | None:
        """Whole numbers from an input (newer operator sets) or an attribute (older ones)."""
        array = self.known(number)
        values = array.reshape(-1).tolist() if array is not None else self.attribute(name, None)
        return None if values is None else [int(v) for v in values]

    def axis(self, default: int, rank: int) -> int:
        """The attribute `axis`, counted from the front."""
        return int(self.attribute("axis", default)) % max(rank, 1)


Result = Value | list[Value]
OPERATORS: dict[str, Callable[[Call], Result]] = {}


def operator(*names: str) -> Callable[[Callable[[Call], Result]], Callable[[Call], Result]]:
    """Registers a function for ONNX operators."""

    def register(function: Callable[[Call], Result]) -> Callable[[Call], Result]:
        OPERATORS.update(dict.fromkeys(names, function))
        return function

    return register


@operator("Identity", "Dropout")
def _identity(call: Call) -> Result:
    return call.inputs[0]  # type: ignore[return-value]


@operator("Constant")
def _constant(call: Call) -> Result:
    for name in ("value", "value_float", "value_int", "value_floats", "value_ints"):
        if (found := call.attribute(name, None)) is not None:
            if name == "value":
                return call.builder.constant(found.numpy())
            return call.builder.constant(np.asarray(found, np.float32 if "float" in name else np.int64))
    return call.refuse("this kind of constant is not known")


@operator("Shape")
def _shape(call: Call) -> Result:
    value = call.inputs[0]
    shape = value.shape if isinstance(value, View | Joined) else ()
    return call.builder.constant(np.asarray(shape[call.attribute("start", 0) : call.attribute("end", None)], np.int64))


@operator("ConstantOfShape")
def _constant_of_shape(call: Call) -> Result:
    fill = call.attribute("value", None)
    number = fill.numpy().reshape(()) if fill is not None else np.float32(0)
    shape = tuple(int(n) for n in np.asarray(call.known(0)).reshape(-1))
    return call.builder.constant(np.full(shape, number))


@operator("Reshape")
def _reshape(call: Call) -> Result:
    view, target = call.view(0), call.known(1)
    assert target is not None
    shape = [int(n) for n in target]
    if not call.attribute("allowzero", 0):
        shape = [view.shape[d] if n == 0 else n for d, n in enumerate(shape)]
    if -1 in shape:
        shape[shape.index(-1)] = prod(view.shape) // -prod(shape)
    return call.builder.reshape(view, tuple(shape))


@operator("Flatten")
def _flatten(call: Call) -> Result:
    view = call.view(0)
    axis = int(call.attribute("axis", 1))
    return call.builder.reshape(view, (prod(view.shape[:axis]), prod(view.shape[axis:])))


@operator("Unsqueeze")
def _unsqueeze(call: Call) -> Result:
    operand, axes = call.operand(0), call.ints(1, "axes")
    assert axes is not None
    shape = list(operand.shape) if isinstance(operand, View) else []
    rank = len(shape) + len(axes)
    for axis in sorted(a % rank for a in axes):
        shape.insert(axis, 1)
    return call.builder.reshape(operand, tuple(shape))


@operator("Squeeze")
def _squeeze(call: Call) -> Result:
    view, axes = call.view(0), call.ints(1, "axes")
    rank = len(view.shape)
    gone = {d for d, n in enumerate(view.shape) if n == 1} if axes is None else {a % rank for a in axes}
    return call.builder.reshape(view, tuple(n for d, n in enumerate(view.shape) if d not in gone))


@operator("Transpose")
def _transpose(call: Call) -> Result:
    view = call.view(0)
    return view.transpose(tuple(call.attribute("perm", None) or reversed(range(len(view.shape)))))


@operator("Expand")
def _expand(call: Call) -> Result:
    view, shape = call.view(0), call.ints(1, "shape")
    return view.broadcast(tuple(np.broadcast_shapes(view.shape, tuple(shape or ()))))


@operator("Slice")
def _slice(call: Call) -> Result:
    view = call.view(0)
    starts, ends = call.ints(1, "starts") or [], call.ints(2, "ends") or []
    axes = call.ints(3, "axes") or list(range(len(starts)))
    for start, end, axis, step in zip(starts, ends, axes, call.ints(4, "steps") or [1] * len(starts), strict=True):
        span = range(*slice(start, end, step).indices(view.shape[axis]))
        if not len(span):
            call.refuse("it selects nothing")
        view = view.narrow(axis % len(view.shape), span.start, len(span), step)
    return view


@operator("Split")
def _split(call: Call) -> Result:
    view = call.view(0)
    axis = call.axis(0, len(view.shape))
    sizes = call.ints(1, "split")
    if sizes is None:
        each = -(-view.shape[axis] // len(call.node.outputs))
        sizes = [min(each, view.shape[axis] - each * k) for k in range(len(call.node.outputs))]
    begins = np.cumsum([0, *sizes]).tolist()
    return [view.narrow(axis, begin, size) for begin, size in zip(begins, sizes, strict=False)]


@operator("Concat")
def _concat(call: Call) -> Result:
    views = tuple(call.view(k) for k in range(len(call.inputs)))
    axis = call.axis(0, len(views[0].shape))
    shape = list(views[0].shape)
    shape[axis] = sum(view.shape[axis] for view in views)
    return Joined(views, axis, tuple(shape))


@operator("Gather")
def _gather(call: Call) -> Result:
    view = call.view(0)
    axis = call.axis(0, len(view.shape))
    if call.is_known(1):
        index = np.asarray(call.known(1)) % view.shape[axis]
        if index.ndim == 0:
            return view.select(axis, int(index))
        steps = np.unique(np.diff(index)) if index.size > 1 else np.array([1])
        if index.ndim == 1 and len(steps) == 1 and steps[0] > 0:
            return view.narrow(axis, int(index[0]), index.size, int(steps[0]))
        return call.refuse("its constant indices are not evenly spaced")
    row = call.view(1)
    if row.tensor.kind == "local" and axis == 0 and view.is_whole and len(view.shape) == 2 and len(row.shape) == 1:
        return call.builder.rows(view, call.builder.whole(row))
    if row.tensor.kind == "item" and axis == 0 and view.is_whole and len(view.shape) == 2 and prod(row.shape) > 1:
        return _rows_of(call, view, row)
    if row.tensor.kind != "item" or prod(row.shape) != 1 or axis != 0 or not view.is_whole:
        call.refuse("only rows of a whole table are gathered, by a scalar of the front end")
    if not 0 < row.tensor.rows <= view.shape[0]:
        call.refuse(f"{row.tensor.name!r} is not promised to lie within the table's {view.shape[0]} rows")
    selected = view.select_row(row.tensor)
    return call.builder.reshape(selected, row.shape + selected.shape)


def _rows_of(call: Call, table: View, index: View) -> Result:
    """The rows of a table that an item of the front end names, one by one."""
    if not 0 < index.tensor.rows <= table.shape[0]:
        call.refuse(f"{index.tensor.name!r} is not promised to lie within the table's {table.shape[0]} rows")
    flat = index.reshape((prod(index.shape),))
    if flat is None or table.array() is None:
        return call.refuse("its table is not constant, or its indices are not in order")
    return call.builder.reshape(call.builder.rows(table, flat), (*index.shape, table.shape[1]))


@operator("ScatterND")
def _scatter(call: Call) -> Result:
    """Rows of a table replaced, as torch's `index_copy` along the first axis is exported."""
    table, index, x = call.view(0), call.view(1), call.view(2)
    if call.attribute("reduction", "none") != "none":
        call.refuse("it combines elements")
    if len(table.shape) != 2 or not table.is_whole or index.shape != (x.shape[0], 1) or x.shape[1:] != table.shape[1:]:
        call.refuse("only whole rows of a matrix are replaced, by one index each")
    rows = call.builder.reshape(index, (x.shape[0],))
    assert isinstance(rows, View)
    return call.builder.scatter(table, call.builder.whole(x), call.builder.whole(rows))


@operator("MatMul")
def _mat_mul(call: Call) -> Result:
    if call.is_known(1):
        weight = np.asarray(call.known(1))
        return (
            _rows_times(call, call.inputs[0], weight)
            if weight.ndim == 2
            else call.refuse("its matrix has more than 2 axes")
        )
    if call.is_known(0) and np.asarray(call.known(0)).ndim == 2:
        view = call.view(1)
        weight = np.asarray(call.known(0))
        if prod(view.shape) == weight.shape[1]:
            y = _rows_times(call, call.builder.reshape(view, (weight.shape[1],)), weight.T)
            return call.builder.reshape(y, (weight.shape[0], *view.shape[1:]))
    return call.refuse("one side must be a constant matrix")


@operator("Gemm")
def _gemm(call: Call) -> Result:
    weight = np.asarray(call.known(1))
    weight = (weight.T if call.attribute("transB", 0) else weight) * np.float32(call.attribute("alpha", 1.0))
    if call.attribute("transA", 0):
        call.refuse("its left side is transposed")
    y = _rows_times(call, call.inputs[0], weight)
    if len(call.inputs) < 3 or call.inputs[2] is None:
        return y
    if call.attribute("beta", 1.0) != 1:
        call.refuse("it scales its bias")
    return call.builder.map("add", y, call.operand(2))


def _rows_times(call: Call, x: Value | None, weight: np.ndarray) -> View:
    """Every row of x times a (K, N) matrix."""
    builder, (inputs, outputs) = call.builder, weight.shape
    assert x is not None
    last = isinstance(x, Joined) and x.axis == len(x.shape) - 1
    if isinstance(x, Joined) and (prod(x.shape) == inputs or last):
        parts: tuple[View, ...] = x.pieces
    else:
        parts = (builder.materialise(x),)
    shape = x.shape if isinstance(x, View | Joined) else ()
    rows = prod(shape) // inputs
    pieces = []
    for part in parts:
        own = (rows, part.shape[-1]) if rows > 1 else (prod(part.shape),)
        pieces.append(builder.materialise(builder.reshape(part, own)))
    if rows == 1:
        return builder.mat_vec(tuple(pieces), weight).reshape((*shape[:-1], outputs))  # type: ignore[return-value]
    if rows >= FEW_ROWS:
        return builder.mat_mul(tuple(pieces), weight).reshape((*shape[:-1], outputs))  # type: ignore[return-value]
    results = [builder.mat_vec(tuple(piece.select(0, row) for piece in pieces), weight) for row in range(rows)]
    stacked = Joined(tuple(y.reshape((1, outputs)) for y in results), 0, (rows, outputs))  # type: ignore[misc]
    return builder.materialise(stacked).reshape((*shape[:-1], outputs))  # type: ignore[return-value]


@operator("BatchNormalization")
def _batch_norm(call: Call) -> Result:
    scale, bias, mean, var = (np.asarray(call.known(k), np.float64) for k in range(1, 5))
    if len(call.node.outputs) != 1:
        call.refuse("it is in training mode")
    x = call.view(0)
    factor = scale / np.sqrt(var + float(call.attribute("epsilon", 1e-5)))
    shape = (-1, *(1,) * max(len(x.shape) - 2, 0))
    weight, shift = (call.builder.constant(v.astype(np.float32).reshape(shape)) for v in (factor, bias - mean * factor))
    return call.builder.map("add", call.builder.map("mul", x, weight), shift)


@operator("Gelu")
def _gelu(call: Call) -> Result:
    """tanh form: x/2 (1 + tanh a) = x sigmoid(2a) with a = √(2/π) (x + 0.044715 x³)."""
    builder, x = call.builder, call.operand(0)
    if call.attribute("approximate", "none") != "tanh":
        half = builder.map("mul", x, Constant(0.5, "float32"))
        error = builder.map("erf", builder.map("mul", x, Constant(sqrt(0.5), "float32")))
        return builder.map("mul", half, builder.map("add", error, Constant(1.0, "float32")))
    factor = 2 * sqrt(2 / np.pi)
    square = builder.map("mul", x, x)
    inner = builder.map(
        "add", builder.map("mul", square, Constant(factor * 0.044715, "float32")), Constant(factor, "float32")
    )
    return builder.map("mul", x, builder.map("sigmoid", builder.map("mul", x, inner)))
