"""A stream program as a model states it: the tables plus one torch module per stage."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from torch import nn

from runtime.program import ChunkSpec, ProgramSpec, StageSpec, StateSpec, TensorSpec, Trigger

__all__ = ["ChunkSpec", "ProgramSpec", "StageSpec", "StateSpec", "StreamProgram", "TensorSpec", "Trigger"]


@dataclass(frozen=True)
class StreamProgram:
    """The tables and, under each stage's name (and the chunk's), the module that computes it.

    A module's `forward` takes the stage's inputs, then the states it reads, as positional tensors in table order,
    and returns a tuple of the stage's outputs, then the new values of the states it writes, in table order.
    Modules are made of the trained model's own submodules, are pure, and hold no state of their own.

    Attributes:
        spec: The tables.
        modules: Stage name -> module, the chunk's included.
        offline: The trained network on a whole stream at once: item columns (N,) by name -> (C,) float64 answer.
            It shares no code with the stages, so parity can hold them against it.
    """

    spec: ProgramSpec
    modules: Mapping[str, nn.Module]
    offline: Callable[[Mapping[str, np.ndarray]], np.ndarray] | None = None

    def __post_init__(self) -> None:
        wanted = {stage.name for stage in self.spec.stages} | ({self.spec.chunk.name} if self.spec.chunk else set())
        if wanted != set(self.modules):
            raise ValueError(f"stages {sorted(wanted)} need modules, got {sorted(self.modules)}")
