"""Pass *tabulate*: a subgraph of one small-range index is evaluated for the whole range and becomes a table.

    token -> embedding -> norm -> B u      ->      row = table[token]; split the row

The pass finds the subgraph itself: starting from an integer input with a declared domain, it collects every node that
depends on that index and constants alone; the values that leave this region are its frontier. One row of the table
holds all of the frontier that shares a type, so that a firing touches one contiguous piece of memory. Of an index
(N,), as a window of events has it, the region ends where its N rows would mix (`neurocompile.passes.rowwise`).

It must not fire on a value that a second input, a state or a random operator reaches, on an index of rank > 1 or
without a declared domain that begins at 0, on a region that only moves data (a bare `Gather`, the row of a table), or
where the table would exceed `LIMIT` bytes.
"""

from __future__ import annotations

from math import prod

import numpy as np
import onnx_ir as ir

from neurocompile.graphs import Evaluator, clean, constant, is_constant, is_pure, needed_nodes, replace, shape_of
from neurocompile.passes.report import Change
from neurocompile.passes.rowwise import keeps_rows
from runtime.program import TensorSpec

LIMIT = 256 << 20
INTEGERS = {ir.DataType.INT64, ir.DataType.INT32}
MOVES = {
    "Cast",
    "Concat",
    "Flatten",
    "Gather",
    "Identity",
    "Reshape",
    "Slice",
    "Split",
    "Squeeze",
    "Transpose",
    "Unsqueeze",
}
"""Operators that compute nothing: a table in their place would hold what the model's own table holds."""


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
        shape = shape_of(index)
        # One row alone could not be told from a value that all rows share.
        alone = shape is not None and (shape == () or (len(shape) == 1 and shape[0] > 1))
        if spec and spec.domain and spec.domain[0] == 0 and index.dtype in INTEGERS and alone:
            nodes = region(model, index)
            frontier = _frontier(nodes)
            for kind in dict.fromkeys(value.dtype for value in frontier):
                alike = [value for value in frontier if value.dtype == kind]
                work = [node for node in nodes if node in needed_nodes(alike)]
                changes += _tabulate(model, index, work, alike, spec.domain[1], limit)
    if changes:
        clean(model)
    return changes


def region(model: ir.Model, index: ir.Value) -> list[ir.Node]:
    """The nodes that depend on `index` and constants alone, in graph order, and keep its rows apart if it has any."""
    rows = (shape_of(index) or (0,))[0]
    known = {value for value in model.graph.initializers.values() if is_constant(value)}
    reached, nodes = {index}, []
    for node in model.graph:
        values = {value for value in node.inputs if value is not None}
        if not is_pure(node, model) or not values <= known | reached:
            continue
        if values & reached:
            if not rows or keeps_rows(node, reached, rows):
                nodes.append(node)
                reached.update(node.outputs)
        else:
            known.update(node.outputs)
    return nodes


def _frontier(nodes: list[ir.Node]) -> list[ir.Value]:
    """The values that leave a region."""
    inside = set(nodes)
    return [
        value
        for node in nodes
        for value in node.outputs
        if value.is_graph_output() or any(use.node not in inside for use in value.uses())
    ]


def _tabulate(
    model: ir.Model, index: ir.Value, nodes: list[ir.Node], frontier: list[ir.Value], rows: int, limit: int
) -> list[Change]:
    """Makes one table of values of one type, if that is worth it."""
    graph, dtype = model.graph, frontier[0].dtype
    shapes = [shape_of(value) for value in frontier]
    # Without the axis that counts the rows of an index (N,).
    widths = [prod(shape[len(index.shape or ()) :]) for shape in shapes if shape is not None]
    if dtype is None or len(widths) < len(shapes) or rows * sum(widths) * dtype.itemsize > limit:
        return []
    if all(node.op_type in MOVES and not node.domain for node in nodes):
        return []
    table = _evaluate(model, index, frontier, rows, sum(widths), dtype)
    _rewire(graph, index, frontier, widths, constant(graph, f"{index.name}/table", table))
    made = f"{index.name} in [0, {rows}): {len(nodes)} nodes -> table {table.shape}, {table.nbytes / 2**20:.2f} MiB"
    return [Change("tabulate", graph.name or "", made)]


def _evaluate(
    model: ir.Model, index: ir.Value, frontier: list[ir.Value], rows: int, width: int, dtype: ir.DataType
) -> np.ndarray:
    """(rows, width) the frontier's values, flattened side by side, for every index."""
    evaluate = Evaluator(model, frontier, [index])
    assert index.dtype is not None
    kind, shape = index.dtype.numpy(), shape_of(index) or ()
    table = np.empty((rows, width), dtype.numpy())
    for row in range(0, rows, prod(shape)):
        # An index (N,) is asked for N rows at a time; the last ones begin anew at 0.
        asked = (row + np.arange(prod(shape), dtype=kind)) % rows
        parts = evaluate({index.name or "": asked.reshape(shape)})
        found = np.concatenate([part.reshape(len(asked), -1) for part in parts], 1)
        table[row : row + len(asked)] = found[: rows - row]
    return table


def _rewire(graph: ir.Graph, index: ir.Value, frontier: list[ir.Value], widths: list[int], table: ir.Value) -> None:
    """Reads the row first of all (Gather, Split, Reshape) and lets everyone use it in place of the frontier."""
    stem, axis = table.name, len(index.shape or ())
    many = list(shape_of(index) or ())
    row = _node(stem, "Gather", [table, index], [ir.Shape([*many, sum(widths)])], table.type, axis=0)
    new, pieces = [row], row.outputs
    if len(frontier) > 1:
        sizes = constant(graph, f"{stem}/Split/sizes", np.asarray(widths, np.int64))
        shapes = [ir.Shape([*many, width]) for width in widths]
        split = _node(stem, "Split", [*pieces, sizes], shapes, table.type, axis=axis)
        new, pieces = [row, split], split.outputs
    finals = []
    for number, (value, width, piece) in enumerate(zip(frontier, widths, pieces, strict=True)):
        if (shape := shape_of(value)) != (*many, width):
            target = constant(graph, f"{stem}/Reshape/shape", np.asarray(shape, np.int64))
            new.append(_node(f"{stem}/{number}", "Reshape", [piece, target], [ir.Shape(shape or ())], table.type))
            piece = new[-1].outputs[0]
        finals.append(piece)
    graph.insert_before(graph[0], new)
    for value, final in zip(frontier, finals, strict=True):
        replace(graph, value, final)


def _node(
    stem: str | None,
    op: str,
    inputs: list[ir.Value],
    shapes: list[ir.Shape],
    kind: ir.TypeProtocol | None,
    **attributes: int,
) -> ir.Node:
    node = ir.node(op, inputs, attributes, num_outputs=len(shapes), name=f"{stem}/{op}")
    for number, (value, shape) in enumerate(zip(node.outputs, shapes, strict=True)):
        value.name, value.type, value.shape = f"{stem}/{op}:out{number}", kind, shape
    return node
