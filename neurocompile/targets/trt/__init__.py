"""Target `trt`: every stage as a strongly typed ONNX graph, and what builds engines of them where they will run.

An engine belongs to one TensorRT version and one GPU, so none is built here: the bundle carries graphs of plain layers
that the named TensorRT reads, and is built on the device. What can be said without one is said: a coverage table,
a parse and build by TensorRT for RTX, and parity of the graphs in ONNX Runtime.

With `--plugins`, ops become plugins made of the Triton kernels. Neither of those two runs plugins, so both then look at
the native twin of a graph, which the bundle keeps, and the report says so.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import onnx
import onnx_ir as ir

from neurocompile.calibration import Calibration
from neurocompile.eight_bits import choose as choose_products
from neurocompile.eight_bits import told
from neurocompile.graph_program import GraphProgram
from neurocompile.rounding import autocast, eight_bit
from neurocompile.targets import Artefact, Availability, TargetSpec
from neurocompile.targets.trt import rtx
from neurocompile.targets.trt.coverage import coverage, show
from neurocompile.targets.trt.graphs import typed_graphs
from neurocompile.targets.trt.plugged import AOT_FROM, choose, place
from neurocompile.targets.trt.plugin_files import TWINS, Plugins, plugin_files
from neurocompile.targets.trt.remains import remaining, scripts
from neurocompile.targets.trt.stand_in import stand_in
from neurocompile.targets.trt.versions import JETSON, capability, check_device, least_capability, low_of, version_of
from runtime.backends.tensorrt import obstacle
from runtime.errors import InternalError

ELSEWHERE = "engines are built where they run"


def build(
    program: GraphProgram,
    target: TargetSpec,
    announce: Callable[[str], None] = lambda text: None,
    calibration: Calibration | None = None,
) -> Artefact:
    """Types and checks the graphs.

    Args:
        program: The program after the passes.
        target: `trt-fp32`, `trt-bf16`, `trt-fp16`, `trt-int8` or `trt-fp8`.
        announce: Is told the coverage table before anything is built.
        calibration: Of the program, for `trt-int8` and `trt-fp8`.

    Returns:
        One graph per stage, and the scripts that build engines of them.

    Raises:
        UserError: If a stage has no form in plain layers, TensorRT for RTX is installed and refuses a graph, or plugins
            were asked for that this TensorRT, GPU or machine has not.
    """
    version, chosen = version_of(target), choose(target)
    placed = place(program, target, chosen)
    low, eight = low_of(target), choose_products(program.graphs, calibration, target.dtype) if calibration else None
    models, changes = typed_graphs(program, low, version, eight=eight)
    kept = frozenset((each.stage, each.node) for each in placed if each.plan)
    ours = {stage for stage, _ in kept}
    kind = chosen if ours else "none"
    with_ops, typed_otherwise = typed_graphs(program, low, version, kept, eight) if kept else ({}, [])
    changes = [change for change in changes if change.stage not in ours]
    changes += [change for change in typed_otherwise if change.stage in ours]
    with_ops = {stage: model for stage, model in with_ops.items() if stage in ours}
    table = coverage(models | with_ops, placed)
    announce(show(table, str(target), version))
    if eight:
        announce(told(program.graphs, eight))
    checked = tuple(number for number in rtx.CAPABILITIES if number >= (least_capability(target) or 0))
    names = [f"sm_{number}" for number in checked]
    made = plugin_files(with_ops, placed, capability(target.device), kind) if ours else Plugins()
    files, graphs, plain = made.files | scripts(target, kind), {}, {}
    for stage, model in models.items():
        path = f"{TWINS if stage in ours else 'graphs'}/{stage}.onnx"
        files[path] = plain[stage] = _serialised(stage, model)
        graphs[stage] = f"graphs/{stage}.onnx"
        if stage in ours:
            files[graphs[stage]] = _serialised(stage, with_ops[stage])
        table[stage]["bytes"] = len(files[graphs[stage]])
        table[stage]["checked"] = ["onnx checker"]
        if not rtx.obstacle():
            table[stage]["rtx"] = rtx.check(stage, files[path], checked)
            what = f", of the native twin {path}" if stage in ours else ""
            table[stage]["checked"].append(f"{rtx.tool()}: parsed and built for {', '.join(names)}{what}")
    if rtx.obstacle():
        announce(f"not checked by TensorRT's parser: {rtx.obstacle()}")
    tensorrt = AOT_FROM.get(version, version) if kind == "aot" else version
    twins = f", of {', '.join(sorted(ours))} the native twin" if ours else ""
    report = {
        "tensorrt": version,
        "stages": table,
        "typed": [f"{change.rule} [{change.stage}] {change.what}" for change in changes],
        "parser_check": rtx.obstacle()
        or f"{rtx.tool()} parsed and built every graph for {', '.join(names[:-1])} and {names[-1]}{twins}",
        "engines": "none built",
        **({"plugins": made.report} if ours else {}),
        **({"calibration": calibration.report} if calibration else {}),
        "remaining": remaining(target, kind),
    }
    return Artefact(
        files,
        graphs,
        report,
        needs={"tensorrt": tensorrt, "capability": capability(target.device), **_least(target), **made.needs},
        obstacle=ELSEWHERE,
        stand_in=stand_in(program.spec, plain, target.dtype, ours),
        yardstick=partial(eight_bit, dtype=target.dtype, low=low) if eight else partial(autocast, dtype=low),
    )


def _least(target: TargetSpec) -> dict[str, int]:
    least = least_capability(target)
    return {"least_capability": least} if least and capability(target.device) is None else {}


def refuse(target: TargetSpec) -> None:
    """Raises `UserError` for a device, precision or kind of plugin that cannot be."""
    check_device(target)
    choose(target)


def availability() -> Availability:
    """Graphs can be made anywhere; running takes TensorRT and a GPU."""
    return Availability(build="", run=obstacle())


def by_device() -> dict[str, Availability]:
    """Every device but `native`: graphs can be made for all of them, and none is looked for here."""
    here = obstacle() or "where that GPU is"
    return {device: Availability(run=here) for device in (*JETSON, "smNN")}


def _serialised(stage: str, model: ir.Model) -> bytes:
    proto: Any = ir.to_proto(model)
    try:
        onnx.checker.check_model(proto, full_check=True)
    except Exception as error:  # onnx raises several kinds for one cause.
        raise InternalError(f"the typed graph of stage {stage!r} is not valid ONNX: {error}") from error
    return proto.SerializeToString()
