"""OpenVINO on the same graphs: one inference request per stage and side of the states, all tensors set beforehand."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.step_latency.peers.calls import zeros
from benchmarks.step_latency.subject import Subject
from runtime.errors import InternalError
from runtime.program import ProgramSpec, StageSpec
from runtime.session import ScheduledSession, Session

OPTIONS = {
    "PERFORMANCE_HINT": "LATENCY",
    "INFERENCE_NUM_THREADS": 1,
    "NUM_STREAMS": 1,
    "INFERENCE_PRECISION_HINT": "f32",  # the default rounds to bfloat16 where the processor has it
}


class OpenvinoExecutor:
    """Every state has two tensors; a firing reads one and writes the other, then the two swap.

    Args:
        spec: The tables.
        graphs: Stage name -> serialised graph.
    """

    def __init__(self, spec: ProgramSpec, graphs: Mapping[str, bytes]) -> None:
        import openvino

        self._spec = spec
        values = [*spec.items, *(output for stage in spec.stages for output in stage.outputs)]
        self._arrays = {value.name: zeros(spec, value.name) for value in values}
        self._pairs = {state.name: (zeros(spec, state.name), zeros(spec, state.name)) for state in spec.states}
        self._side = dict.fromkeys(self._pairs, 0)
        self._cells = [self._arrays[item.name].reshape(1).data for item in spec.items]
        core = openvino.Core()
        self._stages: list[tuple[tuple[str, ...], dict, Any, tuple[str, ...]]] = []
        for stage in spec.stages:
            model = core.compile_model(core.read_model(graphs[stage.name]), "CPU", OPTIONS)
            names = tuple(dict.fromkeys((*stage.reads, *stage.writes)))
            bind = partial(self._bind, openvino.Tensor, model, stage, names)
            self._stages.append((names, {}, bind, stage.writes))

    def _bind(self, tensor: Any, model: Any, stage: StageSpec, names: tuple[str, ...], sides: tuple[int, ...]) -> Any:
        """A request on the tensors that the states of these sides lie in."""
        side = dict(zip(names, sides, strict=True))
        request = model.create_infer_request()
        for number, port in enumerate(model.inputs):
            name = port.any_name
            array = self._pairs[name][side[name]] if name in side else self._arrays[name]
            request.set_input_tensor(number, tensor(array, shared_memory=True))
        outputs = [self._arrays[output.name] for output in stage.outputs]
        outputs += [self._pairs[name][1 - side[name]] for name in stage.writes]
        for number, array in enumerate(outputs):
            request.set_output_tensor(number, tensor(array, shared_memory=True))
        return request

    def set_items(self, values: tuple[Any, ...]) -> None:
        """See `Executor.set_items`."""
        for cell, value in zip(self._cells, values, strict=True):
            cell[0] = value

    def fire(self, stage: int) -> None:
        """See `Executor.fire`; a request is bound when its combination of sides first comes up."""
        names, requests, bind, writes = self._stages[stage]
        side = self._side
        sides = tuple([side[name] for name in names])
        request = requests.get(sides)
        if request is None:
            request = requests[sides] = bind(sides)
        # `infer` hands out a dictionary of arrays; these two do not.
        request.start_async()
        request.wait()
        for name in writes:
            side[name] ^= 1

    def run_chunk(self, items: Mapping[str, np.ndarray]) -> None:
        """No peer has a chunk form here."""
        raise InternalError("a peer of the latency benchmark was asked for a chunk")

    def output(self, name: str) -> np.ndarray:
        """See `Executor.output`."""
        return self._arrays[name].copy()

    def get_state(self, name: str) -> np.ndarray:
        """See `Executor.get_state`."""
        return self._pairs[name][self._side[name]].copy()

    def set_state(self, name: str, value: np.ndarray | float) -> None:
        """See `Executor.set_state`."""
        self._pairs[name][self._side[name]][...] = value


def openvino(subject: Subject, folder: Path) -> Session:
    """A session whose stages OpenVINO runs."""
    executor = OpenvinoExecutor(subject.spec, subject.graphs.serialised())
    return ScheduledSession(subject.spec, executor, use_chunk=False)


PEERS = {"OpenVINO": openvino}
