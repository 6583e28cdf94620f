"""Backend `onnx`: stages as ONNX graphs in ONNX Runtime on the processor, states in preallocated ping-pong bindings."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from itertools import product
from typing import Any

import numpy as np
import onnxruntime as ort

from runtime.errors import UserError
from runtime.program import ProgramSpec, StageSpec

NEXT = "_next"


class OrtExecutor:
    """Runs stage graphs without an allocation or a copy per firing.

    Every state has two buffers. A firing reads the current one and writes the other, then the two swap. States that
    are written by the same stages swap together, so a stage needs one binding per combination of its groups' sides;
    all of them are made when the executor is created.
    """

    def __init__(self, spec: ProgramSpec, graphs: Mapping[str, bytes], *, threads: int = 1) -> None:
        """Loads the graphs.

        Args:
            spec: The program's tables.
            graphs: Stage name (and the chunk's) -> serialised ONNX model.
            threads: Intra-op threads.

        Raises:
            UserError: If ONNX Runtime refuses a graph.
        """
        self._spec = spec
        chunk = spec.chunk.name if spec.chunk else None
        self._sessions = {name: _open(name, graph, threads, reuse=name == chunk) for name, graph in graphs.items()}
        self._buffers = {s.name: tuple(np.full(s.shape, s.initial, s.dtype) for _ in range(2)) for s in spec.states}
        outputs = [output for stage in spec.stages for output in stage.outputs]
        self._values = {value.name: np.zeros(value.shape, value.dtype) for value in (*spec.items, *outputs)}
        # `cell[0] = value` sets an item's value; through a memoryview a scalar takes half the time.
        self._cells = [_cell(self._values[item.name]) for item in spec.items]

        writers: dict[str, frozenset[str]] = {
            s.name: frozenset(stage.name for stage in spec.stages if s.name in stage.writes) for s in spec.states
        }
        groups = {writer: number for number, writer in enumerate(dict.fromkeys(writers.values()))}
        self._group = {name: groups[writer] for name, writer in writers.items()}
        # Bit g says which of its two buffers group g reads from next.
        self._sides = 0
        self._run_options = ort.RunOptions()
        self._stages = [self._bind_stage(stage) for stage in spec.stages]

    def set_items(self, values: tuple[Any, ...]) -> None:
        """See `Executor.set_items`."""
        for cell, value in zip(self._cells, values, strict=True):
            cell[0] = value

    def fire(self, stage: int) -> None:
        """See `Executor.fire`."""
        runs, reads, flips = self._stages[stage]
        runs[self._sides & reads]()
        self._sides ^= flips

    def run_chunk(self, items: Mapping[str, np.ndarray]) -> None:
        """See `Executor.run_chunk`."""
        chunk = self._spec.chunk
        assert chunk is not None
        feeds = {name: items[name] for name in chunk.inputs}
        feeds.update({name: self._current(name) for name in chunk.reads})
        results = self._sessions[chunk.name].run([name + NEXT for name in chunk.writes], feeds)
        for name, value in zip(chunk.writes, results, strict=True):
            self._current(name)[...] = value

    def output(self, name: str) -> np.ndarray:
        """See `Executor.output`."""
        return self._values[name].copy()

    def get_state(self, name: str) -> np.ndarray:
        """See `Executor.get_state`."""
        return self._current(name).copy()

    def set_state(self, name: str, value: np.ndarray | float) -> None:
        """See `Executor.set_state`."""
        self._current(name)[...] = value

    def _current(self, name: str) -> np.ndarray:
        return self._buffers[name][self._sides >> self._group[name] & 1]

    def _bind_stage(self, stage: StageSpec) -> tuple[dict[int, Callable[[], None]], int, int]:
        """One runnable binding per combination of sides, the bits that choose it, and the bits that a firing flips."""
        session = self._sessions[stage.name]
        names = {graph_input.name for graph_input in session.get_inputs()}
        groups = tuple(dict.fromkeys(self._group[name] for name in (*stage.reads, *stage.writes)))
        runs = {}
        for sides in product((0, 1), repeat=len(groups)):
            side = dict(zip(groups, sides, strict=True))
            binding = session.io_binding()
            for name in stage.inputs:
                if name in names:
                    binding.bind_ortvalue_input(name, _share(self._values[name]))
            for name in stage.reads:
                if name in names:
                    binding.bind_ortvalue_input(name, _share(self._buffers[name][side[self._group[name]]]))
            for output in stage.outputs:
                binding.bind_ortvalue_output(output.name, _share(self._values[output.name]))
            for name in stage.writes:
                binding.bind_ortvalue_output(name + NEXT, _share(self._buffers[name][1 - side[self._group[name]]]))
            runs[sum(bit << group for group, bit in side.items())] = runnable(session, binding, self._run_options)
        return runs, _bits(groups), _bits({self._group[name] for name in stage.writes})


def _bits(groups: Iterable[int]) -> int:
    return sum(1 << group for group in groups)


def _cell(buffer: np.ndarray) -> memoryview | np.ndarray:
    return buffer.reshape(1).data if buffer.shape == () else buffer[np.newaxis]


def runnable(session: ort.InferenceSession, binding: ort.IOBinding, options: ort.RunOptions) -> Callable[[], None]:
    """Runs the binding without the public wrapper's checks, which cost a microsecond a call (30 with run options)."""
    try:
        return partial(session._sess.run_with_iobinding, binding._iobinding, options)
    except AttributeError:  # An ONNX Runtime that calls its insides otherwise.
        return partial(session.run_with_iobinding, binding, options)


def _share(array: np.ndarray) -> Any:
    """An OrtValue over the array's own memory."""
    return ort.OrtValue.ortvalue_from_numpy(array)


def _open(name: str, graph: bytes, threads: int, *, reuse: bool) -> ort.InferenceSession:
    options = ort.SessionOptions()
    # A step's intermediate values are few and small: to give each its own place is up to a tenth faster than sharing.
    options.enable_mem_reuse = reuse
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    try:
        return ort.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # ONNX Runtime's exception types are private to its binding.
        raise UserError(f"ONNX Runtime {ort.__version__} refuses the graph of stage {name!r}: {error}") from error
