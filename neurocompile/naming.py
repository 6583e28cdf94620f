"""Names that people can read in a graph viewer: nodes after the submodule they come from, values after their node.

    layers/1/gate/MatMul        a node: the module's path, the operator, a number where there are several
    layers/1/gate/MatMul:out    what it makes (`:out0`, `:out1` where it makes several)
    layers/1/gate/weight        a parameter of the model
    layers/1/s5/MatMul/weight   a constant that the compiler made, after its first user

Graph inputs and outputs keep their names: sessions bind them.
"""

from __future__ import annotations

import ast
from collections.abc import Collection, Iterable

import onnx_ir as ir
import onnx_ir.passes.common as common

SCOPES = "pkg.torch.onnx.name_scopes"
OPERANDS = {
    "BatchNormalization": ("", "scale", "bias", "mean", "var"),
    "Clip": ("", "min", "max"),
    "Conv": ("", "weight", "bias"),
    "Gather": ("table", "index"),
    "Gemm": ("weight", "weight", "bias"),
    "LayerNormalization": ("", "scale", "bias"),
    "MatMul": ("weight", "weight"),
    "ReduceMean": ("", "axes"),
    "ReduceSum": ("", "axes"),
    "Reshape": ("", "shape"),
    "Slice": ("", "starts", "ends", "axes", "steps"),
    "Split": ("", "sizes"),
    "Squeeze": ("", "axes"),
    "Unsqueeze": ("", "axes"),
}
"""What a constant is to an operator, by its place among the operands; `constant` elsewhere."""

Path = tuple[str, ...]


def name_nodes(model: ir.Model) -> None:
    """Names nodes by the exporter's notes on submodules, clears these notes, and names the values after the nodes.

    A node that the notes place in no submodule belongs to the one whose weights it uses; without weights, to the
    innermost module that holds all modules of its operands: `layers/1/s5/Exp` after `layers/1/s5/Mul`.
    """
    counts: dict[str, int] = {}
    initializers = model.graph.initializers
    homes: dict[ir.Value, Path] = {
        value: tuple(name.split(".")[:-1]) for name, value in initializers.items() if "." in name
    }
    still = set(initializers.values())
    for node in model.graph:
        operands = [value for value in node.inputs if value is not None]
        weights = [homes[value] for value in operands if value in homes and value in still]
        home = _noted(node) or _common(weights or [homes[value] for value in operands if value in homes])
        if still.issuperset(operands):
            still.update(node.outputs)
        if home:
            homes.update(dict.fromkeys(node.outputs, home))
        stem = "/".join((*home, node.op_type))
        number = counts.get(stem, 0)
        counts[stem] = number + 1
        old, node.name = node.name, f"{stem}_{number}" if number else stem
        # What was made for a node under its old name must not keep that.
        for value in operands:
            if value.name in initializers and value.name.startswith(f"{old}/"):
                value.name = f"{node.name}:{value.name}"
    _clear_notes(model)
    name_values(model)


def name_values(model: ir.Model) -> None:
    """Names intermediate values and constants after their nodes, which have names of their own."""
    graph = model.graph
    taken = {value.name for value in (*graph.inputs, *graph.outputs)}
    wanted: list[tuple[ir.Value, str]] = []
    named = set(graph.outputs)
    for node in graph:
        for place, value in enumerate(node.inputs):
            if (
                value is not None
                and value not in named
                and value.name in graph.initializers
                and not value.is_graph_input()
            ):
                named.add(value)
                wanted.append((value, _constant(value.name or "", node, place)))
        for place, value in enumerate(node.outputs):
            if value not in named and value.name:
                wanted.append((value, f"{node.name}:out{place if len(node.outputs) > 1 else ''}"))
    # In two steps, because a new name may be the old one of another value.
    for number, (value, _) in enumerate(wanted):
        value.name = f"_{number}"
    for value, name in wanted:
        value.name = free(name, taken)
        taken.add(value.name)


def free(name: str, taken: Collection[str | None]) -> str:
    """`name`, or `name_1`, `name_2` ... where that is taken."""
    number, found = 0, name
    while found in taken:
        number += 1
        found = f"{name}_{number}"
    return found


def _clear_notes(model: ir.Model) -> None:
    common.ClearMetadataAndDocStringPass()(model)
    graph = model.graph
    for thing in (model, graph, *graph.inputs, *graph.outputs, *graph.initializers.values()):
        thing.metadata_props.clear()
    for node in graph:
        for value in node.outputs:
            value.metadata_props.clear()


def _noted(node: ir.Node) -> Path:
    scopes = node.metadata_props.get(SCOPES)
    modules = [part for part in ast.literal_eval(scopes)[:-1] if part] if scopes else []
    return tuple(modules[-1].split(".")) if modules else ()


def _common(paths: Iterable[Path]) -> Path:
    first, *others = list(paths) or [()]
    size = 0
    while size < len(first) and all(path[: size + 1] == first[: size + 1] for path in others):
        size += 1
    return first[:size]


def _constant(name: str, user: ir.Node, place: int) -> str:
    if "/" in name and ":" not in name:
        return name
    if "." in name:
        return name.replace(".", "/")
    roles = OPERANDS.get(user.op_type, ()) if not user.domain else ()
    return f"{user.name}/{(roles[place] if place < len(roles) else '') or 'constant'}"
