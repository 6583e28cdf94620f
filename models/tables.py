"""The tables of a stream program in the making: what every family's builder fills."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from torch import nn

from neurocompile.program import ChunkSpec, ProgramSpec, StageSpec, StateSpec, StreamProgram, Trigger
from runtime.front_ends import TokenDt


class Tables:
    """Collects stages and states while walking down the network."""

    def __init__(self) -> None:
        self.stages: list[StageSpec] = []
        self.states: list[StateSpec] = []
        self.modules: dict[str, nn.Module] = {}

    def state(self, name: str, *shape: int, dtype: str = "float32", initial: float = 0.0) -> str:
        """Adds a state and returns its name."""
        self.states.append(StateSpec(name, dtype, shape, initial))
        return name

    def stage(self, name: str, module: nn.Module, trigger: Trigger, inputs: Sequence[str], **table: Any) -> str:
        """Adds a stage (further fields of `StageSpec` by keyword) and returns its name."""
        lists = {key: tuple(value) for key, value in table.items()}
        self.stages.append(StageSpec(name, trigger, tuple(inputs), **lists))
        self.modules[name] = module
        return name

    def program(
        self,
        family: str,
        front_end: TokenDt,
        labels: tuple[str, ...],
        offline: Callable[[Mapping[str, np.ndarray]], np.ndarray],
        *,
        period: int,
        chunk: ChunkSpec | None,
        notes: Mapping[str, str],
    ) -> StreamProgram:
        """The program over the tables, once they are complete.

        Args:
            family: Model family.
            front_end: Token rule, sensor and gap convention.
            labels: Class names in logit order.
            offline: The network's own forward over a whole stream, in float64.
            period: Items after which every stage has fired a whole number of times.
            chunk: The chunk form, or `None`.
            notes: What users should know about the answers, by subject.
        """
        spec = ProgramSpec(
            family=family,
            front_end=front_end.to_json(),
            items=front_end.items,
            states=tuple(self.states),
            stages=tuple(self.stages),
            chunk=chunk,
            period=period,
            first_readout=period,
            labels=labels,
            notes=dict(notes),
        )
        return StreamProgram(spec, self.modules, offline)
