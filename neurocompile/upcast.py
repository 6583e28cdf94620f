"""A typed graph as float32 nodes that round where the typed graph rounds, for runtimes without the typed kernels.

Derived mechanically, so that it says something about the graph that ships:

    Cast to the low precision        ->  Cast there and back to float32 (a rounding)
    Cast from it to float32          ->  Identity
    any other node in low precision  ->  the same node in float32, then a rounding
    weight in low precision          ->  the same numbers in float32
    QuantizeLinear                   ->  Div, then Round and Clip (int8) or Cast there and back (fp8)
    DequantizeLinear                 ->  Mul

What it cannot show is how a kernel adds up inside one node; here sums are float32, as TensorRT's are for both 16-bit
formats and fp8; those of int8 are whole numbers there, which float32 holds exactly up to 2^24.
"""

from __future__ import annotations

from collections import Counter

import numpy as np
import onnx_ir as ir

from neurocompile.graphs import is_constant
from neurocompile.ops.emit import Emitter
from runtime.errors import InternalError

LOW = (ir.DataType.BFLOAT16, ir.DataType.FLOAT16)
QUANTISED = ("QuantizeLinear", "DequantizeLinear")


def upcast(model: ir.Model) -> ir.Model:
    """The float32 form of a typed graph.

    Args:
        model: The graph as shipped; it is not changed.

    Returns:
        A graph of the same inputs and outputs, which must not be in low precision.

    Raises:
        InternalError: If the nodes of the two do not correspond one to one.
    """
    made = model.clone()
    graph = made.graph
    for node in [node for node in graph if node.op_type in QUANTISED]:
        _plain(graph, node)
    kinds = {value: value.dtype for node in graph for value in node.outputs}
    if low := [value.name for value in (*graph.inputs, *graph.outputs) if value.dtype in LOW]:
        raise InternalError(f"graph {graph.name!r} takes or gives {', '.join(map(str, low))} in low precision")
    for value in graph.initializers.values():
        if value.dtype in LOW and value.const_value is not None:
            value.const_value = ir.Tensor(value.const_value.numpy().astype("float32"), name=value.name)
            value.type = ir.TensorType(ir.DataType.FLOAT)
    roundings = 0
    for node in list(graph):
        if node.op_type == "Cast" and node.inputs[0] is not None and kinds.get(node.inputs[0]) in LOW:
            _undo(graph, node)
        for value in node.outputs:
            if kinds[value] in LOW:
                _round(graph, node, value)
                roundings += 1
    check(model, made, roundings)
    return made


def check(shipped: ir.Model, derived: ir.Model, roundings: int) -> None:
    """Raises `InternalError` unless every node of `shipped` has its own in `derived` and only roundings were added."""
    before, after = _kinds(shipped), _kinds(derived)
    casts = sum(value.dtype in LOW for node in shipped.graph if node.op_type == "Cast" for value in node.outputs)
    results = sum(value.dtype in LOW for node in shipped.graph for value in node.outputs)
    after["Cast"] -= 2 * roundings - casts
    for node in (node for node in shipped.graph if node.op_type in QUANTISED):
        before -= Counter([node.op_type])
        before += _kinds_of(node)
    if roundings != results or +before != +after:
        raise InternalError(
            f"the float32 form of graph {shipped.graph.name!r} is not the graph: {before - after} lost, "
            f"{after - before} more, {roundings} roundings for {results} results in low precision"
        )


def _kinds(model: ir.Model) -> Counter[str]:
    """How many nodes of each kind; an Identity stands for a Cast that was undone."""
    return Counter("Cast" if node.op_type == "Identity" else node.op_type for node in model.graph)


def _kinds_of(node: ir.Node) -> Counter[str]:
    """What stands for QuantizeLinear and DequantizeLinear."""
    if node.op_type == "DequantizeLinear":
        return Counter(["Mul"])
    return Counter(["Div", "Round", "Clip"] if node.outputs[0].dtype == ir.DataType.INT8 else ["Div", "Cast", "Cast"])


def _plain(graph: ir.Graph, node: ir.Node) -> None:
    """Rounding to 8 bits and back in plain operators; all zero points are zero."""
    value, scale, zero = node.inputs
    old, kind = node.outputs[0], node.outputs[0].dtype
    if zero is None or zero.const_value is None or zero.const_value.numpy().astype("float32").any():
        raise InternalError(f"{node.name} of graph {graph.name!r} has a zero point, which no form here keeps")
    emit = Emitter(graph, node)
    if node.op_type == "DequantizeLinear":
        assert value is not None and scale is not None
        if value.const_value is not None and is_constant(value):
            value = emit.constant(value.const_value.numpy().astype("float32"))
        axis = node.attributes["axis"].value if "axis" in node.attributes else None
        if axis is not None and scale.const_value is not None and scale.shape:
            shape = [-1 if place == axis else 1 for place in range(len(value.shape or ()))]
            scale = emit.constant(scale.const_value.numpy().reshape(shape))
        new = emit("Mul", value, scale)
    elif kind == ir.DataType.INT8:
        least, most = (emit.constant(np.array(limit, np.float32)) for limit in (-128, 127))
        new = emit("Clip", emit("Round", emit("Div", value, scale)), least, most)
    else:
        new = emit("Cast", emit("Cast", emit("Div", value, scale), to=int(kind)), to=int(ir.DataType.FLOAT))
    new.shape, new.type = old.shape, ir.TensorType(ir.DataType.FLOAT)
    ir.convenience.replace_all_uses_with(old, new)
    graph.remove(node, safe=True)


def _undo(graph: ir.Graph, node: ir.Node) -> None:
    """A cast from low precision to float32 changes nothing any more; to anything else it stays."""
    if ir.DataType(node.attributes["to"].value) != ir.DataType.FLOAT:
        return
    identity = ir.node("Identity", [node.inputs[0]], name=node.name)
    old, new = node.outputs[0], identity.outputs[0]
    new.name, new.shape, new.type = old.name, old.shape, old.type
    old.name = f"{old.name}/undone"
    graph.insert_before(node, identity)
    ir.convenience.replace_all_uses_with(old, new, replace_graph_outputs=True)
    graph.remove(node, safe=True)


def _round(graph: ir.Graph, node: ir.Node, value: ir.Value) -> None:
    """Puts a rounding behind a result; a cast to low precision is half of one already."""
    kind = value.dtype
    narrow = None if node.op_type == "Cast" else ir.node("Cast", [value], {"to": int(kind)}, name=f"{value.name}/round")
    wide = ir.node("Cast", [narrow.outputs[0] if narrow else value], {"to": 1}, name=f"{value.name}/widen")
    for new in (narrow, wide):
        if new is not None:
            new.outputs[0].name, new.outputs[0].shape = f"{new.name}:out", value.shape
            new.outputs[0].type = ir.TensorType(kind if new is narrow else ir.DataType.FLOAT)
    users = [use for use in value.uses() if use.node not in (narrow, wide)]
    graph.insert_after(node, [new for new in (narrow, wide) if new is not None])
    for use in users:
        use.node.replace_input_with(use.idx, wide.outputs[0])
    if narrow is not None:
        value.type = ir.TensorType(ir.DataType.FLOAT)
