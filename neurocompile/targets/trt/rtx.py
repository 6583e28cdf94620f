"""A check without a GPU: TensorRT for RTX parses and builds the graphs; what it builds is thrown away.

It is another product than the TensorRT of a device, with the parser and the strong typing of TensorRT 11.
"""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from typing import Any

from runtime.backends.tensorrt_build import build_plan

CAPABILITIES = (86, 89, 120)
PACKAGE = "tensorrt-rtx"
INSTALL = "pip install 'neurocompile[trt-check]'"


def obstacle() -> str:
    """Empty, or why the check cannot be made here."""
    return "" if find_spec("tensorrt_rtx") else f"{PACKAGE} is not installed ({INSTALL})"


def tool() -> str:
    """Name and version, for reports."""
    try:
        return f"{PACKAGE} {version(PACKAGE)}"
    except PackageNotFoundError:
        return PACKAGE


def check(stage: str, graph: bytes, capabilities: tuple[int, ...] = CAPABILITIES) -> dict[str, Any]:
    """Parses and builds one graph.

    Args:
        stage: The stage's name, for messages.
        graph: The ONNX file, without plugins.
        capabilities: Compute capabilities to build for.

    Returns:
        `layers` of the network, `bytes` of the engine, and the capabilities.

    Raises:
        UserError: If it refuses the graph; with its reason.
    """
    trt = import_module("tensorrt_rtx")

    def configure(config: Any) -> None:
        config.num_compute_capabilities = len(capabilities)
        for place, number in enumerate(capabilities):
            config.set_compute_capability(getattr(trt.ComputeCapability, f"SM{number}"), place)

    plan, layers = build_plan(trt, stage, graph, configure)
    return {"layers": layers, "bytes": len(plan), "capabilities": list(capabilities)}
