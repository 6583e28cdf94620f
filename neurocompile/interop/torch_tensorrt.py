"""Our ops in models that torch-tensorrt compiles: `torch.compile(backend="tensorrt")` and `torch_tensorrt.compile`.

    from neurocompile.interop import torch_tensorrt as interop
    interop.register()
    compiled = torch.compile(model, backend="tensorrt")

An op reaches torch-tensorrt as one node of the graph. `register` says what becomes of it:

    plugin          the kernels of training, compiled by Triton for this GPU, as ahead-of-time plugins of TensorRT
    native layers   the op's static form in operators that torch-tensorrt converts; needs a number for the length

A node that a plugin cannot take (an open shape, a second result that somebody wants) stays with PyTorch, which is what
torch-tensorrt does with all that it cannot convert. For 2.13 and 2.14; it is imported when `register` is called.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from typing import Any

import torch

from neurocompile.ops.plugin_plan import NoPluginError, PluginPlan, planner
from neurocompile.targets.trt.plugins.compiled import PTX_VERSIONS, compile_plan, obstacle
from neurocompile.targets.trt.plugins.series import series
from runtime.backends.tensorrt_plugins import register_image
from runtime.errors import UserError
from runtime.plugins.image import PluginImage

OPERANDS = {torch.float32: "float32", torch.bfloat16: "bfloat16", torch.float16: "float16"}
PLUGIN, NATIVE = "plugin", "native layers"


@dataclass(frozen=True)
class Op:
    """One op and the two operators of torch that stand for it in graphs.

    Attributes:
        folder: In `neurocompile.ops`; `neurocompile::FOLDER` is what `torch.export` keeps.
        kind: Its operator in ONNX, by which plans are found.
        inner: The operator that traces of `torch.compile` hold.
        operands: How many tensors both take first; what follows says what kind of op it is.
        own_results: How many tensors the first of them gives.
        inner_results: How many the second gives.
        plugin_results: How many of those a plugin makes.
        first_as_given: Whether the first result is of the type of the first operand, and not float32.
    """

    folder: str
    kind: str
    inner: str
    operands: int
    own_results: int
    inner_results: int
    plugin_results: int
    first_as_given: bool = False

    def overloads(self) -> tuple[tuple[Any, int], tuple[Any, int]]:
        """Both operators, each with the number of its results."""
        import_module(f"neurocompile.ops.{self.folder}.torch_op")
        space = torch.ops.neurocompile
        own, inner = getattr(space, self.folder).default, getattr(space, self.inner).default
        return (own, self.own_results), (inner, self.inner_results)

    def expand(self) -> Callable[..., tuple[torch.Tensor, ...]]:
        """The static form in plain operators; it gives all that the inner operator does."""
        return import_module(f"neurocompile.ops.{self.folder}.torch_static").expand

    def plan(
        self, shapes: Sequence[tuple[int, ...]], operand: str, capability: int, fields: Sequence[Any]
    ) -> PluginPlan:
        """The plugin for a node, given what follows its tensors; raises `NoPluginError`."""
        if self.kind != "LIF":
            return planner(self.kind)(shapes, operand, capability)
        threshold, v_reset, strict = fields[:3]
        hard = {} if v_reset is None else {"v_reset": v_reset, "hard": 1}
        return planner(self.kind)(shapes, operand, capability, {"threshold": threshold, "strict": int(strict), **hard})


OPS = (
    Op("diagonal_scan", "DiagonalScan", "diagonal_scan_states", 6, 2, 2, 2),
    Op("forgetting_attention", "ForgettingAttention", "forgetting_attention_sums", 4, 1, 2, 1),
    Op("gated_linear_attention", "GatedLinearAttention", "gated_linear_attention_sums", 5, 2, 2, 2),
    Op("lif", "LIF", "lif_states", 3, 2, 3, 2, first_as_given=True),
)


def register(*, plugins: bool = True, capability: int | None = None) -> dict[str, str]:
    """Tells torch-tensorrt what to do with our ops; once per process, before anything is compiled.

    Args:
        plugins: Whether plugins are wanted where they can be made.
        capability: Compute capability of the GPU, e.g. 90; that of torch's current device where not given.

    Returns:
        Op -> `plugin`, or `native layers` and in brackets why it is no plugin.

    Raises:
        UserError: If torch-tensorrt cannot be imported.
    """
    try:
        lowering = import_module("torch_tensorrt.dynamo.lowering")
        module = import_module("torch_tensorrt")
    except Exception as error:  # Without TensorRT's libraries it raises whatever comes to hand.
        raise UserError(
            f"torch-tensorrt cannot be imported here ({' '.join(str(error).split())[:200]}); install torch-tensorrt "
            "and the TensorRT that its release notes name"
        ) from error
    reason = "" if plugins else "not asked for"
    reason = reason or _obstacle(module)
    if not reason and capability is None:
        capability, reason = _capability()
    if not reason and capability not in PTX_VERSIONS:
        reason = f"no kernels are made for sm_{capability}"
    for op in OPS:
        if reason:
            _decompose(op, lowering)
        else:
            _convert(op, int(capability or 0))
    return dict.fromkeys((op.folder for op in OPS), f"{NATIVE} ({reason})" if reason else PLUGIN)


def _obstacle(module: Any) -> str:
    """Why plugins cannot be made here; empty if they can."""
    features = import_module(f"{module.__name__}._features").ENABLED_FEATURES
    if not getattr(features, "qdp_plugin", False):
        return "this TensorRT has no quick-deployable plugins"
    if not hasattr(import_module("tensorrt.plugin"), "aot_impl"):
        return "this TensorRT has no ahead-of-time plugins; 10.9 was the first"
    return obstacle()


def _capability() -> tuple[int | None, str]:
    if not torch.cuda.is_available():
        return None, "torch sees no GPU whose machine code to make"
    major, minor = torch.cuda.get_device_capability()
    return 10 * major + minor, ""


def _decompose(op: Op, lowering: Any) -> None:
    """Hands torch-tensorrt the static form."""
    table, expand = lowering.TORCH_TRT_DECOMPOSITIONS, op.expand()
    decompositions = import_module(f"{lowering.__name__}._decompositions")
    for overload, count in op.overloads():

        def form(*given: Any, count: int = count) -> Any:
            results = expand(*given)[:count]
            return results if count > 1 else results[0]

        if overload not in table:
            decompositions.register_torch_trt_decomposition(overload, registry=table)(form)


def _convert(op: Op, capability: int) -> None:
    """Hands torch-tensorrt a converter that puts the plugins of one node into a network."""
    conversion = import_module("torch_tensorrt.dynamo.conversion")
    for overload, count in op.overloads():

        def validate(node: Any, settings: Any = None) -> bool:
            return not why_not(op, node, capability)

        def convert(
            ctx: Any, target: Any, args: Sequence[Any], kwargs: dict[str, Any], name: str, count: int = count
        ) -> Any:
            results = _layers(op, ctx, args, name, capability)
            return results[0] if count == 1 else (*results, *[None] * (count - len(results)))

        conversion.dynamo_tensorrt_converter(overload, capability_validator=validate)(convert)


def why_not(op: Op, node: Any, capability: int) -> str:
    """Why a node of a traced graph is no plugin; empty if it is one.

    Args:
        op: What the node stands for.
        node: With fake tensors in `meta["val"]` of itself and its operands.
        capability: Compute capability.
    """
    values = [operand.meta.get("val") if hasattr(operand, "meta") else operand for operand in node.args[: op.operands]]
    if not all(isinstance(value, torch.Tensor) for value in values):
        return "its operands are not all tensors of known shape"
    if any(not isinstance(size, int) for value in values for size in value.shape):
        return "a shape is open"
    if values[0].dtype not in OPERANDS:
        return f"there is no kernel for {values[0].dtype}"
    if isinstance(node.meta["val"], tuple) and any(user.args[1] >= op.plugin_results for user in node.users):
        return "a result is wanted that the plugin keeps to itself"
    try:
        fields = node.args[op.operands :]
        op.plan([tuple(value.shape) for value in values], OPERANDS[values[0].dtype], capability, fields)
    except NoPluginError as why:
        return str(why)
    return ""


def _layers(op: Op, ctx: Any, given: Sequence[Any], name: str, capability: int) -> list[Any]:
    """Adds the plugins of one node to a network, in series, and returns the op's results."""
    trt, plugin = import_module("tensorrt"), import_module("tensorrt.plugin")
    get_tensor = import_module("torch_tensorrt.dynamo.conversion.converter_utils").get_trt_tensor
    tensors = [get_tensor(ctx, value, f"{name}_operand_{place}") for place, value in enumerate(given[: op.operands])]
    kinds = {trt.DataType.FLOAT: "float32", trt.DataType.BF16: "bfloat16", trt.DataType.HALF: "float16"}
    shapes = tuple(tuple(tensor.shape) for tensor in tensors)
    image = _image(op, shapes, kinds[tensors[0].dtype], capability, tuple(given[op.operands :]))
    types = {kind: dtype for dtype, kind in kinds.items()} | {"int32": trt.DataType.INT32}

    def cast(tensor: Any, wanted: Any) -> Any:
        return tensor if tensor.dtype == wanted else ctx.net.add_cast(tensor, wanted).get_output(0)

    values = {
        wanted.name: cast(tensor, types[wanted.dtype]) for tensor, wanted in zip(tensors, image.inputs, strict=True)
    }
    for part in series(image):
        maker = register_image(part.image, trt, plugin)
        layer = ctx.net.add_plugin(maker(*(values[tensor] for tensor in part.inputs)), aot=True)
        layer.name = f"{name}-{part.image.name}"
        values.update({tensor: layer.get_output(place) for place, tensor in enumerate(part.outputs)})
    results = [values[output.name] for output in image.outputs]
    return [cast(results[0], tensors[0].dtype), *results[1:]] if op.first_as_given else results


@cache
def _image(
    op: Op, shapes: tuple[tuple[int, ...], ...], operand: str, capability: int, fields: tuple[Any, ...]
) -> PluginImage:
    return compile_plan(op.plan(shapes, operand, capability, fields), capability)[0]
