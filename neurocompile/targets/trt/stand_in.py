"""Typed graphs in ONNX Runtime on this machine's processor, rounded where they round: what parity of `trt-*` runs."""

from __future__ import annotations

from collections.abc import Iterable

import onnx
import onnx_ir as ir
import onnxruntime as ort

from neurocompile.targets import StandIn
from neurocompile.upcast import upcast
from runtime.backends.ort import OrtExecutor
from runtime.program import ProgramSpec
from runtime.session import ScheduledSession, Session


def stand_in(spec: ProgramSpec, graphs: dict[str, bytes], dtype: str, twins: Iterable[str] = ()) -> StandIn:
    """Something that runs shipped graphs.

    Args:
        spec: The tables.
        graphs: Stage name -> the ONNX file as shipped, without plugins.
        dtype: `fp32` graphs run as they are, typed ones in their float32 form.
        twins: Stages whose graphs are shipped with plugins, and of which `graphs` holds the native twin.
    """

    def opened(tick_us: float) -> Session:
        made = graphs if dtype == "fp32" else {name: _rounding(graph) for name, graph in graphs.items()}
        return ScheduledSession(spec, OrtExecutor(spec, made), tick_us=tick_us)

    how = "" if dtype == "fp32" else ", rounding as typed"
    if stages := sorted(twins):
        how += f", native layers where {', '.join(stages)} has plugins"
    return StandIn(f"ONNX Runtime {ort.__version__} on CPU{how}", opened)


def _rounding(graph: bytes) -> bytes:
    return ir.to_proto(upcast(ir.from_proto(onnx.load_from_string(graph)))).SerializeToString()
