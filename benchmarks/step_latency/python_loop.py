"""Timing a session from Python, one event per call."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from benchmarks.step_latency.figures import row
from runtime.events.container import Events
from runtime.session import Session
from runtime.trace import push_singly

ROUNDS = 3


def processor_ns(session: Session, events: Events) -> float:
    """Processor time of the process per event of one pass, all threads counted."""
    session.reset()
    start = time.process_time()
    push_singly(session, events)
    return (time.process_time() - start) / len(events) * 1e9


def rate_of(session: Session, events: Events) -> float:
    """Events a second of the fastest of a few passes."""
    return 1e9 / min(processor_ns(session, events) for _ in range(ROUNDS))


def samples_ns(session: Session, events: Events) -> np.ndarray:
    """(N,) wall nanoseconds of every event, less the cost of reading the clock."""
    session.reset()
    clock, push = time.perf_counter_ns, session.push_event
    samples = np.empty(len(events))
    columns = [getattr(events, column).tolist() for column in "txyp"]
    for number, event in enumerate(zip(*columns, strict=True)):
        start = clock()
        push(*event)
        samples[number] = clock() - start
    return np.maximum(samples - clock_ns(), 0)


def clock_ns() -> float:
    """What reading the clock twice costs at least."""
    clock = time.perf_counter_ns
    return float(min(-(clock() - clock()) for _ in range(1000)))


class IdleExecutor:
    """Runs nothing: what the schedule itself costs in Python, as part of every peer's figure."""

    def set_items(self, values: tuple[Any, ...]) -> None:
        """See `Executor.set_items`."""

    def fire(self, stage: int) -> None:
        """See `Executor.fire`."""

    def run_chunk(self, items: Mapping[str, np.ndarray]) -> None:
        """See `Executor.run_chunk`."""

    def output(self, name: str) -> np.ndarray:
        """See `Executor.output`."""
        return np.zeros(0)

    def get_state(self, name: str) -> np.ndarray:
        """See `Executor.get_state`."""
        return np.zeros(0)

    def set_state(self, name: str, value: np.ndarray | float) -> None:
        """See `Executor.set_state`."""


@dataclass(eq=False)
class Driven:
    """A contestant that Python drives, one event per call.

    Attributes:
        name: In the table.
        session: Open, and past the gate.
        events: The recording.
        error: Deviation from the reference.
    """

    name: str
    session: Session
    events: Events
    error: float
    spent: list[tuple[float, float]] = field(default_factory=list)
    samples: np.ndarray | None = None

    def round(self) -> None:
        """One pass without clock reads, one with a clock around every event."""
        wall = time.perf_counter_ns()
        processor = processor_ns(self.session, self.events)
        self.spent.append((processor, (time.perf_counter_ns() - wall) / len(self.events)))
        samples = samples_ns(self.session, self.events)
        if self.samples is None or samples.sum() < self.samples.sum():
            self.samples = samples

    def rows(self) -> list[dict[str, Any]]:
        """The row of the table."""
        assert self.samples is not None
        processor, wall = (min(column) for column in zip(*self.spent, strict=True))
        more = {"language": "Python", "error": self.error, "events_per_call": 1}
        return [row(self.name, self.samples, processor, wall, **more)]
