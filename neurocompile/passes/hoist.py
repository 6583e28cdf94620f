"""Pass *hoist*: whatever depends on no input and no state is computed once, at compile time.

    exp(log_step) Λ, γ ⊙ B, Wᵀ, scale/√(var + ε) ...   ->   one constant each

It must not fire on a value that an input or state reaches, on random operators, or where the constant would be larger
than `GROWTH` times what it is made of and more than `FREE` bytes (an expanded constant costs more than its making).
"""

from __future__ import annotations

import onnx_ir as ir

from neurocompile.graphs import Evaluator, clean, constant, needed_nodes
from neurocompile.passes.report import Change

RANDOM = {"RandomNormal", "RandomUniform", "RandomNormalLike", "RandomUniformLike", "Multinomial", "Bernoulli"}
GROWTH = 4
FREE = 1 << 16


def hoist(model: ir.Model) -> list[Change]:
    """Rewrites one graph in place.

    Args:
        model: The graph; its nodes need no particular form.

    Returns:
        One change per value that became a constant.
    """
    graph = model.graph
    still = {value for value in graph.initializers.values() if value.const_value is not None}
    for node in graph:
        subgraphs = any(attribute.type in (ir.AttributeType.GRAPH, ir.AttributeType.GRAPHS) for attribute in node.attributes.values())
        if node.op_type in RANDOM or subgraphs:
            continue
        if all(value is None or value in still for value in node.inputs):
            still.update(node.outputs)
    frontier = [
        value
        for node in graph
        for value in node.outputs
        if value in still and (value.is_graph_output() or any(use.node.outputs[0] not in still for use in value.uses()))
    ]
    if not frontier:
        return []
    changes = []
    for value, array in zip(frontier, Evaluator(model, frontier)(), strict=True):
        nodes = needed_nodes([value])
        sources = {source for node in nodes for source in node.inputs if source in still and source.producer() is None}
        size = sum(source.const_value.nbytes for source in sources if source.const_value is not None)
        if array.nbytes > max(GROWTH * size, FREE):
            continue
        if value.is_graph_output():
            continue
        ir.convenience.replace_all_uses_with(value, constant(graph, value.name or "constant", array))
        changes.append(Change("hoist", graph.name or "", f"{value.name}: {len(nodes)} nodes -> constant {array.shape}"))
    clean(model)
    return changes
