"""Target `trt`: every stage as a strongly typed ONNX graph, and what builds engines of them where they will run.

An engine belongs to one TensorRT version and one GPU, so none is built here: the bundle carries graphs of plain layers
that the named TensorRT reads, and is built on the device. What can be said without one is said: a coverage table,
a parse and build by TensorRT for RTX, and parity of the graphs in ONNX Runtime.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import onnx
import onnx_ir as ir

from neurocompile.graph_program import GraphProgram
from neurocompile.rounding import autocast
from neurocompile.targets import Artefact, Availability, TargetSpec
from neurocompile.targets.trt import rtx
from neurocompile.targets.trt.coverage import coverage, show
from neurocompile.targets.trt.graphs import typed_graphs
from neurocompile.targets.trt.stand_in import stand_in
from neurocompile.targets.trt.versions import JETSON, capability, check_device, version_of
from runtime.backends.tensorrt import obstacle
from runtime.errors import InternalError

refuse = check_device
ELSEWHERE = "engines are built where they run"


def build(program: GraphProgram, target: TargetSpec, announce: Callable[[str], None] = lambda text: None) -> Artefact:
    """Types and checks the graphs.

    Args:
        program: The program after the passes.
        target: `trt-fp32`, `trt-bf16` or `trt-fp16`.
        announce: Is told the coverage table before anything is built.

    Returns:
        One graph per stage, and the script that builds engines of them.

    Raises:
        UserError: If a stage has no form in plain layers, or TensorRT for RTX is installed and refuses a graph.
    """
    version = version_of(target)
    models, changes = typed_graphs(program, target.dtype, version)
    table = coverage(models)
    announce(show(table, str(target), version))
    files, graphs = {}, {}
    for number, (stage, model) in enumerate(models.items()):
        path = f"graphs/{stage}.onnx"
        files[path], graphs[stage] = _serialised(stage, model), path
        table[stage]["bytes"] = len(files[path])
        table[stage]["checked"] = ["onnx checker"]
        if not rtx.obstacle():
            found = rtx.check(stage, files[path])
            table[stage]["rtx"] = found
            table[stage]["checked"].append(f"{rtx.tool()}: parsed and built for sm_86, sm_89, sm_120")
        if number == len(models) - 1 and rtx.obstacle():
            announce(f"not checked by TensorRT's parser: {rtx.obstacle()}")
    report = {
        "tensorrt": version,
        "stages": table,
        "typed": [f"{change.rule} [{change.stage}] {change.what}" for change in changes],
        "parser_check": rtx.obstacle() or f"{rtx.tool()} parsed and built every graph for sm_86, sm_89 and sm_120",
        "engines": "none built",
        "remaining": remaining(target),
    }
    return Artefact(
        files,
        graphs,
        report,
        needs={"tensorrt": version, "capability": capability(target.device)},
        obstacle=ELSEWHERE,
        stand_in=stand_in(program.spec, {stage: files[path] for stage, path in graphs.items()}, target.dtype),
        yardstick=partial(autocast, dtype=target.dtype),
    )


def availability() -> Availability:
    """Graphs can be made anywhere; running takes TensorRT and a GPU."""
    return Availability(build="", run=obstacle())


def by_device() -> dict[str, Availability]:
    """Every device but `native`: graphs can be made for all of them, and none is looked for here."""
    here = obstacle() or "where that GPU is"
    return {device: Availability(run=here) for device in (*JETSON, "smNN")}


def remaining(target: TargetSpec) -> str:
    """What is left to do, on which machine, in one sentence."""
    number = capability(target.device)
    where = f"a {target.device}" if target.device in JETSON else "the machine"
    gpu = f"an sm_{number} GPU" if number else "its GPU"
    return (
        f"no engine was built: on {where} with {gpu} and TensorRT {version_of(target)}, run `python -m runtime.verify` "
        "on the bundle, which builds the engines there, keeps them, and checks them against the golden trace"
    )


def _serialised(stage: str, model: ir.Model) -> bytes:
    proto: Any = ir.to_proto(model)
    try:
        onnx.checker.check_model(proto, full_check=True)
    except Exception as error:  # onnx raises several kinds for one cause.
        raise InternalError(f"the typed graph of stage {stage!r} is not valid ONNX: {error}") from error
    return proto.SerializeToString()
