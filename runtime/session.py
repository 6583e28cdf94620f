"""Sessions: a running stream program. The schedule lives here once, for every backend that runs stage by stage."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np

from runtime.errors import UserError
from runtime.events.container import Events
from runtime.front_ends import front_end
from runtime.program import ITEMS, REQUEST, ProgramSpec


class Session(ABC):
    """A stream program with its own state.

    Attributes:
        spec: The program's tables.
        items: Items processed since the last `reset`.
    """

    spec: ProgramSpec
    items: int

    @abstractmethod
    def reset(self) -> None:
        """Forgets the stream: initial states, no events."""

    @abstractmethod
    def push(self, events: Events) -> int:
        """Processes events in order.

        Args:
            events: Any number of events.

        Returns:
            The number of items that became complete.

        Raises:
            UserError: If an event is out of range or out of order; the session is then as it was.
        """

    @abstractmethod
    def push_event(self, t: int, x: int, y: int, p: bool) -> int:
        """`push` for a single event, without building arrays."""

    @abstractmethod
    def readout(self) -> np.ndarray:
        """(C,) float32 running answer; before `spec.first_readout` items it rests on no complete group."""

    @abstractmethod
    def state(self, name: str) -> np.ndarray:
        """A copy of one state tensor."""

    @abstractmethod
    def snapshot(self) -> dict[str, Any]:
        """Everything needed to continue from here, independent of the backend."""

    @abstractmethod
    def restore(self, snapshot: Mapping[str, Any]) -> None:
        """Continues where `snapshot` was taken.

        Raises:
            UserError: If the snapshot belongs to another program.
        """

    @property
    def ready(self) -> bool:
        """Whether the readout rests on at least one complete group."""
        return self.items >= self.spec.first_readout


class Executor(Protocol):
    """What a backend offers a `ScheduledSession`: firing one stage, and access to its tensors."""

    def set_items(self, values: tuple[Any, ...]) -> None:
        """Sets the front end's values, in the order of `spec.items`."""

    def fire(self, stage: int) -> None:
        """Runs stage number `stage`; its reads and writes are the executor's own state tensors."""

    def run_chunk(self, items: Mapping[str, np.ndarray]) -> None:
        """Runs the chunk form on (N,) item values."""

    def output(self, name: str) -> np.ndarray:
        """A copy of the latest value called `name`."""

    def get_state(self, name: str) -> np.ndarray:
        """A copy of a state."""

    def set_state(self, name: str, value: np.ndarray | float) -> None:
        """Overwrites a state."""


class ScheduledSession(Session):
    """A session that fires stages one by one on an `Executor`, as their triggers come due."""

    def __init__(self, spec: ProgramSpec, executor: Executor, *, tick_us: float = 1.0, use_chunk: bool = True) -> None:
        self.spec = spec
        self._executor = executor
        self._front_end = front_end(spec.front_end).open(tick_us)
        self._chunk = spec.chunk if use_chunk else None
        index = {stage.name: number for number, stage in enumerate(spec.stages)}
        self._readout = index[spec.readout.name]
        self._answer = spec.readout.outputs[0].name
        self._resets = [[(name, spec.state(name).initial) for name in stage.resets] for stage in spec.stages]
        # Followers of a source, in table order: (stage number, every, phase); the front end's come last.
        sources = {**index, ITEMS: len(index)}
        self._followers: list[list[tuple[int, int, int]]] = [[] for _ in sources]
        for stage in spec.stages:
            trigger = stage.trigger
            if trigger.after != REQUEST:
                self._followers[sources[trigger.after]].append((index[stage.name], trigger.every, trigger.phase))
        self._counts = [0] * len(sources)
        self._chunk_counts = self._firings(self._chunk.items) if self._chunk else []
        self.reset()

    @property
    def items(self) -> int:  # type: ignore[override]
        """Items processed since the last `reset`."""
        return self._counts[-1]

    def reset(self) -> None:
        """See `Session.reset`."""
        for state in self.spec.states:
            self._executor.set_state(state.name, state.initial)
        self._executor.set_items((0,) * len(self.spec.items))
        self._counts = [0] * len(self._counts)
        self._front_end.reset()

    def push(self, events: Events) -> int:
        """See `Session.push`; whole chunks go through the chunk form where the schedule allows it."""
        items = self._front_end.push(events)
        columns = [items[spec.name] for spec in self.spec.items]
        total, done = len(columns[0]), 0
        source = len(self._counts) - 1
        while done < total:
            chunk = self._chunk
            if chunk and total - done >= chunk.items and self.items % self.spec.period == 0:
                rows = slice(done, done + chunk.items)
                self._executor.run_chunk({name: items[name][rows] for name in chunk.inputs})
                done += chunk.items
                self._counts = [count + more for count, more in zip(self._counts, self._chunk_counts, strict=True)]
                self._executor.set_items(tuple(column[done - 1] for column in columns))
            else:
                self._executor.set_items(tuple(column[done] for column in columns))
                self._cascade(source)
                done += 1
        return total

    def push_event(self, t: int, x: int, y: int, p: bool) -> int:
        """See `Session.push_event`."""
        item = self._front_end.push_event(t, x, y, p)
        if item is None:
            return 0
        self._executor.set_items(item)
        self._cascade(len(self._counts) - 1)
        return 1

    def readout(self) -> np.ndarray:
        """See `Session.readout`."""
        self._executor.fire(self._readout)
        return self._executor.output(self._answer)

    def state(self, name: str) -> np.ndarray:
        """See `Session.state`."""
        return self._executor.get_state(name)

    def snapshot(self) -> dict[str, Any]:
        """See `Session.snapshot`."""
        return {
            "front_end": self._front_end.snapshot(),
            "counts": list(self._counts),
            "items": {spec.name: self._executor.output(spec.name) for spec in self.spec.items},
            "states": {spec.name: self._executor.get_state(spec.name) for spec in self.spec.states},
        }

    def restore(self, snapshot: Mapping[str, Any]) -> None:
        """See `Session.restore`."""
        shapes = {name: value.shape for name, value in snapshot["states"].items()}
        if shapes != {spec.name: spec.shape for spec in self.spec.states} or len(snapshot["counts"]) != len(
            self._counts
        ):
            raise UserError("this snapshot was taken of another program; restore it into a session of the same bundle")
        for name, value in snapshot["states"].items():
            self._executor.set_state(name, value)
        self._executor.set_items(tuple(snapshot["items"][spec.name] for spec in self.spec.items))
        self._counts = list(snapshot["counts"])
        self._front_end.restore(snapshot["front_end"])

    def _cascade(self, source: int) -> None:
        """Counts one firing of `source` and fires what follows from it."""
        count = self._counts[source]
        self._counts[source] = count + 1
        for stage, every, phase in self._followers[source]:
            if count % every == phase:
                self._executor.fire(stage)
                for name, initial in self._resets[stage]:
                    self._executor.set_state(name, initial)
                self._cascade(stage)

    def _firings(self, items: int) -> list[int]:
        """How often each source fires within `items` items that begin at a period boundary."""
        counts = [0] * len(self._counts)
        counts[-1] = items
        for source in (len(counts) - 1, *range(len(counts) - 1)):
            for stage, every, phase in self._followers[source]:
                counts[stage] = (counts[source] - phase + every - 1) // every
        return counts
