"""Sessions: a running stream program. The schedule lives here once, for every backend that runs stage by stage."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Any, Protocol

import numpy as np

from runtime.errors import UserError
from runtime.events.container import Events
from runtime.front_ends import front_end
from runtime.program import ProgramSpec
from runtime.schedule import counts, firings

BLOCK = 4096


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
    def push_event(self, t: int, x: int, y: int, p: bool, intensity: float | None = None) -> int:
        """`push` for a single event, without building arrays; `intensity` where it is a cluster of events."""

    @abstractmethod
    def readout(self) -> np.ndarray:
        """(C,) float32 running answer; before `spec.first_readout` items it rests on no complete group."""

    def settle(self) -> None:
        """Does what was put off, so that readout and states lack nothing of what was pushed.

        Only programs exported with `--smooth` put anything off; it changes no later answer.
        """
        return None

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
        self._readout = spec.stages.index(spec.readout)
        self._answer = spec.readout.outputs[0].name
        # Per item of a cycle: the stages to fire, each with the states to set back afterwards.
        resets = [tuple((name, spec.state(name).initial) for name in stage.resets) for stage in spec.stages]
        due = {fired: tuple((stage, resets[stage]) for stage in fired) for fired in set(firings(spec))}
        self._due = [due[fired] for fired in firings(spec)]
        self._items = 0
        self.reset()

    @property
    def items(self) -> int:  # type: ignore[override]
        """Items processed since the last `reset`."""
        return self._items

    def reset(self) -> None:
        """See `Session.reset`."""
        for state in self.spec.states:
            self._executor.set_state(state.name, state.initial)
        self._executor.set_items((0,) * len(self.spec.items))
        self._items = 0
        self._front_end.reset()

    def push(self, events: Events) -> int:
        """See `Session.push`; whole chunks go through the chunk form where the schedule allows it."""
        items = self._front_end.push(events)
        columns = [items[spec.name] for spec in self.spec.items]
        total, done = len(columns[0]), 0
        while done < total:
            chunk, begin = self._chunk, done
            to_boundary = -self._items % self.spec.period
            if chunk and not to_boundary and total - done >= chunk.items:
                done += chunk.items
                self._executor.run_chunk({name: items[name][begin:done] for name in chunk.inputs})
                self._executor.set_items(tuple(column[done - 1] for column in columns))
                self._items += chunk.items
            else:
                done = min(total, done + (to_boundary or BLOCK))
                for values in zip(*(_rows(column[begin:done]) for column in columns), strict=True):
                    self._step(values)
        return total

    def push_event(self, t: int, x: int, y: int, p: bool, intensity: float | None = None) -> int:
        """See `Session.push_event`."""
        item = self._front_end.push_event(t, x, y, p, intensity)
        if item is None:
            return 0
        self._step(item)
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
            "counts": counts(self.spec, self._items),
            "items": {spec.name: self._executor.output(spec.name) for spec in self.spec.items},
            "states": {spec.name: self._executor.get_state(spec.name) for spec in self.spec.states},
        }

    def restore(self, snapshot: Mapping[str, Any]) -> None:
        """See `Session.restore`."""
        try:
            items = int(snapshot["counts"][-1])
            fits = (
                {name: (value.shape, value.dtype.name) for name, value in snapshot["states"].items()}
                == {state.name: (state.shape, state.dtype) for state in self.spec.states}
                and set(snapshot["items"]) == {spec.name for spec in self.spec.items}
                and list(snapshot["counts"]) == counts(self.spec, items)
            )
        except (KeyError, IndexError, TypeError, ValueError, AttributeError):
            fits = False
        if not fits:
            raise UserError("this snapshot was taken of another program; restore it into a session of the same bundle")
        self._front_end.restore(snapshot["front_end"])
        for name, value in snapshot["states"].items():
            self._executor.set_state(name, value)
        self._executor.set_items(tuple(snapshot["items"][spec.name] for spec in self.spec.items))
        self._items = items

    def watch(self, wrap: Callable[[Executor], Executor]) -> None:
        """Puts `wrap(executor)` between the schedule and the executor, for instance to time every stage."""
        self._executor = wrap(self._executor)

    def _step(self, values: tuple[Any, ...]) -> None:
        """Takes one item and fires what it makes due."""
        executor, items = self._executor, self._items
        executor.set_items(values)
        for stage, resets in self._due[items % len(self._due)]:
            executor.fire(stage)
            for name, initial in resets:
                executor.set_state(name, initial)
        self._items = items + 1


def _rows(column: np.ndarray) -> list[Any] | np.ndarray:
    """The column's rows for a loop; scalars as Python's own, which are the fastest to hand on."""
    return column.tolist() if column.ndim == 1 else column
