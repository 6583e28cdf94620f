"""Which op nodes become plugins, and the graphs with the plugins' nodes in them.

A plugin's node is in the domain `neurocompile`, its type is the name of an image, and it names itself to TensorRT's
parser by `plugin_namespace`, `plugin_version` and, for ahead-of-time plugins, `aot`. These launch one kernel each, so
an op of several launches becomes several nodes; a C++ plugin is one node.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import onnx_ir as ir

from neurocompile.graph_program import GraphProgram
from neurocompile.graphs import shape_of
from neurocompile.ops.plugin_plan import PLANNED, NoPluginError, PluginPlan, planner
from neurocompile.passes.native import STATIC
from neurocompile.targets.spec import TargetSpec
from neurocompile.targets.trt.plugins.compiled import compile_plan, obstacle
from neurocompile.targets.trt.plugins.series import Part, series
from neurocompile.targets.trt.versions import capability, low_of, version_of
from runtime.errors import InternalError, UserError
from runtime.plugins.image import PluginImage
from runtime.plugins.sizes import evaluate

CHOICES = ("none", "aot", "cpp", "auto")
AOT_FROM = {"10": "10.9"}
"""The oldest TensorRT with ahead-of-time plugins, where `--tensorrt` alone does not say enough."""

OPERAND = {"fp32": "float32", "bf16": "bfloat16", "fp16": "float16"}
TYPES = {
    "float32": ir.DataType.FLOAT,
    "bfloat16": ir.DataType.BFLOAT16,
    "float16": ir.DataType.FLOAT16,
    "int32": ir.DataType.INT32,
}


@dataclass(frozen=True)
class Placed:
    """One op node and who computes it.

    Attributes:
        stage: The graph that it is in.
        node: Its name there.
        op: Its operator.
        plan: What a plugin launches; `None` where native layers compute it.
        reason: Why it is no plugin, where plugins were asked for.
    """

    stage: str
    node: str
    op: str
    plan: PluginPlan | None = None
    reason: str = ""


def choose(target: TargetSpec) -> str:
    """What `--plugins` comes to for a target: `none`, `aot` or `cpp`.

    Raises:
        UserError: If the named TensorRT has no such plugins, no GPU is named, or kernels cannot be compiled here.
    """
    asked, tensorrt = target.plugins or "none", version_of(target)
    if asked not in CHOICES:
        raise UserError(f"--plugins {asked} is none of {', '.join(CHOICES)}")
    if asked == "none":
        return asked
    best = "cpp" if tensorrt == "10.3" else "aot"
    if asked == "aot" and best == "cpp":
        raise UserError("TensorRT 10.3 has no ahead-of-time plugins, 10.9 was the first; choose --plugins cpp")
    if capability(target.device) is None:
        raise UserError(
            f"plugins hold machine code of one GPU; name it, for instance --target {target}@sm90, or choose "
            "--plugins none"
        )
    if reason := obstacle():
        raise UserError(f"plugins are compiled from Triton kernels, and {reason}; choose --plugins none")
    return best if asked == "auto" else asked


def place(program: GraphProgram, target: TargetSpec, kind: str) -> list[Placed]:
    """Every op node of a program, with its plan where it becomes a plugin.

    Args:
        program: The program after the passes.
        target: For which device and precision.
        kind: From `choose`.
    """
    found = []
    for stage, model in program.graphs.items():
        for node in model.graph:
            if node.domain == "neurocompile" and node.op_type in STATIC | PLANNED:
                found.append(_placed(stage, node, target, kind))
    return found


def _placed(stage: str, node: ir.Node, target: TargetSpec, kind: str) -> Placed:
    name = node.name or ""
    if kind == "none":
        return Placed(stage, name, node.op_type)
    if node.op_type not in PLANNED:
        return Placed(stage, name, node.op_type, reason="it has no plugin")
    shapes = [shape_of(value) if value is not None else None for value in node.inputs]
    number = capability(target.device)
    if number is None or not all(shapes):
        raise InternalError(f"{name} of stage {stage!r} has operands of unknown shape")
    try:
        attributes = {key: attribute.value for key, attribute in node.attributes.items()}
        plan = planner(node.op_type)([s for s in shapes if s], OPERAND[low_of(target)], number, attributes)
    except NoPluginError as why:
        return Placed(stage, name, node.op_type, reason=str(why))
    return Placed(stage, name, node.op_type, plan)


@dataclass(frozen=True)
class Compiled:
    """A node's plugins.

    Attributes:
        whole: The image of all launches.
        parts: What the graph holds: the image itself, or one of each launch.
        report: What the assembler says of each launch.
    """

    whole: PluginImage
    parts: tuple[Part, ...]
    report: list[dict[str, object]]


def compiled(placed: Placed, number: int, kind: str) -> Compiled:
    """Compiles the kernels of one node.

    Args:
        placed: With a plan.
        number: Compute capability.
        kind: `aot` or `cpp`.
    """
    assert placed.plan is not None
    image, report = compile_plan(placed.plan, number)
    names = tuple(tensor.name for tensor in image.inputs), tuple(tensor.name for tensor in image.outputs)
    return Compiled(image, series(image) if kind == "aot" else (Part(image, *names),), report)


def plug(model: ir.Model, plugins: Mapping[str, Compiled], kind: str) -> None:
    """Puts plugins' nodes where op nodes are.

    Args:
        model: A typed graph in which the op nodes are left.
        plugins: Node name -> its plugins.
        kind: `aot` or `cpp`.
    """
    graph = model.graph
    for node in list(graph):
        if node.domain != "neurocompile":
            continue
        made = plugins[node.name or ""]
        values = {
            tensor.name: _as_type(graph, node, value, TYPES[tensor.dtype])
            for tensor, value in zip(made.whole.inputs, node.inputs, strict=True)
            if value is not None
        }
        shapes = [shape_of(value) or () for value in node.inputs if value is not None]
        lengths = {
            tensor.name: [evaluate(size, shapes) for size in tensor.shape]
            for tensor in (*made.whole.outputs, *made.whole.scratch)
        }
        for number, part in enumerate(made.parts):
            name = f"{node.name}/{number + 1}" if len(made.parts) > 1 else node.name
            attributes = {"plugin_namespace": part.image.namespace, "plugin_version": part.image.version}
            new = ir.node(
                part.image.name,
                [values[tensor] for tensor in part.inputs],
                attributes | ({"aot": 1} if kind == "aot" else {}),
                domain="neurocompile",
                num_outputs=len(part.outputs),
                name=name,
            )
            graph.insert_before(node, new)
            for tensor, value, described in zip(part.outputs, new.outputs, part.image.outputs, strict=True):
                value.name, value.type = f"{name}:{tensor}", ir.TensorType(TYPES[described.dtype])
                value.shape = ir.Shape(lengths[tensor])
                values[tensor] = value
        for output, old in zip(made.whole.outputs, node.outputs, strict=True):
            value = values[output.name]
            if shape_of(old) != tuple(lengths[output.name]):
                raise InternalError(f"{node.name} makes {output.name} as {lengths[output.name]}, not {shape_of(old)}")
            if old.is_graph_output():
                value.name, old.name = old.name, f"{old.name}/replaced"
            ir.convenience.replace_all_uses_with(old, value, replace_graph_outputs=True)
        graph.remove(node, safe=True)


def _as_type(graph: ir.Graph, before: ir.Node, value: ir.Value, wanted: ir.DataType) -> ir.Value:
    """The value in the type that a plugin takes; a cast to float32 that comes just before it is undone."""
    if value.dtype == wanted:
        return value
    producer = value.producer()
    source = producer.inputs[0] if producer is not None and producer.op_type == "Cast" else None
    if source is not None and source.dtype == wanted:
        return source
    cast = ir.node("Cast", [value], {"to": int(wanted)}, name=f"{before.name}/{value.name}_to_{wanted.name.lower()}")
    made = cast.outputs[0]
    made.name, made.shape, made.type = cast.name, value.shape, ir.TensorType(wanted)
    graph.insert_before(before, cast)
    return made
