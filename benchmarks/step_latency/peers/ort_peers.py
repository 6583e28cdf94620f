"""ONNX Runtime on the same graphs: `run`, bound inputs and outputs (our `onnx` backend), and the dense form."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort

from benchmarks.step_latency.peers.calls import Call, CallExecutor, outputs_of
from benchmarks.step_latency.peers.dense import STAGE, DenseExecutor, DenseSession, dense_graph, dense_spec
from benchmarks.step_latency.subject import Subject
from runtime.backends.ort import OrtExecutor
from runtime.session import ScheduledSession, Session


def run(subject: Subject, folder: Path) -> Session:
    """`InferenceSession.run` per stage."""
    spec, calls = subject.spec, {}
    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    for name, graph in subject.graphs.serialised().items():
        session = ort.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
        names = tuple(value.name for value in session.get_inputs())
        outputs = [value.name for value in session.get_outputs()]
        calls[name] = Call(_function(session.run, outputs, names), names, outputs_of(spec, name))
    return ScheduledSession(spec, CallExecutor(spec, calls, np.asarray, np.asarray, live=True), use_chunk=False)


def _function(call: Callable[..., Any], outputs: list[str], names: tuple[str, ...]) -> Callable[..., Sequence[Any]]:
    return lambda *values: call(outputs, dict(zip(names, values, strict=True)))


def bound(subject: Subject, folder: Path) -> Session:
    """Preallocated ping-pong bindings, no allocation or copy per firing."""
    return ScheduledSession(subject.spec, OrtExecutor(subject.spec, subject.graphs.serialised()), use_chunk=False)


def dense(subject: Subject, folder: Path) -> Session:
    """Every stage at every event, in one bound graph."""
    spec, protos = subject.spec, subject.graphs.protos()
    graphs = {STAGE: dense_graph(spec, protos), spec.readout.name: protos[spec.readout.name]}
    inner = OrtExecutor(dense_spec(spec, masked=True), {n: graph.SerializeToString() for n, graph in graphs.items()})
    return DenseSession(spec, DenseExecutor(inner, spec))


PEERS = {"onnxruntime run": run, "onnxruntime io-binding": bound, "onnxruntime dense": dense}
