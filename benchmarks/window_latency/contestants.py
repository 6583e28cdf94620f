"""Who answers for a window: eager PyTorch twice, torch.compile, ONNX Runtime, and the compiled library."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import torch
from torch import Tensor

from benchmarks.window_latency import reference
from models.event2vec import Event2Vec
from neurocompile.capture import capture
from neurocompile.graph_program import GraphProgram
from neurocompile.passes import run_passes
from neurocompile.program import StreamProgram
from neurocompile.targets import TargetSpec, cpu
from runtime.backends.native import NativeModel, NativeSession
from runtime.events import Events
from runtime.front_ends import Window


@dataclass
class Subject:
    """One network on one window.

    Attributes:
        program: The window's program.
        graphs: The same, captured and after the passes.
        events: The window.
        items: Its token and time columns.
        answer: (C,) the network's own forward in float64.
    """

    program: StreamProgram
    graphs: GraphProgram
    events: Events
    items: dict[str, np.ndarray]
    answer: np.ndarray


def subject(model: Event2Vec, events: Events) -> Subject:
    """The network on a window of all these events."""
    config = model.config
    front = Window(config.width, config.height, len(events), len(events))
    program = model.stream_program(front)
    items = front.open().push(events)
    assert program.offline is not None
    answer = program.offline(items)
    graphs = run_passes(capture(program))[0]
    return Subject(program, graphs, events, {name: column[0] for name, column in items.items()}, answer)


@dataclass
class Contestant:
    """Someone who answers.

    Attributes:
        prepare: Runs before every timed call, untimed.
        answer: The timed call: from the window to its logits.
        facts: What else is known of it.
    """

    prepare: Callable[[], None]
    answer: Callable[[], np.ndarray]
    facts: dict[str, Any]


def eager(case: Subject, attend: reference.Attend) -> Contestant:
    """The network's modules in float32."""
    window, head = (case.program.modules[name].float().eval() for name in ("window", "readout"))
    columns = _columns(case)

    def answer() -> np.ndarray:
        with torch.inference_mode(), reference.attention_is(attend):
            return head(*window(*columns))[0].numpy()

    return Contestant(_nothing, answer, {})


def compiled_torch(case: Subject) -> Contestant:
    """`torch.compile` of the same modules with the attention written out."""
    window, head = (case.program.modules[name].float().eval() for name in ("window", "readout"))
    columns = _columns(case)

    def whole(token: Tensor, time: Tensor) -> Tensor:
        (logits,) = head(*window(token, time))
        return logits

    torch._dynamo.reset()
    function = torch.compile(whole, dynamic=False)

    def answer() -> np.ndarray:
        with torch.no_grad(), reference.attention_is(reference.written_out):
            return function(*columns).numpy()

    return Contestant(_nothing, answer, {})


def onnx(case: Subject) -> Contestant:
    """ONNX Runtime on the graphs that the library is made from."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    files = case.graphs.serialised()
    window, head = (
        onnxruntime.InferenceSession(files[name], options, providers=["CPUExecutionProvider"])
        for name in ("window", "readout")
    )

    def answer() -> np.ndarray:
        (pooled,) = window.run(None, case.items)
        return head.run(None, {"pooled": pooled})[0]

    return Contestant(_nothing, answer, {})


def compiled(case: Subject, dtype: str) -> Contestant:
    """The library: all events but the last are in its window, and the last one is timed, with the readout."""
    files = cpu.build(case.graphs, TargetSpec("cpu", dtype)).files
    folder = Path(tempfile.mkdtemp(prefix="window_latency"))
    name = next(name for name in files if name.startswith("libmodel."))
    (folder / name).write_bytes(files[name])
    model = NativeModel(case.graphs.spec, folder / name, files["model.weights"])
    (folder / name).unlink()
    folder.rmdir()
    session, last = NativeSession(case.graphs.spec, model), case.events[len(case.events) - 1 :]
    row = tuple(int(getattr(last, column)[0]) for column in "txyp")

    def prepare() -> None:
        session.reset()
        session.push(case.events[: len(case.events) - 1])

    def answer() -> np.ndarray:
        session.push_event(*row)  # type: ignore[arg-type]
        return session.readout()

    facts = {"session_bytes": int(model.info.session_bytes), "weights_bytes": int(model.info.weights_bytes)}
    return Contestant(prepare, answer, facts)


def _columns(case: Subject) -> tuple[Tensor, Tensor]:
    return torch.from_numpy(case.items["token"].copy()), torch.from_numpy(case.items["time"].copy())


def _nothing() -> None:
    pass


def contestants(quick: bool) -> dict[str, Callable[[Subject], Contestant]]:
    """By name, slowest last to open."""
    found: dict[str, Callable[[Subject], Contestant]] = {
        "cpu-fp32": lambda case: compiled(case, "fp32"),
        "cpu-bf16": lambda case: compiled(case, "bf16"),
        "ONNX Runtime": onnx,
        "eager, materialised": lambda case: eager(case, reference.materialised),
        "eager, SDPA with mask": lambda case: eager(case, reference.fused),
    }
    return found if quick else {**found, "torch.compile": compiled_torch}
