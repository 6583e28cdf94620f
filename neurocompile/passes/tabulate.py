"""Pass *tabulate*: a subgraph of one small-range index is evaluated for the whole range and becomes a table.

    token -> embedding -> norm -> B u      ->      row = table[token]; split the row

The pass finds the subgraph itself: starting from a scalar integer input with a declared domain, it collects every
node that depends on that index and constants alone; the values that leave this region are its frontier, and one row of
the table holds the whole frontier, so that a firing touches one contiguous piece of memory.

It must not fire on a value that a second input or a state reaches, on an index without a declared domain or of
rank > 0, on a region that is a bare `Gather` already, or where the table would exceed `LIMIT` bytes.
"""

from __future__ import annotations

from math import prod

import numpy as np
import onnx_ir as ir

from neurocompile.graphs import Evaluator, clean, constant, shape_of
from neurocompile.passes.report import Change
from runtime.program import TensorSpec

LIMIT = 256 << 20
INTEGERS = {ir.DataType.INT64, ir.DataType.INT32}


def tabulate(model: ir.Model, inputs: dict[str, TensorSpec], limit: int = LIMIT) -> list[Change]:
    """Rewrites one graph in place.

    Args:
        model: The graph.
        inputs: Declarations of its inputs by name; only those with a domain are candidates.
        limit: Largest table in bytes.

    Returns:
        One change per table made.
    """
    changes = []
    for index in list(model.graph.inputs):
        spec = inputs.get(index.name or "")
        if spec and spec.domain and spec.domain[0] == 0 and index.dtype in INTEGERS and shape_of(index) == ():
            changes += _tabulate(model, index, spec.domain[1], limit)
    if changes:
        clean(model)
    return changes


def region(graph: ir.Graph, index: ir.Value) -> list[ir.Node]:
    """The nodes that depend on `index` and constants alone, in graph order."""
    known = {value for value in graph.initializers.values() if value.const_value is not None}
    reached, nodes = {index}, []
    for node in graph:
        values = [value for value in node.inputs if value is not None]
        nested = any(attribute.type in (ir.AttributeType.GRAPH, ir.AttributeType.GRAPHS) for attribute in node.attributes.values())
        if nested or not all(value in known or value in reached for value in values):
            continue
        if any(value in reached for value in values):
            nodes.append(node)
            reached.update(node.outputs)
        elif values:
            known.update(node.outputs)
    return nodes


def _tabulate(model: ir.Model, index: ir.Value, rows: int, limit: int) -> list[Change]:
    graph = model.graph
    nodes = region(graph, index)
    inside = set(nodes)
    frontier = [
        value
        for node in nodes
        for value in node.outputs
        if value.is_graph_output() or any(use.node not in inside for use in value.uses())
    ]
    if not frontier or all(node.op_type == "Gather" for node in nodes):
        return []
    kinds = {value.dtype for value in frontier}
    shapes = [shape_of(value) for value in frontier]
    if len(kinds) != 1 or None in shapes:
        return []
    widths = [prod(shape) for shape in shapes if shape is not None]
    width, dtype = sum(widths), next(iter(kinds))
    if dtype is None or rows * width * dtype.itemsize > limit:
        return []
    table = _evaluate(model, index, frontier, rows, width, dtype)
    _rewire(graph, index, frontier, widths, constant(graph, f"{index.name}_table", table))
    made = f"{index.name} in [0, {rows}): {len(nodes)} nodes -> table {table.shape}, {table.nbytes / 2**20:.2f} MiB"
    return [Change("tabulate", graph.name or "", made)]


def _evaluate(
    model: ir.Model, index: ir.Value, frontier: list[ir.Value], rows: int, width: int, dtype: ir.DataType
) -> np.ndarray:
    """(rows, width) the frontier's values, flattened side by side, for every index."""
    evaluate = Evaluator(model, frontier, [index])
    assert index.dtype is not None
    kind = index.dtype.numpy()
    table = np.empty((rows, width), dtype.numpy())
    for row in range(rows):
        parts = evaluate({index.name or "": np.asarray(row, kind)})
        np.concatenate([part.reshape(-1) for part in parts], out=table[row])
    return table


def _rewire(graph: ir.Graph, index: ir.Value, frontier: list[ir.Value], widths: list[int], table: ir.Value) -> None:
    """Puts Gather (and Split, Reshape) before the first user and lets everyone read from the row."""
    kind = table.dtype
    row = ir.node("Gather", [table, index], {"axis": 0}, name=f"{index.name}_row")
    row.outputs[0].name, row.outputs[0].dtype, row.outputs[0].shape = f"{index.name}_row", kind, ir.Shape([sum(widths)])
    new, pieces = [row], list(row.outputs)
    if len(frontier) > 1:
        sizes = constant(graph, f"{index.name}_row_sizes", np.asarray(widths, np.int64))
        split = ir.node("Split", [row.outputs[0], sizes], {"axis": 0}, num_outputs=len(widths), name=f"{index.name}_split")
        new.append(split)
        pieces = list(split.outputs)
    for value, width, piece in zip(frontier, widths, pieces, strict=True):
        if len(frontier) > 1:
            piece.name, piece.dtype, piece.shape = f"{value.name}_of_row", kind, ir.Shape([width])
        final = piece
        if shape_of(value) != (width,):
            target = constant(graph, f"{value.name}_shape", np.asarray(shape_of(value), np.int64))
            reshape = ir.node("Reshape", [piece, target], name=f"{value.name}_reshape")
            reshape.outputs[0].name, reshape.outputs[0].dtype = f"{value.name}_of_table", kind
            reshape.outputs[0].shape = value.shape
            new.append(reshape)
            final = reshape.outputs[0]
        if value.is_graph_output():
            name, old = value.name, value
            position = list(graph.outputs).index(old)
            old.name = f"{name}_untabulated"
            named = ir.node("Identity", [final], name=f"{name}_out")
            named.outputs[0].name, named.outputs[0].dtype, named.outputs[0].shape = name, kind, old.shape
            new.append(named)
            ir.convenience.replace_all_uses_with(old, final)
            graph.outputs[position] = named.outputs[0]
        else:
            ir.convenience.replace_all_uses_with(value, final)
    graph.insert_before(graph[0], new)
