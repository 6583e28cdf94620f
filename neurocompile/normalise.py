"""Brings the exporter's graphs to one form: stated types, plain `Split`, no cast that changes nothing."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from neurocompile.graphs import array_of, constant, shape_of


def normalise(model: ir.Model) -> None:
    """Rewrites a freshly exported graph, whose constants are initializers, in place."""
    for node in list(model.graph):
        if node.domain:
            continue
        if node.op_type in ("Cast", "CastLike"):
            _state_type(model.graph, node)
        elif node.op_type == "SplitToSequence":
            _split(model.graph, node)


def _state_type(graph: ir.Graph, node: ir.Node) -> None:
    """`CastLike` becomes the `Cast` that its second input implies; a cast to the type at hand goes."""
    source, result = node.inputs[0], node.outputs[0]
    assert source is not None
    like = node.inputs[1] if node.op_type == "CastLike" else None
    wanted = like.dtype if like is not None else ir.DataType(node.attributes["to"].value)
    if wanted is None:
        return
    if source.dtype == wanted and not result.is_graph_output():
        ir.convenience.replace_all_uses_with(result, source)
        graph.remove(node, safe=True)
    elif like is not None:
        cast = ir.node("Cast", [source], {"to": int(wanted)}, name=node.name)
        _take_place(graph, node, cast, wanted)


def _take_place(graph: ir.Graph, old: ir.Node, new: ir.Node, dtype: ir.DataType) -> None:
    """Puts `new`, of one output, where `old` was, under its output's name."""
    result, made = old.outputs[0], new.outputs[0]
    made.name, made.dtype, made.shape = result.name, dtype, result.shape
    result.name = f"{result.name}_replaced"
    new.metadata_props.update(old.metadata_props)
    graph.insert_before(old, new)
    if result.is_graph_output():
        graph.outputs[list(graph.outputs).index(result)] = made
    ir.convenience.replace_all_uses_with(result, made)
    graph.remove(old, safe=True)


def _split(graph: ir.Graph, node: ir.Node) -> None:
    """`SplitToSequence` whose elements are picked by constant indices becomes `Split`."""
    source = node.inputs[0]
    assert source is not None
    sizes, shape = array_of(node.inputs[1]) if len(node.inputs) > 1 else None, shape_of(source)
    users = [use.node for use in node.outputs[0].uses()]
    picks = [array_of(user.inputs[1]) if user.op_type == "SequenceAt" else None for user in users]
    if sizes is None or shape is None or any(pick is None for pick in picks):
        return
    axis = node.attributes["axis"].value if "axis" in node.attributes else 0
    if sizes.ndim == 0:
        whole, rest = divmod(shape[axis], int(sizes))
        lengths = [int(sizes)] * whole + [rest] * (rest > 0)
    else:
        lengths = [int(size) for size in sizes]
    parts = constant(graph, f"{node.name}/sizes", np.asarray(lengths, np.int64))
    split = ir.node("Split", [source, parts], {"axis": axis % len(shape)}, num_outputs=len(lengths), name=node.name)
    split.metadata_props.update(node.metadata_props)
    for number, (output, length) in enumerate(zip(split.outputs, lengths, strict=True)):
        output.name, output.dtype = f"{node.outputs[0].name}_{number}", source.dtype
        output.shape = ir.Shape([length if k == axis % len(shape) else size for k, size in enumerate(shape)])
    graph.insert_before(node, split)
    for user, pick in zip(users, picks, strict=True):
        assert pick is not None
        piece, old = split.outputs[int(pick)], user.outputs[0]
        if old.is_graph_output():
            piece.name, old.name = old.name, piece.name
        ir.convenience.replace_all_uses_with(old, piece, replace_graph_outputs=True)
        graph.remove(user, safe=True)
    graph.remove(node, safe=True)
