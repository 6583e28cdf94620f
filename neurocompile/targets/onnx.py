"""Targets `onnx-fp32`, `onnx-bf16`, `onnx-fp16`: every stage as an ONNX file that stock ONNX Runtime runs.

State is named input/output pairs (`x`, `x_next`), float32 in all of them. In `onnx-fp32`, ops of the `neurocompile`
domain are model-local functions of standard ops; the others are plain typed layers (`onnx_low.py`). Opset and IR
version are ones that released runtimes accept.
"""

from __future__ import annotations

from collections import Counter
from functools import partial
from importlib.util import find_spec
from typing import Any

import onnx
import onnx_ir as ir

from neurocompile.graph_program import GraphProgram
from neurocompile.passes.typed import LOW
from neurocompile.rounding import autocast
from neurocompile.targets import Artefact, Availability, TargetSpec
from neurocompile.targets.onnx_low import PORTABLE, portable, typed_models
from runtime.errors import InternalError, UserError


def build(program: GraphProgram, target: TargetSpec) -> Artefact:
    """Checks and serialises the graphs.

    Args:
        program: The program after the passes.
        target: `onnx-fp32`, `onnx-bf16` or `onnx-fp16`, device `native`.

    Returns:
        One file per stage; for bf16 a second one for providers that compute in it.

    Raises:
        UserError: If a weight does not fit the precision.
    """
    if target.dtype not in LOW:
        files, graphs, stages = _serialised(program.protos(), "graphs")
        return Artefact(files, graphs, {"stages": stages})
    models, changes = typed_models(program, target.dtype)
    typed = {stage: ir.to_proto(model) for stage, model in models.items()}
    report: dict[str, Any] = {"typed": [f"{change.rule} [{change.stage}] {change.what}" for change in changes]}
    device_graphs: dict[str, str] = {}
    files, graphs, report["stages"] = _serialised(typed, "device" if target.dtype in PORTABLE else "graphs")
    if target.dtype in PORTABLE:
        device_files, device_graphs = files, graphs
        report["device_stages"] = report["stages"]
        forms = {stage: ir.to_proto(portable(model, target.dtype)) for stage, model in models.items()}
        files, graphs, report["stages"] = _serialised(forms, "graphs")
        files |= device_files
    return Artefact(files, graphs, report, device_graphs=device_graphs, yardstick=partial(autocast, dtype=target.dtype))


def _serialised(
    protos: dict[str, onnx.ModelProto], folder: str
) -> tuple[dict[str, bytes], dict[str, str], dict[str, Any]]:
    """Files by path, the paths by stage, and what each stage is made of; after ONNX's own check."""
    files, graphs, stages = {}, {}, {}
    for stage, proto in protos.items():
        try:
            onnx.checker.check_model(proto, full_check=True)
        except Exception as error:  # onnx raises several kinds for one cause.
            raise InternalError(f"the graph of stage {stage!r} is not valid ONNX: {error}") from error
        path = f"{folder}/{stage}.onnx"
        files[path] = proto.SerializeToString()
        graphs[stage] = path
        stages[stage] = _describe(proto, len(files[path]))
    return files, graphs, stages


def refuse(target: TargetSpec) -> None:
    """Raises `UserError` if a device other than `native` is asked for."""
    if target.device != "native":
        raise UserError(f"{target} names a device, but ONNX graphs run anywhere; leave out '@{target.device}'")


def availability() -> Availability:
    """ONNX files can be written everywhere; running them takes onnxruntime."""
    missing = "" if find_spec("onnxruntime") else "onnxruntime is not installed: pip install onnxruntime"
    return Availability(build="", run=missing)


def _describe(proto: onnx.ModelProto, size: int) -> dict[str, Any]:
    kinds = Counter(f"{node.domain}::{node.op_type}" if node.domain else node.op_type for node in proto.graph.node)
    return {"nodes": len(proto.graph.node), "bytes": size, "operators": dict(kinds.most_common())}
