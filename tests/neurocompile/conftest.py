"""What the compiler's tests share: graphs by hand and running them; event-ssm's programs, captured once each."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest
import torch

from models.event_ssm import EventSSM, EventSSMConfig
from neurocompile.capture import capture
from neurocompile.graph_program import GraphProgram
from neurocompile.passes import run_passes
from neurocompile.program import StreamProgram
from runtime.backends.ort import OrtExecutor
from runtime.events import Events
from runtime.front_ends import TokenDt
from runtime.session import ScheduledSession

SMALL = EventSSMConfig(
    num_embeddings=20,
    num_classes=5,
    d_model=8,
    d_ssm=8,
    ssm_block_size=4,
    num_stages=2,
    num_layers_per_stage=2,
    pooling_stride=4,
)
MADE_UP = {
    "two_stages": SMALL,
    "batch_norm": replace(SMALL, discretization="dirac", batchnorm=True, state_expansion_factor=2, conj_sym=True),
    "zoh_last": replace(
        SMALL, discretization="zoh", pooling_stride=2, pooling_mode="last", classification_mode="pool", clip_eigs=True
    ),
    "post_norm": replace(SMALL, prenorm=False, pooling_mode="avgpool", classification_mode="last", d_model=12),
    "stride_one": replace(SMALL, discretization="zoh", prenorm=False, pooling_stride=1, state_expansion_factor=2),
}
"""Networks for tests that need no published weights."""

Arrays = dict[str, np.ndarray]


@pytest.fixture(scope="session")
def interpret() -> Callable[[str, Any], Any]:
    """Runs a script of this folder in a process where Triton's kernels are interpreted: questions in, answers out."""

    def run(script: str, questions: Any) -> Any:
        environment = {**os.environ, "TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"}
        environment["PYTHONPATH"] = os.pathsep.join(sys.path)
        command = [sys.executable, str(Path(__file__).with_name(script))]
        done = subprocess.run(command, input=json.dumps(questions), capture_output=True, text=True, env=environment)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    return run


@pytest.fixture(scope="session")
def probe(interpret) -> Callable[[str, list[list[Any]]], dict[str, list[Any]]]:
    """Runs a script that answers probes, `[name, arguments]` each: the answers by the probes' name, in order."""

    def run(script: str, probes: list[list[Any]]) -> dict[str, list[Any]]:
        answers: dict[str, list[Any]] = {}
        for (name, _), answer in zip(probes, interpret(script, probes), strict=True):
            answers.setdefault(name, []).append(answer)
        return answers

    return run


@pytest.fixture(scope="session")
def graph() -> Callable[..., ir.Model]:
    """Makes a model from ONNX's textual form, with initializers given as arrays."""

    def make(text: str, functions: str = "", **constants: np.ndarray) -> ir.Model:
        opsets = '"" : 20' + (', "made.up" : 1' if functions else "")
        proto = onnx.parser.parse_model(f"<ir_version: 10, opset_import: [{opsets}]>\n{text}\n{functions}")
        for name, array in constants.items():
            proto.graph.initializer.append(onnx.numpy_helper.from_array(np.asarray(array), name))
        return ir.from_proto(onnx.shape_inference.infer_shapes(proto))

    return make


@pytest.fixture(scope="session")
def run() -> Callable[..., Arrays]:
    """Runs a model that must be valid ONNX in stock ONNX Runtime: outputs by name."""

    def evaluate(model: ir.Model, **feeds: object) -> Arrays:
        proto = ir.to_proto(model)
        onnx.checker.check_model(proto, full_check=True)
        options = ort.SessionOptions()
        options.log_severity_level = 3
        session = ort.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])
        kinds = {"tensor(int64)": np.int64, "tensor(int32)": np.int32}
        inputs = [*session.get_inputs(), *session.get_overridable_initializers()]
        typed = {i.name: np.asarray(feeds[i.name], kinds.get(i.type, np.float32)) for i in inputs if i.name in feeds}
        names = [output.name for output in session.get_outputs()]
        assert len(set(names)) == len(names)
        return dict(zip(names, session.run(names, typed), strict=True))

    return evaluate


@pytest.fixture(scope="session")
def kinds() -> Callable[[ir.Model], list[str]]:
    """The operators of a graph, in order."""
    return lambda model: [node.op_type for node in model.graph]


def made_up(config: EventSSMConfig) -> EventSSM:
    """A network of random weights, in which no norm, bias or statistic is trivial."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = EventSSM(config).eval()
        for name, value in model.state_dict().items():
            if name.endswith(("bias", "norm.weight", "running_mean")):
                value.add_(0.3 * torch.randn(value.shape))
            elif name.endswith("running_var"):
                value.uniform_(0.3, 2)
    return model


@pytest.fixture(scope="session")
def program(request) -> Callable[..., StreamProgram]:
    """The stream program of a network in `MADE_UP`, or of a golden case of event-ssm."""

    @cache
    def load(name: str, dt: str = "next") -> StreamProgram:
        model = made_up(MADE_UP[name]) if name in MADE_UP else request.getfixturevalue("event_ssm_case")(name).model()
        vocabulary = model.config.num_embeddings
        return model.stream_program(TokenDt("channel", vocabulary, 1, dt, vocabulary), ())

    return load


@pytest.fixture(scope="session")
def captured(program) -> Callable[[str], GraphProgram]:
    """The same, captured; before the passes."""
    return cache(lambda name: capture(program(name)))


@pytest.fixture(scope="session")
def compiled(captured) -> Callable[[str], GraphProgram]:
    """The same after the passes."""
    return cache(lambda name: run_passes(captured(name))[0])


@pytest.fixture(scope="session")
def open_onnx() -> Callable[..., ScheduledSession]:
    """Opens a session of a captured program in ONNX Runtime."""

    def start(graphs: GraphProgram, use_chunk: bool = False) -> ScheduledSession:
        return ScheduledSession(graphs.spec, OrtExecutor(graphs.spec, graphs.serialised()), use_chunk=use_chunk)

    return start


@pytest.fixture(scope="session")
def stream() -> Callable[..., Events]:
    """Random events over a program's whole vocabulary: long pauses, bursts, runs of equal time stamps."""

    def make(program: StreamProgram | GraphProgram, count: int, seed: int = 0) -> Events:
        rng = np.random.default_rng(seed)
        gaps = rng.choice([0, 0, 1, 17, 250, 1000, 9000], count)
        begin = int(rng.integers(0, count))
        gaps[begin : begin + 40] = 0
        t = 10_000_000 + np.cumsum(gaps)
        return Events(t, rng.integers(0, program.spec.front_end["width"], count), np.zeros(count), np.zeros(count))

    return make
