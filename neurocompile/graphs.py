"""What capture and passes need of ONNX graphs: tidy up, find and build constants, replace values, evaluate a part."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import onnx
import onnx_ir as ir
import onnx_ir.passes.common as common
import onnxruntime as ort

from neurocompile.naming import free
from runtime.errors import InternalError

NESTED = (ir.AttributeType.GRAPH, ir.AttributeType.GRAPHS)
RANDOM = {"Bernoulli", "Multinomial", "RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike"}


def clean(model: ir.Model) -> None:
    """Drops what no output needs, merges equal nodes, and copies weights that belong to torch or a file."""
    for value in model.graph.initializers.values():
        if value.const_value is not None and type(value.const_value) is not ir.Tensor:
            value.const_value = ir.Tensor(np.array(value.const_value.numpy(), order="C"), name=value.name)
    for rewrite in (
        common.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0),
        common.CommonSubexpressionEliminationPass(),
        _IdentityElimination(),
        common.RemoveUnusedNodesPass(),
        common.RemoveUnusedFunctionsPass(),
        common.RemoveUnusedOpsetsPass(),
    ):
        rewrite(model)
    unused = [
        name for name, value in model.graph.initializers.items() if not value.uses() and not value.is_graph_output()
    ]
    for name in unused:
        del model.graph.initializers[name]


class _IdentityElimination(ir.passes.InPlacePass):
    """Drops every Identity but those that give a graph output its own name, which the library's pass drops too."""

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Rewrites the main graph."""
        graph, before = model.graph, len(model.graph)
        for node in list(graph):
            if node.op_type != "Identity" or node.domain or (source := node.inputs[0]) is None:
                continue
            result = node.outputs[0]
            if result.is_graph_output():
                if source.producer() is None or source.is_graph_output():
                    continue
                source.name, result.name = result.name, source.name
                graph.outputs[list(graph.outputs).index(result)] = source
            ir.convenience.replace_all_uses_with(result, source)
            graph.remove(node, safe=True)
        return ir.passes.PassResult(model, len(graph) < before)


def constant(graph: ir.Graph, name: str, array: np.ndarray) -> ir.Value:
    """Adds an initializer under a free name that begins with `name`."""
    inner = {value.name for node in graph for value in node.outputs}
    name = free(name, inner | {value.name for value in graph.inputs} | set(graph.initializers))
    tensor = ir.Tensor(np.array(array, order="C"), name=name)
    value = ir.Value(name=name, shape=ir.Shape(array.shape), type=ir.TensorType(tensor.dtype), const_value=tensor)
    graph.register_initializer(value)
    return value


def is_constant(value: ir.Value | None) -> bool:
    """Whether a value is an initializer that no caller can override."""
    return (
        value is not None and value.const_value is not None and value.producer() is None and not value.is_graph_input()
    )


def array_of(value: ir.Value | None) -> np.ndarray | None:
    """The array of a constant, `None` of anything else."""
    return (
        value.const_value.numpy()
        if value is not None and value.const_value is not None and is_constant(value)
        else None
    )


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


def is_pure(node: ir.Node, model: ir.Model) -> bool:
    """Whether a node computes the same from the same operands each time, and can be cut out of its graph."""
    return not draws(node, model) and all(attribute.type not in NESTED for attribute in node.attributes.values())


def draws(node: ir.Node, model: ir.Model) -> bool:
    """Whether a node, its function body included, draws random numbers."""
    if (function := model.functions.get(node.op_identifier())) is not None:
        return any(draws(inner, model) for inner in function)
    # The third operand of Dropout switches training on.
    return node.op_type in RANDOM or (node.op_type == "Dropout" and len(node.inputs) > 2)


def replace(graph: ir.Graph, old: ir.Value, new: ir.Value) -> None:
    """Redirects every use of `old` to `new`; a graph output keeps its name."""
    if old.is_graph_output():
        name, old.name = old.name, f"{old.name}_replaced"
        identity = ir.node("Identity", [new], name=f"{name}/Identity")
        identity.outputs[0].name, identity.outputs[0].type, identity.outputs[0].shape = name, old.type, old.shape
        graph.append(identity)
        for position, output in enumerate(graph.outputs):
            if output is old:
                graph.outputs[position] = identity.outputs[0]
    ir.convenience.replace_all_uses_with(old, new)


class Evaluator:
    """Runs the part of a graph that leads from some inputs to some values, in ONNX Runtime.

    Args:
        model: The model; it is not changed.
        outputs: The values wanted.
        inputs: The graph inputs they may depend on.
    """

    def __init__(self, model: ir.Model, outputs: Sequence[ir.Value], inputs: Sequence[ir.Value] = ()) -> None:
        self._name = model.graph.name
        wanted = needed_nodes(outputs)
        nodes = [ir.to_proto(node) for node in model.graph if node in wanted]
        used = {name for node in nodes for name in node.input}
        weights = [
            ir.to_proto(v.const_value) for n, v in model.graph.initializers.items() if n in used and v.const_value
        ]
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
        try:
            return self._session.run(None, dict(feeds or {}))
        except Exception as error:
            raise InternalError(f"a part of graph {self._name!r} fails: {error}") from error
