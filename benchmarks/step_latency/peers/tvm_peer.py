"""TVM on the same graphs: imported from ONNX into Relax, compiled for this processor, one call per stage."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

from benchmarks.step_latency.peers.calls import Call, CallExecutor, outputs_of
from benchmarks.step_latency.subject import Subject
from runtime.session import ScheduledSession, Session


def tvm(subject: Subject, folder: Path) -> Session:
    """A session whose stages TVM runs, without tuning."""
    import tvm
    from tvm import relax
    from tvm.relax.frontend.onnx import from_onnx

    spec, calls, device = subject.spec, {}, tvm.cpu()
    target = tvm.target.Target({"kind": "llvm", "mcpu": tvm.target.codegen.llvm_get_system_cpu()})
    for name, model in subject.graphs.protos().items():
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # names with points are renamed
            module = from_onnx(model)
        machine = relax.VirtualMachine(tvm.compile(module, target), device)
        inputs = tuple(value.name for value in model.graph.input)
        outputs = outputs_of(spec, name)
        calls[name] = Call(machine["main"] if len(outputs) > 1 else _single(machine["main"]), inputs, outputs)
    executor = CallExecutor(spec, calls, tvm.runtime.from_dlpack, lambda tensor: tensor.numpy(), live=True)
    return ScheduledSession(spec, executor, use_chunk=False)


def _single(function: Any) -> Any:
    return lambda *inputs: (function(*inputs),)


PEERS = {"TVM": tvm}
