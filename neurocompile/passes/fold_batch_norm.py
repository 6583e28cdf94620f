"""Pass *fold batch norm*: a batch norm with running statistics is an affine map, folded into its neighbour.

    s = scale / √(var + ε),  t = bias - mean s
    BN(W x + b)  ->  (W s) x + (b s + t)             producer Conv, Gemm or MatMul with a constant weight, single use
    W BN(x)      ->  (s W) x + t W                   every user a MatMul with a constant right-hand side, features last
    BN(x)        ->  x s + t                         otherwise: two elementwise nodes

It must not fire in training mode, on statistics that are not constant or a result of unknown rank, or into a producer
whose result is used elsewhere. An axis added only for the operator's sake (Unsqueeze before, Squeeze after) goes too.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import onnx_ir.passes.common as common

from neurocompile.graphs import array_of, clean, constant, replace, shape_of
from neurocompile.naming import free
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
        if node.op_type != "BatchNormalization" or node.domain or not _is_affine(node):
            continue
        scale, bias, mean, var = (np.asarray(array_of(value), np.float64) for value in node.inputs[1:])
        s = scale / np.sqrt(var + _attribute(node, "epsilon", 1e-5))
        how = _fold(model.graph, node, s, bias - mean * s)
        changes.append(Change("fold_batch_norm", model.graph.name or "", f"{node.name or 'batch norm'} -> {how}"))
        # What the next one looks at must not be used by this one any more.
        common.RemoveUnusedNodesPass()(model)
    if changes:
        clean(model)
    return changes


def _is_affine(node: ir.Node) -> bool:
    """Whether the norm is a constant affine map of a value of known rank."""
    training = _attribute(node, "training_mode", 0) or len([value for value in node.outputs if value.name]) != 1
    known = node.inputs[0] is not None and node.inputs[0].shape is not None
    return known and not training and all(array_of(value) is not None for value in node.inputs[1:])


def _attribute(node: ir.Node, name: str, default: float) -> float:
    attribute = node.attributes.get(name)
    return attribute.value if attribute is not None else default


def _fold(graph: ir.Graph, node: ir.Node, s: np.ndarray, t: np.ndarray) -> str:
    x, y = node.inputs[0], node.outputs[0]
    assert x is not None and x.shape is not None
    producer = x.producer()
    if producer is not None and _sole(x, node) and _into_producer(graph, producer, len(x.shape), s, t):
        replace(graph, y, x if producer.op_type != "MatMul" else _shifted(graph, node, x, t, producer.name or ""))
        return f"folded into {producer.name}"
    x, y = _without_axis(x, y)
    rank = len(x.shape or ())
    users = [use.node for use in y.uses()]
    if rank <= 2 and users and not y.is_graph_output() and all(_absorbs(user, y) for user in users):
        for user in users:
            _into_matmul(graph, user, x, s, t)
        return f"folded into {', '.join(user.name or '' for user in users)}"
    # The features are the last axis of a vector or matrix, the second of anything larger.
    column = (-1, *(1,) * max(rank - 2, 0))
    kind = x.dtype.numpy() if x.dtype is not None else np.float32
    factor = constant(graph, f"{node.name}/scale", s.astype(kind).reshape(column))
    scaled = _node(graph, node, "Mul", x, factor, shape=x.shape)
    replace(graph, y, _shifted(graph, node, scaled, t.reshape(column), node.name or ""))
    return "scale and shift"


def _sole(value: ir.Value, user: ir.Node) -> bool:
    return not value.is_graph_output() and [use.node for use in value.uses()] == [user]


def _without_axis(x: ir.Value, y: ir.Value) -> tuple[ir.Value, ir.Value]:
    """Looks through Unsqueeze(axis 0) -> BN -> Squeeze(axis 0) around a single vector, in any of their forms."""
    before = x.producer()
    after = [use.node for use in y.uses()]
    if before is None or before.op_type not in ("Unsqueeze", "Reshape") or len(after) != 1 or y.is_graph_output():
        return x, y
    inner = before.inputs[0]
    outer = after[0].outputs[0]
    if after[0].op_type not in ("Squeeze", "Reshape", "Gather") or inner is None:
        return x, y
    vector = shape_of(inner)
    if vector is None or len(vector) != 1 or shape_of(outer) != vector or shape_of(x) != (1, *vector):
        return x, y
    return inner, outer


def _into_producer(graph: ir.Graph, producer: ir.Node, rank: int, s: np.ndarray, t: np.ndarray) -> bool:
    """Scales the producer's weight by output channel and, where it has a bias, adds the shift to that."""
    weight = array_of(producer.inputs[1]) if len(producer.inputs) > 1 else None
    if producer.domain or weight is None:
        return False
    if producer.op_type == "MatMul":
        if rank != 2 or weight.ndim != 2:
            return False
        _replace_weight(graph, producer, weight * s)
        return True
    if producer.op_type not in ("Conv", "Gemm"):
        return False
    offset = producer.inputs[2] if len(producer.inputs) > 2 else None
    bias = array_of(offset) if offset is not None else np.zeros_like(t)
    if bias is None or _attribute(producer, "alpha", 1.0) != 1 or _attribute(producer, "beta", 1.0) != 1:
        return False
    out_axis = 0 if producer.op_type == "Conv" or _attribute(producer, "transB", 0) else 1
    column = [1] * weight.ndim
    column[out_axis] = -1
    _replace_weight(graph, producer, weight * s.reshape(column))
    if len(producer.inputs) <= 2:
        producer.resize_inputs(3)
    producer.replace_input_with(2, constant(graph, f"{producer.name}/bias", (bias * s + t).astype(weight.dtype)))
    return True


def _replace_weight(graph: ir.Graph, node: ir.Node, weight: np.ndarray) -> None:
    old = array_of(node.inputs[1])
    assert old is not None
    node.replace_input_with(1, constant(graph, f"{node.name}/weight", weight.astype(old.dtype)))


def _absorbs(user: ir.Node, y: ir.Value) -> bool:
    weight = array_of(user.inputs[1]) if user.op_type == "MatMul" and user.inputs[0] is y else None
    return weight is not None and weight.ndim == 2


def _into_matmul(graph: ir.Graph, user: ir.Node, x: ir.Value, s: np.ndarray, t: np.ndarray) -> None:
    weight, result = array_of(user.inputs[1]), user.outputs[0]
    assert weight is not None
    folded = constant(graph, f"{user.name}/weight", (s[:, None] * weight).astype(weight.dtype))
    product = _node(graph, user, "MatMul", x, folded, shape=result.shape)
    replace(graph, result, _shifted(graph, user, product, t @ weight, user.name or ""))


def _shifted(graph: ir.Graph, near: ir.Node, x: ir.Value, t: np.ndarray, stem: str) -> ir.Value:
    kind = x.dtype.numpy() if x.dtype is not None else np.float32
    return _node(graph, near, "Add", x, constant(graph, f"{stem}/shift", t.astype(kind)), shape=x.shape)


def _node(graph: ir.Graph, near: ir.Node, op: str, *inputs: ir.Value, shape: ir.Shape | None) -> ir.Value:
    """A new node before `near`, whose result has the type of its first operand."""
    name = free(f"{near.name or near.op_type}/{op}", {node.name for node in graph})
    new = ir.node(op, list(inputs), name=name)
    new.outputs[0].name = free(f"{name}:out", {value.name for node in graph for value in node.outputs})
    new.outputs[0].type, new.outputs[0].shape = inputs[0].type, shape
    graph.insert_before(near, new)
    return new.outputs[0]
