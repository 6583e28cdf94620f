"""Target `onnx-fp32`: every stage as an ONNX file that stock ONNX Runtime runs.

State is named input/output pairs (`x`, `x_next`). Ops of the `neurocompile` domain are model-local functions of
standard ops. Opset and IR version are ones that released runtimes accept.
"""

from __future__ import annotations

from collections import Counter
from importlib.util import find_spec
from typing import Any

import onnx

from neurocompile.graph_program import GraphProgram
from neurocompile.targets import Artefact, Availability, TargetSpec
from runtime.errors import InternalError, UserError


def build(program: GraphProgram, target: TargetSpec) -> Artefact:
    """Checks and serialises the graphs.

    Args:
        program: The program after the passes.
        target: `onnx-fp32`, device `native`.

    Returns:
        One file per stage.
    """
    files, graphs, stages = {}, {}, {}
    for stage, proto in program.protos().items():
        try:
            onnx.checker.check_model(proto, full_check=True)
        except Exception as error:  # onnx raises several kinds for one cause.
            raise InternalError(f"the graph of stage {stage!r} is not valid ONNX: {error}") from error
        path = f"graphs/{stage}.onnx"
        files[path] = proto.SerializeToString()
        graphs[stage] = path
        stages[stage] = _describe(proto, len(files[path]))
    return Artefact(files, graphs, {"stages": stages})


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
