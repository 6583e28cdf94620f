"""What capture, passes and targets all need of ONNX graphs: tidy up, name nodes, evaluate a part, build constants."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import onnx
import onnx_ir as ir
import onnx_ir.passes.common as common
import onnxruntime as ort

from runtime.errors import InternalError

SCOPES = "pkg.torch.onnx.name_scopes"


def clean(model: ir.Model) -> None:
    """Drops what no output needs, merges equal nodes, forgets the exporter's notes, and detaches the weights from torch."""
    for value in model.graph.initializers.values():
        if value.const_value is not None:
            value.const_value = ir.Tensor(np.array(value.const_value.numpy(), order="C"), name=value.name)
    for rewrite in (
        common.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0),
        common.CommonSubexpressionEliminationPass(),
        common.IdentityEliminationPass(),
        common.RemoveUnusedNodesPass(),
        common.RemoveUnusedFunctionsPass(),
        common.RemoveUnusedOpsetsPass(),
    ):
        rewrite(model)
    unused = [name for name, value in model.graph.initializers.items() if not value.uses() and not value.is_graph_output()]
    for name in unused:
        del model.graph.initializers[name]


def name_nodes(model: ir.Model) -> None:
    """Names nodes after the submodule they come from (`layer/s5/MatMul_3`) and clears the exporter's metadata."""
    counts: dict[str, int] = {}
    for node in model.graph:
        scopes = node.metadata_props.get(SCOPES)
        modules = [part for part in ast.literal_eval(scopes)[:-1] if part] if scopes else []
        stem = "/".join([*(modules[-1].split(".") if modules else []), node.op_type])
        number = counts.get(stem, 0)
        counts[stem] = number + 1
        node.name = f"{stem}_{number}" if number else stem
    common.ClearMetadataAndDocStringPass()(model)
    model.graph.metadata_props.clear()
    model.metadata_props.clear()


def constant(graph: ir.Graph, name: str, array: np.ndarray) -> ir.Value:
    """Adds an initializer under a free name that begins with `name`."""
    taken, number, free = graph.initializers, 0, name
    names = {value.name for node in graph for value in node.outputs} | {value.name for value in graph.inputs}
    while free in taken or free in names:
        number += 1
        free = f"{name}_{number}"
    tensor = ir.Tensor(np.array(array, order="C"), name=free)
    value = ir.Value(name=free, shape=ir.Shape(array.shape), type=ir.TensorType(tensor.dtype), const_value=tensor)
    graph.register_initializer(value)
    return value


def array_of(value: ir.Value | None) -> np.ndarray | None:
    """The array of an initializer, `None` of anything else."""
    if value is None or value.const_value is None or value.producer() is not None:
        return None
    return value.const_value.numpy()


def shape_of(value: ir.Value) -> tuple[int, ...] | None:
    """The static shape of a value, `None` where it is not known."""
    if value.shape is None or not all(isinstance(size, int) for size in value.shape):
        return None
    return tuple(int(size) for size in value.shape)


def needed_nodes(outputs: Iterable[ir.Value]) -> set[ir.Node]:
    """All nodes that `outputs` are computed from."""
    nodes: set[ir.Node] = set()
    stack = [output.producer() for output in outputs]
    while stack:
        node = stack.pop()
        if node is not None and node not in nodes:
            nodes.add(node)
            stack += [value.producer() for value in node.inputs if value is not None]
    return nodes


class Evaluator:
    """Runs the part of a graph that leads from some inputs to some values, in ONNX Runtime.

    Args:
        model: The model; it is not changed.
        outputs: The values wanted.
        inputs: The graph inputs they may depend on.
    """

    def __init__(self, model: ir.Model, outputs: Sequence[ir.Value], inputs: Sequence[ir.Value] = ()) -> None:
        wanted = needed_nodes(outputs)
        nodes = [ir.to_proto(node) for node in model.graph if node in wanted]
        used = {name for node in nodes for name in node.input}
        weights = [ir.to_proto(v.const_value) for n, v in model.graph.initializers.items() if n in used and v.const_value]
        for weight, name in zip(weights, [n for n in model.graph.initializers if n in used], strict=True):
            weight.name = name
        graph = onnx.helper.make_graph(
            nodes,
            "part",
            [onnx.helper.make_tensor_value_info(v.name, v.dtype.value, shape_of(v)) for v in inputs],
            [onnx.helper.make_empty_tensor_value_info(v.name) for v in outputs],
            weights,
        )
        opsets = [onnx.helper.make_opsetid(domain, version) for domain, version in model.opset_imports.items()]
        proto = onnx.helper.make_model(graph, opset_imports=opsets, ir_version=model.ir_version)
        proto.functions.extend(ir.to_proto(function) for function in model.functions.values())
        options = ort.SessionOptions()
        options.log_severity_level = 3
        try:
            self._session = ort.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])
        except Exception as error:
            raise InternalError(f"a part of graph {model.graph.name!r} does not run: {error}") from error

    def __call__(self, feeds: Mapping[str, np.ndarray] | None = None) -> list[np.ndarray]:
        """The values, for these inputs."""
        return self._session.run(None, dict(feeds or {}))
