"""Pass *hoist*: whatever depends on no input and no state is computed once, at compile time.

    exp(log_step) Λ, γ ⊙ B, Wᵀ, scale/√(var + ε) ...   ->   one constant each

It must not fire on a value that an input or state reaches, on random operators, or where the constant would be larger
than `GROWTH` times what it is made of and more than `FREE` bytes (an expanded constant costs more than its making).
"""

from __future__ import annotations

import onnx_ir as ir

from neurocompile.graphs import Evaluator, clean, constant, is_constant, is_pure, needed_nodes, replace, shape_of
from neurocompile.passes.report import Change

GROWTH = 4
FREE = 1 << 16


def hoist(model: ir.Model) -> list[Change]:
    """Rewrites one graph in place.

    Args:
        model: The graph; its nodes need no particular form.

    Returns:
        One change per value that became a constant.
    """
    graph, changes = model.graph, []
    frontier = _frontier(model)
    for value, array in zip(frontier, Evaluator(model, frontier)() if frontier else (), strict=True):
        nodes = needed_nodes([value])
        if array.nbytes > _allowance(nodes):  # Only known now where the graph states no shape.
            continue
        replace(graph, value, constant(graph, value.name or "constant", array))
        changes.append(Change("hoist", graph.name or "", f"{value.name}: {len(nodes)} nodes -> constant {array.shape}"))
    if changes:
        clean(model)
    return changes


def _frontier(model: ir.Model) -> list[ir.Value]:
    """The last values on every path from constants that may themselves become constants."""
    still = {value for value in model.graph.initializers.values() if is_constant(value)}
    for node in model.graph:
        if is_pure(node, model) and all(value is None or value in still for value in node.inputs):
            still.update(node.outputs)
    while True:
        frontier = [value for node in model.graph for value in node.outputs if value in still and _leaves(value, still)]
        large = [value for value in frontier if (_bytes(value) or 0) > _allowance(needed_nodes([value]))]
        if not large:
            return [value for value in frontier if not _is_copy(value)]
        for value in large:
            still.difference_update(value.producer().outputs)


def _leaves(value: ir.Value, still: set[ir.Value]) -> bool:
    """Whether anything beyond the constants uses the value."""
    return value.is_graph_output() or any(not set(use.node.outputs) <= still for use in value.uses())


def _is_copy(value: ir.Value) -> bool:
    """Whether the value is a constant already, under the name of a graph output, or no tensor."""
    node = value.producer()
    assert node is not None
    copies = node.op_type == "Identity" and is_constant(node.inputs[0])
    return copies or (value.type is not None and not isinstance(value.type, ir.TensorType))


def _bytes(value: ir.Value) -> int | None:
    shape = shape_of(value)
    if shape is None or value.dtype is None:
        return None
    size = value.dtype.itemsize
    for extent in shape:
        size *= extent
    return int(size)


def _allowance(nodes: set[ir.Node]) -> int:
    """Bytes that a constant may take in place of these nodes."""
    sources = {value for node in nodes for value in node.inputs if value is not None and is_constant(value)}
    return max(GROWTH * sum(value.const_value.nbytes for value in sources if value.const_value), FREE)
