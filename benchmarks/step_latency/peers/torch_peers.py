"""PyTorch on the same graphs: eager, torch.compile, and AOTInductor (compiled ahead of time, loaded as a package)."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from benchmarks.step_latency.peers import graph_function
from benchmarks.step_latency.peers.cache import kept
from benchmarks.step_latency.peers.calls import Call, CallExecutor, outputs_of, zeros
from benchmarks.step_latency.peers.graph_function import DTYPES, GraphFunction, Operator, common
from benchmarks.step_latency.peers.graph_function import gather as common_gather
from benchmarks.step_latency.subject import Subject
from runtime.session import ScheduledSession, Session


def gather(attributes: Mapping[str, Any], a: Tensor, index: Any) -> Tensor:
    """Rows of the first axis; an index in a tensor stays one, for compilers to see no number of the data in a shape."""
    if isinstance(index, Tensor) and attributes.get("axis", 0) == 0:
        return a.index_select(0, index.reshape(-1)).reshape(*index.shape, *a.shape[1:])
    return common_gather(attributes, a, index)


VOCABULARY: dict[str, Operator] = {
    **common(torch),
    "Gather": gather,
    # An item's tensor shares memory that the next event overwrites, so nothing may be handed on as it is.
    "Identity": lambda _, a: a.clone(),
    "Sigmoid": lambda _, a: a.sigmoid(),
    "Gelu": lambda attributes, a: functional.gelu(a, approximate=attributes["approximate"].decode()),
    "LayerNormalization": lambda attributes, x, scale, bias=None: functional.layer_norm(
        x, x.shape[-1:], scale, bias, attributes.get("epsilon", 1e-5)
    ),
    "Concat": lambda attributes, *parts: torch.cat(parts, attributes["axis"]),
    "Cast": lambda attributes, a: a.to(getattr(torch, DTYPES[attributes["to"]])),
    "Clip": lambda _, a, low=None, high=None: a.clamp(low, high),
    "ReduceSum": lambda attributes, a, axes: a.sum(axes, keepdim=bool(attributes.get("keepdims", 1))),
}


class StageModule(nn.Module):
    """A stage graph as a module with its constants as buffers.

    Args:
        function: The graph.
        source: Its bytes, by which what is compiled of it is found again.
    """

    def __init__(self, function: GraphFunction, source: bytes) -> None:
        super().__init__()
        self.source = source
        self._function, self._names = function, {}
        for number, (name, array) in enumerate(function.constants.items()):
            self._names[name] = f"c{number}"
            self.register_buffer(f"c{number}", torch.from_numpy(np.array(array)))

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """The graph's outputs."""
        return self._function({name: getattr(self, place) for name, place in self._names.items()}, *inputs)


Compile = Callable[[StageModule, tuple[Tensor, ...], Path], Callable[..., Any]]


def eager(module: StageModule, example: tuple[Tensor, ...], folder: Path) -> Callable[..., Any]:
    """As it is."""
    return module


def compiled(module: StageModule, example: tuple[Tensor, ...], folder: Path) -> Callable[..., Any]:
    """torch.compile: one static graph with its weights as constants."""
    function = torch.compile(module, fullgraph=True, dynamic=False, options={"freezing": True})
    function(*example)
    return function


def ahead_of_time(module: StageModule, example: tuple[Tensor, ...], folder: Path) -> Callable[..., Any]:
    """torch.export, AOTInductor, and the package loaded again.

    The package is run through its loader: the public wrapper reads its call specification from JSON at every call.
    """
    path = folder / "stage.pt2"

    def package() -> bytes:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            torch._inductor.aoti_compile_and_package(torch.export.export(module, example), package_path=str(path))
        return path.read_bytes()

    translation = "".join(Path(file).read_text() for file in (graph_function.__file__, __file__))
    path.write_bytes(kept(module.source, "torch", translation, package))
    run = torch._inductor.aoti_load_package(str(path)).loader.boxed_run
    return lambda *inputs: run(list(inputs))


def open_torch(subject: Subject, folder: Path, compile_stage: Compile) -> Session:
    """A session whose stages torch runs.

    Args:
        subject: The network.
        folder: For what compilation leaves behind.
        compile_stage: One of the above.
    """
    spec, calls = subject.spec, {}
    for name, model in subject.graphs.protos().items():
        function = GraphFunction(model, VOCABULARY)
        example = tuple(torch.from_numpy(zeros(spec, value)) for value in function.inputs)
        place = folder / name
        place.mkdir(parents=True)
        run = compile_stage(StageModule(function, model.SerializeToString()).eval(), example, place)
        calls[name] = Call(run, function.inputs, outputs_of(spec, name))
    executor = CallExecutor(spec, calls, torch.from_numpy, lambda tensor: tensor.numpy(), live=True)
    return ScheduledSession(spec, executor, use_chunk=False)


PEERS = {
    "torch eager": partial(open_torch, compile_stage=eager),
    "torch.compile": partial(open_torch, compile_stage=compiled),
    "AOTInductor": partial(open_torch, compile_stage=ahead_of_time),
}
