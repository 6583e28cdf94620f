"""Pass *native*: op nodes become plain layers of static shape, other functions their bodies, and no loop remains.

    neurocompile::DiagonalScan          ->  ceil(log2 T) rounds of multiply-adds
    neurocompile::ForgettingAttention   ->  blocks of MatMul, Softmax, MatMul with the decay added in between
    neurocompile::ForgettingAttentionSuffixes
                                        ->  the same for every part of the keys, and what combines the parts
    neurocompile::GatedLinearAttention  ->  blocks of products and the state between them
    neurocompile::LIF                   ->  T steps one after the other
    CastLike                            ->  Cast, or nothing

It must not fire on a graph with open shapes (the layers depend on the number of steps), nor where the target has an
implementation of the op itself. A graph that still holds a loop or a branch afterwards is refused.
"""

from __future__ import annotations

from importlib import import_module

import onnx_ir as ir
import onnx_ir.passes.common as common

from neurocompile.graphs import NESTED, clean, shape_of
from neurocompile.normalise import normalise
from neurocompile.ops.emit import Emitter
from neurocompile.passes.report import Change
from runtime.errors import InternalError, UserError

STATIC = {
    "DiagonalScan": "diagonal_scan",
    "ForgettingAttention": "forgetting_attention",
    "ForgettingAttentionSuffixes": "forgetting_attention_suffixes",
    "GatedLinearAttention": "gated_linear_attention",
    "LIF": "lif",
}


def native(model: ir.Model, keep: frozenset[str] = frozenset()) -> list[Change]:
    """Rewrites one graph in place.

    Args:
        model: The graph, float32 and of static shapes.
        keep: Names of op nodes that stay, without their function bodies, because the target has plugins for them.

    Returns:
        One change per op node.

    Raises:
        UserError: If control flow remains, because an op has no static form.
    """
    graph, changes = model.graph, []
    for node in list(graph):
        if node.domain != "neurocompile" or node.op_type not in STATIC or node.name in keep:
            continue
        shapes = [shape_of(value) if value is not None else None for value in node.inputs]
        if any(shape is None for shape in shapes):
            raise InternalError(f"{node.name} of stage {graph.name!r} has operands of unknown shape")
        emit = Emitter(graph, node)
        before = len(graph)
        expand = import_module(f"neurocompile.ops.{STATIC[node.op_type]}.onnx_static").expand
        for old, new in zip(node.outputs, expand(emit, node, shapes), strict=True):
            new.type, new.shape = old.type, old.shape
            if old.is_graph_output():
                new.name, old.name = old.name, f"{old.name}/replaced"
            ir.convenience.replace_all_uses_with(old, new, replace_graph_outputs=True)
        graph.remove(node, safe=True)
        changes.append(Change("native", graph.name or "", f"{node.name} -> {len(graph) - before + 1} nodes"))
    for kept in {node.op_identifier() for node in graph if node.name in keep}:
        model.functions.pop(kept, None)
    common.InlinePass()(model)
    infer(model)
    normalise(model)
    clean(model)
    infer(model)
    loops = sorted({n.op_type for n in graph if any(a.type in NESTED for a in n.attributes.values())})
    if loops:
        raise UserError(f"stage {graph.name!r} holds control flow ({', '.join(loops)}), which has no static form")
    return changes


def infer(model: ir.Model) -> None:
    """States the type and shape of every value."""
    common.ShapeInferencePass(data_prop=False)(model)
    for node in model.graph:
        for value in node.outputs:
            if value.name and (value.dtype is None or shape_of(value) is None):
                raise InternalError(f"{value.name} of stage {model.graph.name!r} has no static type and shape")
