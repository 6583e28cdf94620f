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
    """One op and the nodes that stand for it.

    Attributes:
        folder: In `neurocompile.ops`.
        kind: Its operator in ONNX, by which plans are found.
        inner: The operator of torch that traces hold; the op's own name is what `torch.export` keeps.
        results: How many of the inner operator's results a plugin makes.
        whole: Whether the op's own operator gives all results and not the first alone.
    """

    folder: str
    kind: str
    inner: str
    results: int
    whole: bool

    def overloads(self) -> tuple[Any, Any]:
        """The operators `neurocompile::OP` and `neurocompile::INNER`."""
        import_module(f"neurocompile.ops.{self.folder}")
        space = torch.ops.neurocompile
        return getattr(space, self.folder).default, getattr(space, self.inner).default

    def expand(self) -> Callable[..., Any]:
        """The static form in plain operators, of all results."""
        return import_module(f"neurocompile.ops.{self.folder}.torch_static").expand


OPS = (
    Op("diagonal_scan", "DiagonalScan", "diagonal_scan_states", 2, True),
    Op("forgetting_attention", "ForgettingAttention", "forgetting_attention_sums", 1, False),
    Op("gated_linear_attention", "GatedLinearAttention", "gated_linear_attention_sums", 2, True),
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
    table, whole, expand = lowering.TORCH_TRT_DECOMPOSITIONS, op.whole, op.expand()
    decompositions = import_module(f"{lowering.__name__}._decompositions")
    own, inner = op.overloads()
    for overload, first_alone in ((own, not whole), (inner, False)):
        if overload not in table:
            form = (lambda *inputs: expand(*inputs)[0]) if first_alone else expand
            decompositions.register_torch_trt_decomposition(overload, registry=table)(form)


def _convert(op: Op, capability: int) -> None:
    """Hands torch-tensorrt a converter that puts the plugins of one node into a network."""
    conversion = import_module("torch_tensorrt.dynamo.conversion")
    own, inner = op.overloads()
    for overload, single in ((own, not op.whole), (inner, False)):

        def validate(node: Any, settings: Any = None, single: bool = single) -> bool:
            return not why_not(op, node, capability, single=single)

        def convert(
            ctx: Any, target: Any, args: Sequence[Any], kwargs: dict[str, Any], name: str, single: bool = single
        ) -> Any:
            results = _layers(op, ctx, args, name, capability)
            return results[0] if single else (*results, *[None] * (2 - len(results)))

        conversion.dynamo_tensorrt_converter(overload, capability_validator=validate)(convert)


def why_not(op: Op, node: Any, capability: int, *, single: bool) -> str:
    """Why a node of a traced graph is no plugin; empty if it is one.

    Args:
        op: What the node stands for.
        node: With fake tensors in `meta["val"]` of its operands.
        capability: Compute capability.
        single: Whether the node has one result and not a tuple.
    """
    values = [operand.meta.get("val") if hasattr(operand, "meta") else operand for operand in node.args]
    if not all(isinstance(value, torch.Tensor) for value in values):
        return "its operands are not all tensors of known shape"
    if any(not isinstance(size, int) for value in values for size in value.shape):
        return "a shape is open"
    if values[0].dtype not in OPERANDS:
        return f"there is no kernel for {values[0].dtype}"
    if not single and any(user.args[1] >= op.results for user in node.users):
        return "a result is wanted that the plugin keeps to itself"
    try:
        planner(op.kind)([tuple(value.shape) for value in values], OPERANDS[values[0].dtype], capability)
    except NoPluginError as why:
        return str(why)
    return ""


def _layers(op: Op, ctx: Any, operands: Sequence[Any], name: str, capability: int) -> list[Any]:
    """Adds the plugins of one node to a network, in series, and returns the op's results."""
    trt, plugin = import_module("tensorrt"), import_module("tensorrt.plugin")
    get_tensor = import_module("torch_tensorrt.dynamo.conversion.converter_utils").get_trt_tensor
    tensors = [get_tensor(ctx, operand, f"{name}_operand_{place}") for place, operand in enumerate(operands)]
    kinds = {trt.DataType.FLOAT: "float32", trt.DataType.BF16: "bfloat16", trt.DataType.HALF: "float16"}
    image = _image(op.kind, tuple(tuple(tensor.shape) for tensor in tensors), kinds[tensors[0].dtype], capability)
    types = {kind: dtype for dtype, kind in kinds.items()} | {"int32": trt.DataType.INT32}
    values = {}
    for tensor, wanted in zip(tensors, image.inputs, strict=True):
        same = tensor.dtype == types[wanted.dtype]
        values[wanted.name] = tensor if same else ctx.net.add_cast(tensor, types[wanted.dtype]).get_output(0)
    for part in series(image):
        maker = register_image(part.image, trt, plugin)
        layer = ctx.net.add_plugin(maker(*(values[tensor] for tensor in part.inputs)), aot=True)
        layer.name = f"{name}-{part.image.name}"
        values.update({tensor: layer.get_output(place) for place, tensor in enumerate(part.outputs)})
    return [values[output.name] for output in image.outputs]


@cache
def _image(kind: str, shapes: tuple[tuple[int, ...], ...], operand: str, capability: int) -> PluginImage:
    plan: PluginPlan = planner(kind)(shapes, operand, capability)
    return compile_plan(plan, capability)[0]
