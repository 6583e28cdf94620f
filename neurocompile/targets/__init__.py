"""Targets: one file with one `build` function each, found by name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from importlib import import_module
from typing import Any

from neurocompile.calibration import Calibration
from neurocompile.graph_program import GraphProgram
from neurocompile.program import StreamProgram
from neurocompile.targets.spec import TargetSpec, parse_target
from runtime.errors import UserError
from runtime.session import Session

__all__ = [
    "CALIBRATED",
    "TARGETS",
    "Artefact",
    "Availability",
    "StandIn",
    "TargetSpec",
    "build",
    "find_target",
    "parse_target",
]

TARGETS: dict[str, str] = {
    "onnx-fp32": "neurocompile.targets.onnx",
    "onnx-bf16": "neurocompile.targets.onnx",
    "onnx-fp16": "neurocompile.targets.onnx",
    "cpu-fp32": "neurocompile.targets.cpu",
    "cpu-bf16": "neurocompile.targets.cpu",
    "cpu-int8": "neurocompile.targets.cpu",
    "trt-fp32": "neurocompile.targets.trt",
    "trt-bf16": "neurocompile.targets.trt",
    "trt-fp16": "neurocompile.targets.trt",
    "trt-int8": "neurocompile.targets.trt",
    "trt-fp8": "neurocompile.targets.trt",
}
"""Target name without device -> module with `build` and `availability`."""

CALIBRATED = ("cpu-bf16", "cpu-int8", "trt-int8", "trt-fp8")
"""Targets without device that take a calibration."""


@dataclass(frozen=True)
class StandIn:
    """Something that runs an artefact which this machine cannot run.

    Attributes:
        name: For the report.
        open: A session, given the tick length in microseconds.
    """

    name: str
    open: Callable[[float], Session]


@dataclass(frozen=True)
class Artefact:
    """What a target made of a program.

    Attributes:
        files: Path inside the bundle -> bytes.
        graphs: Stage name -> path of its graph, for backends that run stage by stage.
        report: What the export prints and the manifest keeps.
        needs: What the machine that runs it must have: `architecture`, `system`, `features`; empty if anything will do.
        obstacle: Why this machine cannot run it; empty if it can.
        stand_in: What can run it in this machine's stead, where there is an obstacle.
        yardstick: The reference program in the artefact's precision, where that is more than rounded weights.
        proxy: Empty if parity on this machine proves what ships; else by what it only speaks for that, for instance
            by another compiler's output. The runtime then wants a verification where it runs.
        device_graphs: As `graphs`, for accelerators that run another form than the processor.
    """

    files: dict[str, bytes]
    graphs: dict[str, str] = field(default_factory=dict)
    report: dict[str, Any] = field(default_factory=dict)
    proxy: str = ""
    needs: dict[str, Any] = field(default_factory=dict)
    obstacle: str = ""
    stand_in: StandIn | None = None
    yardstick: Callable[[StreamProgram], StreamProgram] | None = None
    device_graphs: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Availability:
    """Whether a target can be built and run on this machine.

    Attributes:
        build: Empty, or why it cannot be built here.
        run: Empty, or why it cannot be run here.
    """

    build: str = ""
    run: str = ""


def find_target(text: str, tensorrt: str | None = None, smooth: bool = False, plugins: str | None = None) -> TargetSpec:
    """The target that `text` names; see `parse_target` for errors.

    Args:
        text: E.g. `onnx-fp32`.
        tensorrt: The option `--tensorrt`, for targets of TensorRT only.
        smooth: The option `--smooth`, for targets of compiled C only.
        plugins: The option `--plugins`, for targets of TensorRT only.
    """
    target = parse_target(text, tuple(TARGETS))
    if tensorrt and target.backend != "trt":
        raise UserError(f"--tensorrt is for targets of TensorRT, and {text!r} is none; leave it out")
    if plugins and target.backend != "trt":
        raise UserError(f"--plugins is for targets of TensorRT, and {text!r} is none; leave it out")
    if smooth and target.backend != "cpu":
        raise UserError(f"--smooth is for the targets cpu-*, and {text!r} is none; leave it out")
    return replace(target, tensorrt=tensorrt or "", smooth=smooth, plugins=plugins or "")


def require(target: TargetSpec) -> None:
    """Finds out before any work is done whether a target can be built here.

    Raises:
        UserError: If this machine lacks something, or the target's module refuses the device.
    """
    module = _module(target)
    if reason := module.availability().build:
        raise UserError(f"{target} cannot be built here: {reason}")
    if refuse := getattr(module, "refuse", None):
        refuse(target)


def build(
    program: GraphProgram,
    target: TargetSpec,
    announce: Callable[[str], None] = lambda text: None,
    calibration: Calibration | None = None,
) -> Artefact:
    """Lowers a captured program.

    Args:
        program: The program after the passes.
        target: From `find_target`.
        announce: Is told what a target has to say before it builds; most say nothing.
        calibration: Of `program`, for the targets `CALIBRATED`.

    Returns:
        The files to ship.
    """
    function: Callable[..., Artefact] = _module(target).build
    given: dict[str, Any] = {"announce": announce} if target.backend == "trt" else {}
    if target.name in CALIBRATED:
        given["calibration"] = calibration
    return function(program, target, **given)


def availability(name: str) -> Availability:
    """What this machine can do with the target called `name`."""
    function: Callable[[], Availability] = _module(find_target(name)).availability
    return function()


def devices() -> dict[str, Availability]:
    """What this machine can do with the devices that a target may name after an `@`; asking takes seconds."""
    found: dict[str, Availability] = {}
    for name in TARGETS:
        module = _module(find_target(name))
        if name.partition("-")[0] not in {key.partition("-")[0] for key in found} and hasattr(module, "by_device"):
            found |= {f"{name.partition('-')[0]}-*@{device}": can for device, can in module.by_device().items()}
    return found


def _module(target: TargetSpec) -> Any:
    return import_module(TARGETS[target.name])
