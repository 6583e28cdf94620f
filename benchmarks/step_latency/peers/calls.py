"""An executor for libraries that take tensors and return new ones: one call per stage, on the schedule of ours."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from runtime.errors import InternalError
from runtime.program import ProgramSpec

LINE = 64


@dataclass(frozen=True)
class Call:
    """One stage as a function.

    Attributes:
        function: Takes the values of `inputs` in order; returns a sequence in the order of `outputs`.
        inputs: Names of items, values and states.
        outputs: Names of values and states (without `_next`).
    """

    function: Callable[..., Sequence[Any]]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]


class CallExecutor:
    """Runs stages as calls; see `runtime.session.Executor`.

    Args:
        spec: The program's tables.
        calls: Stage name -> its call.
        wrap: NumPy array -> the library's tensor.
        unwrap: The library's tensor -> NumPy array.
        live: Whether a wrapped array shares the array's memory, so that items are set without a new tensor.
    """

    def __init__(
        self,
        spec: ProgramSpec,
        calls: Mapping[str, Call],
        wrap: Callable[[np.ndarray], Any],
        unwrap: Callable[[Any], np.ndarray],
        *,
        live: bool,
    ) -> None:
        self._spec, self._wrap, self._unwrap, self._live = spec, wrap, unwrap, live
        self._calls = [calls[stage.name] for stage in spec.stages]
        self._buffers = [aligned(zeros(spec, item.name)) for item in spec.items]
        self._cells = [buffer.reshape(1).data for buffer in self._buffers]
        self._values: dict[str, Any] = {
            item.name: wrap(buffer) for item, buffer in zip(spec.items, self._buffers, strict=True)
        }
        self._types = [np.dtype(item.dtype).type for item in spec.items]
        self._initial = {s.name: wrap(aligned(np.full(s.shape, s.initial, s.dtype))) for s in spec.states}
        self._values.update(self._initial)

    def set_items(self, values: tuple[Any, ...]) -> None:
        """See `Executor.set_items`."""
        if self._live:
            for cell, value in zip(self._cells, values, strict=True):
                cell[0] = value
            return
        for item, kind, value in zip(self._spec.items, self._types, values, strict=True):
            self._values[item.name] = self._wrap(kind(value))

    def fire(self, stage: int) -> None:
        """See `Executor.fire`."""
        call, values = self._calls[stage], self._values
        values.update(zip(call.outputs, call.function(*[values[name] for name in call.inputs]), strict=True))

    def run_chunk(self, items: Mapping[str, np.ndarray]) -> None:
        """No peer has a chunk form here."""
        raise InternalError("a peer of the latency benchmark was asked for a chunk")

    def output(self, name: str) -> np.ndarray:
        """See `Executor.output`."""
        return np.array(self._unwrap(self._values[name]))

    def get_state(self, name: str) -> np.ndarray:
        """See `Executor.get_state`."""
        return self.output(name)

    def set_state(self, name: str, value: np.ndarray | float) -> None:
        """See `Executor.set_state`; tensors are never written to, so the initial one serves again."""
        state = self._spec.state(name)
        if isinstance(value, (int, float)) and value == state.initial:
            self._values[name] = self._initial[name]
        else:
            self._values[name] = self._wrap(aligned(np.broadcast_to(value, state.shape).astype(state.dtype)))


def outputs_of(spec: ProgramSpec, stage: str) -> tuple[str, ...]:
    """Names of what a stage's graph makes, in order."""
    one = spec.stage(stage)
    return (*(output.name for output in one.outputs), *one.writes)


def zeros(spec: ProgramSpec, name: str) -> np.ndarray:
    """An array of the type and shape of an item, value or state."""
    one = next((state for state in spec.states if state.name == name), None) or spec.value(name)
    return np.zeros(one.shape, one.dtype)


def aligned(array: np.ndarray) -> np.ndarray:
    """A copy that begins on a cache line, as some libraries demand of memory that they share."""
    memory = np.zeros(array.nbytes + LINE, np.uint8)
    begin = -memory.ctypes.data % LINE
    copy = memory[begin : begin + array.nbytes].view(array.dtype).reshape(array.shape)
    copy[...] = array
    return copy
