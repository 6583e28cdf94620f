"""Backend `onnx` on a device: every tensor stays there, states in two buffers each, stages as CUDA graphs.

The host sends an item's values when a stage that reads them fires, and fetches what somebody asks for; states never
leave the device. Addresses are fixed, so that the CUDA provider can replay a stage as a graph per side of its states.
With the provider `cpu` the same code runs on the processor, which is how it is tested where there is no GPU.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import onnxruntime as ort

from runtime.backends.ort import NEXT, runnable
from runtime.backends.ort_providers import GRAPH_ID, Provider, mention, open_stage
from runtime.backends.sides import Sides
from runtime.program import ProgramSpec, StageSpec


class DeviceExecutor:
    """Runs stage graphs on tensors of a device; see `runtime.session.Executor`.

    Attributes:
        placement: Stage name (and the chunk's) -> how it runs.
    """

    def __init__(self, spec: ProgramSpec, graphs: Mapping[str, bytes], provider: Provider, *, threads: int = 1) -> None:
        """Loads the graphs and runs each stage once per binding, so that no event waits for a capture.

        Args:
            spec: The program's tables.
            graphs: Stage name (and the chunk's) -> serialised ONNX model.
            provider: Where they run.
            threads: Intra-op threads of what runs on the processor.

        Raises:
            UserError: If ONNX Runtime refuses a graph or cannot load the provider.
        """
        self._spec, self._device = spec, provider.device
        chunk = spec.chunk.name if spec.chunk else None
        opened = {
            name: open_stage(name, graph, provider, lambda: _options(threads), capture=name != chunk)
            for name, graph in graphs.items()
        }
        self._sessions = {name: session for name, (session, _) in opened.items()}
        self.placement = {name: how for name, (_, how) in opened.items()}
        mention(self.placement, provider)
        self._sides = Sides(spec, chunk=chunk in graphs)
        self._states = {
            s.name: tuple(self._place(np.full(s.shape, s.initial, s.dtype)) for _ in range(2)) for s in spec.states
        }
        self._cells = [np.zeros(item.shape, item.dtype) for item in spec.items]
        outputs = [output for stage in spec.stages for output in stage.outputs]
        self._values = {
            value.name: self._place(np.zeros(value.shape, value.dtype)) for value in (*spec.items, *outputs)
        }
        self._constants: dict[tuple[str, float], np.ndarray] = {}
        # Bit i says that item value i on the device is not that of the host yet.
        self._stale = 0
        self._stages = [self._bind_stage(stage) for stage in spec.stages]

    def set_items(self, values: tuple[Any, ...]) -> None:
        """See `Executor.set_items`."""
        for cell, value in zip(self._cells, values, strict=True):
            cell[...] = value
        self._stale = (1 << len(self._cells)) - 1

    def fire(self, stage: int) -> None:
        """See `Executor.fire`."""
        runs, reads, flips, items = self._stages[stage]
        if wanted := self._stale & items:
            self._send(wanted)
        runs[self._sides.bits & reads]()
        self._sides.bits ^= flips

    def run_chunk(self, items: Mapping[str, np.ndarray]) -> None:
        """See `Executor.run_chunk`; states are taken from and left on the device."""
        chunk = self._spec.chunk
        assert chunk is not None
        session = self._sessions[chunk.name]
        names = {graph_input.name for graph_input in session.get_inputs()}
        binding = session.io_binding()
        for name in chunk.inputs:
            if name in names:
                column = np.ascontiguousarray(items[name], self._spec.value(name).dtype)
                binding.bind_ortvalue_input(name, self._place(column))
        for name in chunk.reads:
            if name in names:
                binding.bind_ortvalue_input(name, self._current(name))
        for name in chunk.writes:
            binding.bind_ortvalue_output(name + NEXT, self._states[name][1 - self._sides.of(name)])
        session.run_with_iobinding(binding)
        self._sides.turn_chunk()

    def output(self, name: str) -> np.ndarray:
        """See `Executor.output`."""
        for item, cell in zip(self._spec.items, self._cells, strict=True):
            if item.name == name:
                return cell.copy()
        return np.array(self._values[name].numpy())

    def get_state(self, name: str) -> np.ndarray:
        """See `Executor.get_state`."""
        return np.array(self._current(name).numpy())

    def set_state(self, name: str, value: np.ndarray | float) -> None:
        """See `Executor.set_state`."""
        state = self._spec.state(name)
        if not isinstance(value, float | int):
            array = np.array(np.broadcast_to(value, state.shape), state.dtype, order="C")
            self._current(name).update_inplace(array)
            return
        if (name, value) not in self._constants:
            self._constants[name, value] = np.full(state.shape, value, state.dtype)
        self._current(name).update_inplace(self._constants[name, value])

    def _send(self, wanted: int) -> None:
        for place, item in enumerate(self._spec.items):
            if wanted >> place & 1:
                self._values[item.name].update_inplace(self._cells[place])
        self._stale &= ~wanted

    def _place(self, array: np.ndarray) -> Any:
        """A tensor on the device with the array's numbers; in host memory it is the array itself."""
        return ort.OrtValue.ortvalue_from_numpy(array, self._device, 0)

    def _current(self, name: str) -> Any:
        return self._states[name][self._sides.of(name)]

    def _bind_stage(self, stage: StageSpec) -> tuple[dict[int, Callable[[], None]], int, int, int]:
        """A run per combination of sides, the bits that choose it and that it turns, and the items it reads."""
        session = self._sessions[stage.name]
        names = {graph_input.name for graph_input in session.get_inputs()}
        captured = self.placement[stage.name] == "cuda graph"
        runs: dict[int, Callable[[], None]] = {}
        for bits, bound in self._sides.bindings(stage):
            binding = session.io_binding()
            for name in stage.inputs:
                if name in names:
                    binding.bind_ortvalue_input(name, self._values[name])
            for output in stage.outputs:
                binding.bind_ortvalue_output(output.name, self._values[output.name])
            for name in stage.reads:
                if name in names:
                    binding.bind_ortvalue_input(name, self._states[name][bound[name]])
            for name in stage.writes:
                binding.bind_ortvalue_output(name + NEXT, self._states[name][bound[name + NEXT]])
            runs[bits] = _run(session, binding, len(runs) + 1 if captured else None)
            runs[bits]()
        items = sum(1 << place for place, item in enumerate(self._spec.items) if item.name in stage.inputs)
        return runs, *self._sides.masks(stage), items


def _run(session: ort.InferenceSession, binding: ort.IOBinding, graph: int | None) -> Callable[[], None]:
    """Runs a binding; `graph` is the number under which the provider keeps its CUDA graph."""
    options = ort.RunOptions()
    if graph is not None:
        options.add_run_config_entry(GRAPH_ID, str(graph))
    return runnable(session, binding, options)


def _options(threads: int) -> ort.SessionOptions:
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    return options
