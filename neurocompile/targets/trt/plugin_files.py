"""What plugins add to a bundle: their images or their C++, nodes in the graphs, and what the runtime must know."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import onnx_ir as ir

from neurocompile.targets.trt.plugged import Placed, compiled, plug
from neurocompile.targets.trt.plugins import cpp_source
from runtime.errors import InternalError
from runtime.plugins.image import PluginImage

FOLDER = "plugins"
TWINS = "native"
"""Where graphs of plain layers lie whose shipped form has plugins."""


@dataclass(frozen=True)
class Plugins:
    """What is written.

    Attributes:
        files: Path in the bundle -> bytes.
        needs: For the manifest's target: `plugin_kind`, `plugins`, the paths, and `plugin_names`, as graphs have them.
        report: Per plugin its op, chip, and what the assembler says of its kernels.
    """

    files: dict[str, bytes] = field(default_factory=dict)
    needs: dict[str, Any] = field(default_factory=dict)
    report: dict[str, Any] = field(default_factory=dict)


def plugin_files(
    models: Mapping[str, ir.Model], placed: Iterable[Placed], capability: int | None, kind: str
) -> Plugins:
    """Compiles plugins and puts them into graphs.

    Args:
        models: Typed graphs in which op nodes are left; these are replaced.
        placed: From `plugged.place`.
        capability: Of the GPU.
        kind: `aot` or `cpp`.

    Returns:
        The files besides the graphs.
    """
    if capability is None:
        raise InternalError("plugins are compiled for a GPU, and none is named")
    images: dict[str, PluginImage] = {}
    report: dict[str, Any] = {}
    placed = list(placed)
    for stage, model in models.items():
        made = {each.node: compiled(each, capability, kind) for each in placed if each.stage == stage and each.plan}
        for plugin in made.values():
            for number, part in enumerate(plugin.parts):
                images[part.image.name] = part.image
                kernels = plugin.report if kind == "cpp" else plugin.report[number : number + 1]
                report[part.image.name] = {"op": plugin.whole.op, "kernels": kernels}
        plug(model, made, kind)
    if kind == "aot":
        files = {f"{FOLDER}/{name}.json": image.to_bytes() for name, image in images.items()}
    else:
        files = cpp_source.sources(tuple(images.values()))
    about = {"kind": kind, "capability": capability, "made_by": next(iter(images.values())).made_by, "plugins": report}
    return Plugins(files, {"plugin_kind": kind, "plugins": sorted(files), "plugin_names": sorted(images)}, about)
