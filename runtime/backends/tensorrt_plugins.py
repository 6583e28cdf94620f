"""Ahead-of-time plugins of a bundle, made known to TensorRT before it reads graphs: its quick-deployable plugins.

A plugin is registered once per process under the name of its image, which holds a digest of all that it is. TensorRT
asks for output shapes and launch numbers in its own symbolic integers, which are made here from the image's sizes. An
engine takes the code in, so this is needed where engines are built and not where they run.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from importlib import import_module
from pathlib import PurePosixPath
from types import GenericAlias, ModuleType
from typing import Any

from runtime.bundle import Bundle
from runtime.engines import Host, plugins_of
from runtime.errors import UserError
from runtime.plugins.image import Output, PluginImage
from runtime.plugins.sizes import Size, fold

KIND = "aot"
CREATION_FLAG = "PREFER_AOT_PYTHON_PLUGINS"
TYPES = {"float32": "FLOAT", "bfloat16": "BF16", "float16": "HALF", "int32": "INT32"}
_OPERATORS: dict[str, Callable[[Any, Any], Any]] = {
    "+": lambda left, right: left + right,
    "-": lambda left, right: left - right,
    "*": lambda left, right: left * right,
    "//": lambda left, right: left // right,
}


def needed(bundle: Bundle) -> bool:
    """Whether a bundle's graphs have ahead-of-time plugins."""
    return bundle.manifest["target"].get("plugin_kind") == KIND


def images_of(bundle: Bundle, host: Host) -> list[PluginImage]:
    """The images that a bundle holds, after each was found to be what was exported, and for this GPU.

    Raises:
        UserError: If one is missing, was changed, is no image, or is for another GPU.
    """
    return [_image(bundle, path, host) for path in plugins_of(bundle)]


def check(bundle: Bundle, host: Host) -> None:
    """Raises `UserError` as `images_of`; engines are not even loaded where a plugin is not what it was."""
    if needed(bundle):
        images_of(bundle, host)


def register(bundle: Bundle, host: Host, trt: Any) -> None:
    """Makes TensorRT know the ahead-of-time plugins of a bundle; does nothing for a bundle without.

    Args:
        bundle: The bundle.
        host: This machine.
        trt: The module `tensorrt`.

    Raises:
        UserError: As `images_of`, or if this TensorRT has no such plugins or does not take one.
    """
    if not needed(bundle):
        return
    images = images_of(bundle, host)
    plugin = _module(bundle, trt)
    for image in images:
        try:
            register_image(image, trt, plugin)
        except Exception as error:  # Whatever its checks raise: the interface is marked experimental.
            raise UserError(
                f"TensorRT {trt.__version__} does not take the plugin {image.name} of {bundle.root} "
                f"({' '.join(str(error).split())[:200]}); export it with --plugins none"
            ) from error


def _image(bundle: Bundle, path: str, host: Host) -> PluginImage:
    data = bundle.read(path)
    try:
        image = PluginImage.from_bytes(data)
    except ValueError as error:
        raise UserError(f"{bundle.root / path} is {error}; export the bundle again") from error
    if image.name != PurePosixPath(path).stem:
        raise UserError(f"{bundle.root / path} holds the plugin {image.name}; export the bundle again")
    if image.capability != host.capability:
        raise UserError(
            f"the plugin {image.name} of {bundle.root} was compiled for sm_{image.capability} and the GPU here is "
            f"sm_{host.capability}; export it for {bundle.target.split('@')[0]}@sm{host.capability}"
        )
    return image


def _module(bundle: Bundle, trt: Any) -> Any:
    plugin = getattr(trt, "plugin", None)
    if plugin is None and isinstance(trt, ModuleType):
        try:
            plugin = import_module("tensorrt.plugin")
        except ImportError:
            plugin = None
    if plugin is None or not hasattr(plugin, "aot_impl"):
        raise UserError(
            f"{bundle.root} has ahead-of-time plugins, which TensorRT has from 10.9 on and this machine's "
            f"{trt.__version__} has not; export it with --plugins cpp or none"
        )
    return plugin


def register_image(image: PluginImage, trt: Any, plugin: Any) -> Any:
    """Makes TensorRT know one plugin, unless it does already.

    Args:
        image: Of one launch.
        trt: The module `tensorrt`.
        plugin: The module `tensorrt.plugin`.

    Returns:
        What a network's layer is made with, `tensorrt.plugin.op.NAMESPACE.NAME`.
    """
    space = getattr(plugin.op, image.namespace, None)
    if space is None or getattr(space, image.name, None) is None:
        _register(image, trt, plugin)
    return getattr(getattr(plugin.op, image.namespace), image.name)


def _register(image: PluginImage, trt: Any, plugin: Any) -> None:
    [launch] = image.launches
    name = f"{image.namespace}::{image.name}"
    dtypes = {key: getattr(trt.DataType, value) for key, value in TYPES.items()}
    aliased = dict(image.aliased)

    def made(place: int, output: Output, inputs: tuple[Any, ...]) -> Any:
        if place in aliased:
            return inputs[aliased[place]].aliased()
        shape = tuple(_symbolic(size, inputs, plugin) for size in output.shape)
        return plugin.from_shape_expr(shape, dtypes[output.dtype])

    def describe(*inputs: Any) -> tuple[Any, ...]:
        return tuple(made(place, output, inputs) for place, output in enumerate(image.outputs))

    def compiled(*given: Any) -> tuple[str, str, Any, Any]:
        inputs = given[: len(image.inputs)]
        params = plugin.KernelLaunchParams()
        params.grid_x, params.grid_y, params.grid_z = (_symbolic(size, inputs, plugin) for size in launch.grid)
        params.block_x, params.shared_mem = launch.threads, launch.shared
        numbers = [argument.value for argument in launch.arguments if argument.kind == "int32"]
        extra = plugin.SymIntExprs(len(numbers))
        for place, size in enumerate(numbers):
            extra[place] = plugin.SymInt32(_symbolic(size, inputs, plugin))
        return launch.entry, launch.ptx, params, extra

    # TensorRT reads signatures; the functions are the same for all plugins.
    made_types = GenericAlias(tuple, (plugin.TensorDesc,) * len(image.outputs))
    given = {tensor.name: plugin.TensorDesc for tensor in image.inputs}
    _sign(describe, given, made_types)
    answer = GenericAlias(tuple, (str, str, plugin.KernelLaunchParams, plugin.SymExprs))
    _sign(compiled, given | {"outputs": made_types, "tactic": int}, answer)
    plugin.register(name)(describe)
    plugin.aot_impl(name)(compiled)


def _sign(function: Any, parameters: dict[str, Any], answer: Any) -> None:
    kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
    listed = [inspect.Parameter(name, kind, annotation=of) for name, of in parameters.items()]
    function.__signature__ = inspect.Signature(listed, return_annotation=answer)


def _symbolic(size: Size, inputs: tuple[Any, ...], plugin: Any) -> Any:
    """The size in TensorRT's integers; a plain number where it depends on nothing."""

    def combine(name: str, left: Any, right: Any) -> Any:
        operands = [each if isinstance(each, plugin.ShapeExpr) else plugin.ShapeExpr(each) for each in (left, right)]
        if any(each.is_fake for each in operands):
            # Shapes are not known yet; TensorRT asks for types only, and cannot compute with what it has.
            return plugin.ShapeExpr()
        return (_OPERATORS.get(name) or getattr(plugin, name))(*operands)

    return fold(size, int, lambda i, axis: inputs[i].shape_expr[axis], combine)
