"""The loops that are timed. Every pass begins with `reset` and the same warm-up events, which are never counted."""

from __future__ import annotations

import gc
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from runtime.events import Events
from runtime.session import Executor, ScheduledSession, Session

Row = tuple[int, int, int, bool]
clock = time.perf_counter_ns
cpu_clock = time.process_time_ns


@dataclass(frozen=True)
class Pace:
    """Means of a whole pass.

    Attributes:
        wall_ns: Nanoseconds per event.
        cpu_ns: Processor time of this process per event; it leaves out waiting for a core on a busy machine.
    """

    wall_ns: float
    cpu_ns: float


@dataclass(frozen=True, eq=False)
class Timed:
    """Latencies of single events.

    Attributes:
        taken: (N,) int64 nanoseconds from the event's begin (or scheduled arrival) to its end.
        items: (N,) int64, items that the session had seen before the event, -1 where the event made none.
        waited: (N,) int64 nanoseconds from scheduled arrival to begin; `None` in closed loops.
    """

    taken: np.ndarray
    items: np.ndarray
    waited: np.ndarray | None = None


def rows_of(events: Events) -> list[Row]:
    """The events as Python values, so that no conversion is timed."""
    return list(zip(*(getattr(events, name).tolist() for name in "txyp"), strict=True))


def clock_cost(reads: int = 20_000) -> float:
    """Median nanoseconds between two clock reads with nothing in between; every latency contains one such span."""
    spans = np.empty(reads, np.int64)
    for k in range(reads):
        begin = clock()
        spans[k] = clock() - begin
    return float(np.median(spans))


def closed_loop(sessions: Sequence[Session], rows: Sequence[Row], warmup: int, readout_every: int = 0) -> Timed:
    """Pushes each event as soon as the one before it is done, into one session after the other.

    Args:
        sessions: Independent sessions that all get the same stream, interleaved event by event.
        rows: The stream.
        warmup: Events at its beginning that are not counted.
        readout_every: Ask for the answer within every so many-th event; 0 for never.
    """
    _warm(sessions, rows[:warmup])
    count = len(rows) - warmup
    taken, items = np.empty(count * len(sessions), np.int64), np.empty(count * len(sessions), np.int64)
    k = 0
    for number, (t, x, y, p) in enumerate(rows[warmup:], 1):
        ask = readout_every and number % readout_every == 0
        for session in sessions:
            begin = clock()
            made = session.push_event(t, x, y, p)
            if ask:
                session.readout()
            taken[k] = clock() - begin
            items[k] = session.items - 1 if made else -1
            k += 1
    return Timed(taken, items)


def open_loop(session: Session, rows: Sequence[Row], warmup: int, due: np.ndarray, readout_every: int = 0) -> Timed:
    """Pushes each event when it is due, or as soon after as the ones before it are done.

    Args:
        session: The session.
        rows: The stream.
        warmup: Events at its beginning that are not counted.
        due: (N,) nanoseconds at which the events after the warm-up arrive.
        readout_every: As for `closed_loop`.

    Returns:
        Latencies counted from the scheduled arrival, so that time spent in the queue shows.
    """
    _warm([session], rows[:warmup])
    taken, items, waited = (np.empty(len(due), np.int64) for _ in range(3))
    start = clock() + 1_000_000
    for k, ((t, x, y, p), arrival) in enumerate(zip(rows[warmup:], (due + start).tolist(), strict=True)):
        begin = clock()
        while begin < arrival:
            begin = clock()
        made = session.push_event(t, x, y, p)
        if readout_every and (k + 1) % readout_every == 0:
            session.readout()
        taken[k] = clock() - arrival
        waited[k] = begin - arrival
        items[k] = session.items - 1 if made else -1
    return Timed(taken, items, waited)


def sustained(sessions: Sequence[Session], rows: Sequence[Row], warmup: int, readout_every: int = 0) -> Pace:
    """The closed loop without a clock read inside."""
    _warm(sessions, rows[:warmup])
    counted = rows[warmup:]
    begin, cpu = clock(), cpu_clock()
    for number, (t, x, y, p) in enumerate(counted, 1):
        for session in sessions:
            session.push_event(t, x, y, p)
            if readout_every and number % readout_every == 0:
                session.readout()
    return _pace(begin, cpu, len(counted) * len(sessions))


def bulk(sessions: Sequence[Session], events: Events, warmup: int) -> Pace:
    """Every session gets all events in one push."""
    _warm(sessions, rows_of(events[:warmup]))
    counted = events[warmup:]
    begin, cpu = clock(), cpu_clock()
    for session in sessions:
        session.push(counted)
    return _pace(begin, cpu, len(counted) * len(sessions))


class StageClock:
    """An executor that notes how long each stage takes, for `ScheduledSession.watch`.

    Attributes:
        taken: Stage number -> nanoseconds of every firing.
    """

    def __init__(self, executor: Executor) -> None:
        self._executor = executor
        self._fire = executor.fire
        self.set_items, self.set_state = executor.set_items, executor.set_state
        self.output, self.get_state = executor.output, executor.get_state
        self.taken: dict[int, list[int]] = {}

    def fire(self, stage: int) -> None:
        """Runs stage number `stage` between two clock reads."""
        begin = clock()
        self._fire(stage)
        self.taken.setdefault(stage, []).append(clock() - begin)

    def run_chunk(self, items: Mapping[str, np.ndarray]) -> Any:
        """Runs the chunk form, untimed."""
        return self._executor.run_chunk(items)


def by_stage(
    session: ScheduledSession, rows: Sequence[Row], warmup: int, readout_every: int
) -> tuple[dict[int, list[int]], float]:
    """Runs the closed loop with a clock around every stage; the session keeps the clocks, so use it for nothing else.

    Returns:
        Stage number -> nanoseconds of every firing, and the nanoseconds of the whole pass.
    """
    clocks: list[StageClock] = []

    def wrap(executor: Executor) -> StageClock:
        clocks.append(StageClock(executor))
        return clocks[-1]

    session.watch(wrap)
    _warm([session], rows[:warmup])
    clocks[-1].taken.clear()
    begin = clock()
    for number, (t, x, y, p) in enumerate(rows[warmup:], 1):
        session.push_event(t, x, y, p)
        if readout_every and number % readout_every == 0:
            session.readout()
    return clocks[-1].taken, float(clock() - begin)


def _pace(begin: int, cpu: int, events: int) -> Pace:
    return Pace((clock() - begin) / events, (cpu_clock() - cpu) / events)


def _warm(sessions: Sequence[Session], rows: Sequence[Row]) -> None:
    for session in sessions:
        session.reset()
        for t, x, y, p in rows:
            session.push_event(t, x, y, p)
        session.readout()
    gc.collect()
