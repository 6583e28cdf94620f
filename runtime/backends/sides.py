"""Which of its two buffers every state is in: a firing reads one side and writes the other, then they swap.

States that the same stages write swap together, so a stage needs one binding for every combination of the sides of
the groups it touches. Those are few and can all be made beforehand.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product

from runtime.program import ProgramSpec, StageSpec


class Sides:
    """The sides of a program's states.

    Args:
        spec: The program's tables.
        chunk: Whether the chunk form writes into the other buffers, too; `turn_chunk` then swaps those.

    Attributes:
        bits: Bit g says which of its two buffers group g reads from next.
    """

    def __init__(self, spec: ProgramSpec, *, chunk: bool = False) -> None:
        bodies = {stage.name: stage.writes for stage in spec.stages}
        if chunk and spec.chunk:
            bodies[spec.chunk.name] = spec.chunk.writes
        writers = {s.name: frozenset(name for name, writes in bodies.items() if s.name in writes) for s in spec.states}
        groups = {writer: number for number, writer in enumerate(dict.fromkeys(writers.values()))}
        self._group = {name: groups[writer] for name, writer in writers.items()}
        self._chunk = _bits({self._group[name] for name in spec.chunk.writes}) if chunk and spec.chunk else 0
        self.bits = 0

    def turn_chunk(self) -> None:
        """Swaps the buffers of what the chunk form writes, after it ran."""
        self.bits ^= self._chunk

    def of(self, state: str) -> int:
        """0 or 1: where the state is now."""
        return self.bits >> self._group[state] & 1

    def masks(self, stage: StageSpec) -> tuple[int, int]:
        """The bits that choose a stage's binding, and those that its firing turns over."""
        touched = {self._group[name] for name in (*stage.reads, *stage.writes)}
        return _bits(touched), _bits({self._group[name] for name in stage.writes})

    def bindings(self, stage: StageSpec) -> Iterator[tuple[int, dict[str, int]]]:
        """For every combination: its bits, and graph tensor -> state buffer (`x` and `x_next` by name)."""
        groups = list(dict.fromkeys(self._group[name] for name in (*stage.reads, *stage.writes)))
        for choice in product((0, 1), repeat=len(groups)):
            side = dict(zip(groups, choice, strict=True))
            bound = {name: side[self._group[name]] for name in stage.reads}
            bound.update({f"{name}_next": 1 - side[self._group[name]] for name in stage.writes})
            yield sum(bit << group for group, bit in side.items()), bound


def _bits(groups: set[int]) -> int:
    return sum(1 << group for group in groups)
