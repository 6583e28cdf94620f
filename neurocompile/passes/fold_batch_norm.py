"""Pass *fold batch norm*: a batch norm with running statistics is an affine map, folded into its neighbour.

    s = scale / √(var + ε),  t = bias - mean s
    BN(W x + b)  ->  (W s) x + (b s + t)             producer Conv, Gemm or MatMul with a constant weight, single use
    W BN(x)      ->  (s W) x + t W                   every user a MatMul with a constant right-hand side
    BN(x)        ->  x s + t                         otherwise: two elementwise nodes

It must not fire in training mode (more than one output), on statistics that are not constant, or into a producer whose
result is used elsewhere. Axes added only for the operator's sake (Unsqueeze before, Squeeze after) go with it.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from neurocompile.graphs import array_of, clean, constant, shape_of
from neurocompile.passes.report import Change


def fold_batch_norm(model: ir.Model) -> list[Change]:
    """Rewrites one graph in place.

    Args:
        model: The graph, after *hoist* or not.

    Returns:
        One change per batch norm.
    """
    changes = []
    for node in list(model.graph):
        if node.op_type != "BatchNormalization" or len(node.outputs) != 1 or _attribute(node, "training_mode", 0):
            continue
        arrays = [array_of(value) for value in node.inputs[1:]]
        if any(array is None for array in arrays):
            continue
        scale, bias, mean, var = (np.asarray(array, np.float64) for array in arrays)
        s = scale / np.sqrt(var + _attribute(node, "epsilon", 1e-5))
        how = _fold(model.graph, node, s, bias - mean * s)
        changes.append(Change("fold_batch_norm", model.graph.name or "", f"{node.name} -> {how}"))
    if changes:
        clean(model)
    return changes


def _attribute(node: ir.Node, name: str, default: float) -> float:
    attribute = node.attributes.get(name)
    return attribute.value if attribute is not None else default


def _fold(graph: ir.Graph, node: ir.Node, s: np.ndarray, t: np.ndarray) -> str:
    x, y = node.inputs[0], node.outputs[0]
    assert x is not None
    producer = x.producer()
    if producer is not None and _sole(x, node) and _into_producer(graph, producer, s, t):
        _replace(graph, y, x)
        return f"folded into {producer.name}"
    x, y = _without_axis(x, y)
    users = [use.node for use in y.uses()]
    if users and not y.is_graph_output() and all(_absorbs(user, y) for user in users):
        for user in users:
            _into_matmul(graph, user, x, s, t)
        return f"folded into {', '.join(user.name or '' for user in users)}"
    rank = len(shape_of(x) or (0,))
    column = (-1,) if rank <= 2 else (-1, *(1,) * (rank - 2))
    kind = x.dtype.numpy() if x.dtype is not None else np.float32
    scaled = _node(graph, node, "Mul", x, constant(graph, f"{node.name}/scale", s.astype(kind).reshape(column)))
    shifted = _node(graph, node, "Add", scaled, constant(graph, f"{node.name}/shift", t.astype(kind).reshape(column)))
    _replace(graph, y, shifted)
    return "scale and shift"


def _sole(value: ir.Value, user: ir.Node) -> bool:
    return not value.is_graph_output() and [use.node for use in value.uses()] == [user]


def _without_axis(x: ir.Value, y: ir.Value) -> tuple[ir.Value, ir.Value]:
    """Looks through Unsqueeze(axis 0) -> BN -> Squeeze(axis 0) around a single vector."""
    before = x.producer()
    after = [use.node for use in y.uses()]
    if before is None or before.op_type not in ("Unsqueeze", "Reshape") or len(after) != 1 or y.is_graph_output():
        return x, y
    inner = before.inputs[0]
    outer = after[0].outputs[0]
    if after[0].op_type not in ("Squeeze", "Reshape") or inner is None:
        return x, y
    vector = shape_of(inner)
    if vector is None or len(vector) != 1 or shape_of(outer) != vector or shape_of(x) != (1, *vector):
        return x, y
    return inner, outer


def _into_producer(graph: ir.Graph, producer: ir.Node, s: np.ndarray, t: np.ndarray) -> bool:
    """Scales the producer's weight by output channel and adds the shift to its bias."""
    if producer.op_type not in ("Conv", "Gemm") or producer.domain:
        return False
    weight = array_of(producer.inputs[1])
    offset = producer.inputs[2] if len(producer.inputs) > 2 else None
    bias = array_of(offset) if offset is not None else np.zeros_like(t)
    if weight is None or bias is None or _attribute(producer, "alpha", 1.0) != 1 or _attribute(producer, "beta", 1.0) != 1:
        return False
    out_axis = 0 if producer.op_type == "Conv" or _attribute(producer, "transB", 0) else 1
    column = [1] * weight.ndim
    column[out_axis] = -1
    new_weight = (weight * s.reshape(column)).astype(weight.dtype)
    new_bias = (bias * s + t).astype(weight.dtype)
    producer.replace_input_with(1, constant(graph, f"{producer.name}/weight", new_weight))
    folded = constant(graph, f"{producer.name}/bias", new_bias)
    if len(producer.inputs) <= 2:
        producer.resize_inputs(3)
    producer.replace_input_with(2, folded)
    return True


def _absorbs(user: ir.Node, y: ir.Value) -> bool:
    weight = array_of(user.inputs[1]) if user.op_type == "MatMul" and user.inputs[0] is y else None
    return weight is not None and weight.ndim == 2


def _into_matmul(graph: ir.Graph, user: ir.Node, x: ir.Value, s: np.ndarray, t: np.ndarray) -> None:
    weight = array_of(user.inputs[1])
    assert weight is not None
    result = user.outputs[0]
    folded = constant(graph, f"{user.name}/weight", (s[:, None] * weight).astype(weight.dtype))
    shift = constant(graph, f"{user.name}/shift", (t @ weight).astype(weight.dtype))
    product = _node(graph, user, "MatMul", x, folded, before=True)
    _replace(graph, result, _node(graph, user, "Add", product, shift, before=True))


def _node(graph: ir.Graph, near: ir.Node, op: str, *inputs: ir.Value, before: bool = False) -> ir.Value:
    """A new node beside `near`, typed like its output."""
    new = ir.node(op, list(inputs), name=f"{near.name}/{op}")
    new.outputs[0].name = f"{near.outputs[0].name}/{op}"
    new.outputs[0].dtype, new.outputs[0].shape = near.outputs[0].dtype, inputs[0].shape if op != "MatMul" else near.outputs[0].shape
    graph.insert_before(near, new)
    return new.outputs[0]


def _replace(graph: ir.Graph, old: ir.Value, new: ir.Value) -> None:
    """Redirects every user of `old`, and keeps the name where `old` was a graph output."""
    if old.is_graph_output():
        position = list(graph.outputs).index(old)
        name, old.name = old.name, f"{old.name}_before"
        identity = ir.node("Identity", [new], name=f"{name}_out")
        identity.outputs[0].name, identity.outputs[0].dtype, identity.outputs[0].shape = name, old.dtype, old.shape
        graph.append(identity)
        graph.outputs[position] = identity.outputs[0]
    ir.convenience.replace_all_uses_with(old, new)
