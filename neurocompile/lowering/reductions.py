"""ONNX operators that combine elements: reductions and norms."""

from __future__ import annotations

from functools import reduce
from math import prod

import numpy as np

from neurocompile.lowering.loops import Constant
from neurocompile.lowering.operators import Call, Result, operator
from neurocompile.lowering.views import View

FEW = 4
"""A sum over so few elements is written out, so that it fuses with what is around it."""
STEPS = {"sum": "add", "mean": "add", "max": "max", "min": "min"}


@operator("ReduceSum", "ReduceMean", "ReduceMax", "ReduceMin")
def _reduce(call: Call) -> Result:
    view, axes = call.view(0), call.ints(1, "axes")
    rank = len(view.shape)
    if not axes and call.attribute("noop_with_empty_axes", 0):
        return view
    gone = set(range(rank)) if not axes else {a % rank for a in axes}
    shape = tuple(1 if d in gone else n for d, n in enumerate(view.shape))
    if not call.attribute("keepdims", 1):
        shape = tuple(n for d, n in enumerate(view.shape) if d not in gone)
    count = prod(view.shape[d] for d in gone)
    if count == 1:
        return call.builder.reshape(view, shape)
    name = call.node.op_type[6:].lower()
    total = _combined(call, name, view, gone)
    if name == "mean":
        total = call.builder.map("mul", total, Constant(float(np.float32(1) / np.float32(count)), "float32"))
    return call.builder.reshape(total, shape)


def _combined(call: Call, name: str, view: View, gone: set[int]) -> View:
    """The fold of some axes; they are kept with size 1 unless all go."""
    wide = [d for d in gone if view.shape[d] != 1]
    rest = prod(n for d, n in enumerate(view.shape) if d not in gone)
    if rest == 1:
        return call.builder.fold("sum" if name == "mean" else name, view)
    if len(wide) == 1 and view.shape[wide[0]] <= FEW and wide[0] != len(view.shape) - 1:
        parts = [view.narrow(wide[0], k, 1) for k in range(view.shape[wide[0]])]
        return reduce(lambda a, b: call.builder.map(STEPS[name], a, b), parts)
    return call.builder.fold("sum" if name == "mean" else name, view, tuple(gone))


@operator("LayerNormalization")
def _layer_norm(call: Call) -> Result:
    """Two passes (mean, then variance of the differences), which keeps the precision of float32."""
    builder, x = call.builder, call.view(0)
    axis = call.axis(-1, len(x.shape))
    if len(call.node.outputs) != 1:
        call.refuse("it hands out its statistics")
    width = prod(x.shape[axis:])
    axes = tuple(range(axis, len(x.shape))) if prod(x.shape[:axis]) != 1 else None
    share = Constant(1 / width, "float32")
    mean = builder.map("mul", builder.fold("sum", x, axes), share)
    # The differences are made again in the second loop: x is at hand, and a buffer costs more than a subtraction.
    difference = builder.map("sub", x, mean)
    variance = builder.map("mul", builder.fold("sum", builder.map("mul", difference, difference), axes), share)
    epsilon = Constant(float(call.attribute("epsilon", 1e-5)), "float32")
    scale = builder.map("reciprocal", builder.map("sqrt", builder.map("add", variance, epsilon)))
    y = builder.map("mul", builder.map("mul", builder.map("sub", x, mean), scale), call.operand(1))
    return builder.map("add", y, call.operand(2)) if len(call.inputs) > 2 and call.inputs[2] is not None else y
