"""ONNX operators along a sequence: padding, convolution as a product of overlapping rows, attention."""

from __future__ import annotations

import numpy as np

from neurocompile.lowering.loops import Constant
from neurocompile.lowering.operators import Call, Result, Value, operator
from neurocompile.lowering.views import Joined, View


@operator("CastLike")
def _cast_like(call: Call) -> Result:
    operand, like = call.operand(0), call.operand(1)
    return operand if operand.dtype == like.dtype else call.builder.map("cast", operand, dtype=like.dtype)


@operator("Pad")
def _pad(call: Call) -> Result:
    view, pads, fill = call.view(0), call.ints(1, "pads"), call.known(2) if len(call.inputs) > 2 else None
    if call.attribute("mode", "constant") != "constant" or pads is None or min(pads) < 0 or len(call.inputs) > 3:
        call.refuse("only constant margins on all axes are compiled")
    assert pads is not None
    number = np.zeros((), view.dtype) if fill is None else fill.reshape(()).astype(view.dtype)
    value: Value = view
    for axis, margins in enumerate(zip(pads[: len(view.shape)], pads[len(view.shape) :], strict=True)):
        if any(margins):
            value = _margins(call, call.builder.materialise(value), axis, margins, number)
    return value


def _margins(call: Call, view: View, axis: int, margins: tuple[int, int], number: np.ndarray) -> Joined:
    """The view with `number` in front of and behind one axis."""
    filler = call.builder.weights.add(number.reshape((1,) * len(view.shape))).whole()
    shapes = [tuple(m if d == axis else n for d, n in enumerate(view.shape)) for m in margins]
    front, back = (filler.broadcast(shape) for shape in shapes)
    pieces = tuple(piece for piece in (front, view, back) if piece.shape[axis])
    size = view.shape[axis] + sum(margins)
    return Joined(pieces, axis, tuple(size if d == axis else n for d, n in enumerate(view.shape)))


@operator("Conv")
def _conv(call: Call) -> Result:
    """Positions first, channels last: output position i is the row of inputs i S .. i S + K - 1 times one matrix.

    Grouped convolutions have zeros in that matrix where a group does not look.
    """
    builder, x, weight, bias = call.builder, call.view(0), call.known(1), call.known(2)
    assert weight is not None
    if len(x.shape) != 3 or x.shape[0] != 1 or call.attribute("auto_pad", "NOTSET") not in ("NOTSET", "VALID"):
        call.refuse("only convolutions along one axis of one sequence, with margins of their own, are compiled")
    if any(d != 1 for d in call.attribute("dilations", (1,))):
        call.refuse("it skips inputs")
    outputs, per_group, taps = weight.shape
    channels, groups, step = x.shape[1], int(call.attribute("group", 1)), int(call.attribute("strides", (1,))[0])
    before, after = call.attribute("pads", (0, 0))
    positions = x.select(0, 0).transpose((1, 0))
    margins = _margins(call, positions, 0, (int(before), int(after)), np.zeros((), np.float32))
    tensor = builder.tensor(margins.shape, "float32")
    padded = tensor.whole()
    builder.write_pieces(margins, padded)
    count = (margins.shape[0] - taps) // step + 1
    rows = View(tensor, (count, taps * channels), (step * channels, 1))
    matrix = np.zeros((taps, channels, outputs), np.float32)
    for output in range(outputs):
        first = output // (outputs // groups) * per_group
        matrix[:, first : first + per_group, output] = weight[output].T
    y = builder.mat_mul((rows,), matrix.reshape(taps * channels, outputs))
    if bias is not None and bias.any():
        y = builder.map("add", y, builder.constant(bias))
    return y.reshape((1, count, outputs)).transpose((0, 2, 1))  # type: ignore[union-attr]


@operator("neurocompile::ForgettingAttention")
def _forgetting_attention(call: Call) -> Result:
    """One statement per sequence; sequences that were joined, or turned round, are read where they are."""
    builder = call.builder
    q, k, v, log_f = ([*_sequences(call, number)] for number in range(4))
    shape = (len(q), *q[0].shape)
    target = builder.tensor(shape, "float32").whole()
    if any(view.dtype != "float32" for views in (q, k, v, log_f) for view in views):
        call.refuse("it is not float32")
    for number, views in enumerate(zip(q, k, v, log_f, strict=True)):
        builder.attention(views, target.select(0, number), views[0].shape[0])
    return target


@operator("neurocompile::ForgettingAttentionSuffixes")
def _forgetting_attention_suffixes(call: Call) -> Result:
    """As above; what is known may be the same numbers for all queries."""
    builder, cut = call.builder, int(call.attribute("cut", 0))
    inputs = [[*_sequences(call, number)] for number in range(5)]
    if any(view.dtype != "float32" for views in inputs for view in views):
        call.refuse("it is not float32")
    answers = inputs[1][0].shape[0] // cut
    target = builder.tensor((len(inputs[0]), answers, *inputs[4][0].shape), "float32").whole()
    for number, views in enumerate(zip(*inputs, strict=True)):
        builder.attention(views, target.select(0, number), cut)
    return target


def _sequences(call: Call, number: int) -> list[View]:
    """An input's sequences, one view each, with neighbouring channels side by side."""
    value = call.inputs[number]
    assert value is not None and not isinstance(value, Constant)
    pieces = value.pieces if isinstance(value, Joined) and value.axis == 0 else (call.view(number),)
    views = [piece.select(0, at) for piece in pieces for at in range(piece.shape[0])]
    return [view if _dense(view) else _copied(call, view) for view in views]


def _dense(view: View) -> bool:
    return len(view.shape) == 2 or view.shape[-1] == 1 or view.strides[-1] == 1


def _copied(call: Call, view: View) -> View:
    target = call.builder.tensor(view.shape, view.dtype).whole()
    call.builder.copy(view, target)
    return target
