"""The reference: a session whose stages are the model's own torch modules, in float64 or float32."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from neurocompile.program import StreamProgram
from runtime.session import ScheduledSession


class TorchExecutor:
    """Runs a program's modules eagerly; see `runtime.session.Executor`."""

    def __init__(self, program: StreamProgram, dtype: torch.dtype = torch.float64) -> None:
        self._spec = program.spec
        self._dtype = dtype
        self._modules = {
            name: copy.deepcopy(module).to(dtype).eval().requires_grad_(False)
            for name, module in program.modules.items()
        }
        self._values: dict[str, Tensor] = {}
        self._states: dict[str, Tensor] = {}

    def set_items(self, values: tuple[Any, ...]) -> None:
        """See `Executor.set_items`; float values keep the precision in which the front end hands them over."""
        for spec, value in zip(self._spec.items, values, strict=True):
            self._values[spec.name] = self._tensor(np.asarray(value))

    @torch.inference_mode()
    def fire(self, stage: int) -> None:
        """See `Executor.fire`."""
        spec = self._spec.stages[stage]
        inputs = [self._values[name] for name in spec.inputs] + [self._states[name] for name in spec.reads]
        results = self._modules[spec.name](*inputs)
        for output, value in zip(spec.outputs, results, strict=False):
            self._values[output.name] = value
        for name, value in zip(spec.writes, results[len(spec.outputs) :], strict=True):
            self._states[name] = value

    @torch.inference_mode()
    def run_chunk(self, items: Mapping[str, np.ndarray]) -> None:
        """See `Executor.run_chunk`."""
        chunk = self._spec.chunk
        assert chunk is not None
        inputs = [self._tensor(items[name]) for name in chunk.inputs] + [self._states[name] for name in chunk.reads]
        self._states.update(zip(chunk.writes, self._modules[chunk.name](*inputs), strict=True))

    def output(self, name: str) -> np.ndarray:
        """See `Executor.output`."""
        return self._values[name].numpy().copy()

    def get_state(self, name: str) -> np.ndarray:
        """See `Executor.get_state`."""
        return self._states[name].numpy().copy()

    def set_state(self, name: str, value: np.ndarray | float) -> None:
        """See `Executor.set_state`."""
        spec = self._spec.state(name)
        wide = np.float64 if spec.dtype.startswith(("float", "bfloat")) else np.dtype(spec.dtype)
        self._states[name] = self._tensor(np.broadcast_to(np.asarray(value, wide), spec.shape).copy())

    def _tensor(self, array: np.ndarray) -> Tensor:
        tensor = torch.as_tensor(array)
        return tensor.to(self._dtype) if tensor.is_floating_point() else tensor


def reference_session(
    program: StreamProgram, dtype: torch.dtype = torch.float64, *, tick_us: float = 1.0, use_chunk: bool = False
) -> ScheduledSession:
    """A session on the model's own modules.

    Args:
        program: The model's program.
        dtype: Precision of weights, states and arithmetic.
        tick_us: Tick length of the stream in microseconds.
        use_chunk: Use the chunk form for bulk pushes.

    Returns:
        The session.
    """
    return ScheduledSession(program.spec, TorchExecutor(program, dtype), tick_us=tick_us, use_chunk=use_chunk)
