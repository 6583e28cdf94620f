"""Golden traces: a real sequence with the float64 reference's readouts and states at chosen events; comparison."""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from math import prod
from typing import Any

import numpy as np

from runtime.errors import UserError
from runtime.events.container import Events
from runtime.session import Session

ROOM = 256 << 20
"""Bytes of states in a trace that is being recorded."""


@dataclass(frozen=True, eq=False)
class Trace:
    """What the reference says about one sequence.

    Attributes:
        events: The sequence.
        tick_us: Tick length in microseconds.
        marks: (K,) int64, numbers of events after which the columns below were taken, increasing.
        readouts: (K, C) float64.
        states: State name -> (J, ...) float64.
        source: Where the events came from, for reports.
        states_at: (J,) those of the marks at which states were taken, the last one among them: all, unless states are
            large.
    """

    events: Events
    tick_us: float
    marks: np.ndarray
    readouts: np.ndarray
    states: Mapping[str, np.ndarray]
    source: str
    states_at: np.ndarray

    def select(self, rows: np.ndarray) -> Trace:
        """The same events with fewer marks: those of the given rows, which are numbers or bools."""
        marks = self.marks[rows]
        return replace(
            self,
            marks=marks,
            readouts=self.readouts[rows],
            states={name: values[np.isin(self.states_at, marks)] for name, values in self.states.items()},
            states_at=self.states_at[np.isin(self.states_at, marks)],
        )

    def thin(self, room: int) -> Trace:
        """The same with states at so few marks, evenly spread, that they take no more than `room` bytes, or at one."""
        each = sum(values[:1].nbytes for values in self.states.values())
        keep = np.isin(self.states_at, spread(self.states_at, each, room))
        return replace(
            self,
            states={name: values[keep] for name, values in self.states.items()},
            states_at=self.states_at[keep],
        )

    def to_bytes(self) -> bytes:
        """The trace as an `.npz` archive."""
        buffer = io.BytesIO()
        columns = {f"events/{name}": getattr(self.events, name) for name in "txyp"}
        if self.events.intensity is not None:
            columns["events/intensity"] = self.events.intensity
        states = {f"states/{name}": value for name, value in self.states.items()}
        np.savez_compressed(
            buffer,
            marks=self.marks,
            states_at=self.states_at,
            readouts=self.readouts,
            tick_us=np.float64(self.tick_us),
            source=np.array(self.source),
            **columns,
            **states,  # type: ignore[arg-type]
        )
        return buffer.getvalue()

    @classmethod
    def from_bytes(cls, data: bytes) -> Trace:
        """Reads what `to_bytes` wrote.

        Raises:
            UserError: If the archive is not a trace.
        """
        try:
            with np.load(io.BytesIO(data), allow_pickle=False) as file:
                weight = file["events/intensity"] if "events/intensity" in file.files else None
                return cls(
                    events=replace(Events(*(file[f"events/{name}"] for name in "txyp")), intensity=weight),
                    tick_us=float(file["tick_us"]),
                    marks=file["marks"],
                    readouts=file["readouts"],
                    states={key[7:]: file[key] for key in file.files if key.startswith("states/")},
                    source=str(file["source"]),
                    # A bundle without this column has states at every mark.
                    states_at=file["states_at"] if "states_at" in file.files else file["marks"],
                )
        except Exception as error:  # zipfile, numpy and zlib each raise their own kinds on damaged archives.
            raise UserError(
                f"the golden trace of this bundle cannot be read ({error}); export the model again"
            ) from error


@dataclass(frozen=True)
class Deviation:
    """How far a session was from the reference at one mark.

    Attributes:
        mark: Events pushed so far.
        what: `readout` or a state's name.
        absolute: Largest absolute difference.
        relative: The same, relative to the largest absolute value that the tensor reaches anywhere in the trace.
    """

    mark: int
    what: str
    absolute: float
    relative: float


def record(
    session: Session, events: Events, marks: np.ndarray, *, tick_us: float, source: str, room: int = ROOM
) -> Trace:
    """Pushes `events` through `session` and notes readout and states at every mark, as float64.

    Args:
        session: It is reset first.
        events: The sequence.
        marks: Numbers of events, increasing.
        tick_us: Tick length in microseconds.
        source: Where the events came from.
        room: Bytes that the states may take; where they are so large that they would take more, they are noted at
            fewer marks, the last one among them.
    """
    session.reset()
    states_at = spread(marks, 8 * sum(prod(state.shape) for state in session.spec.states), room)
    names = [state.name for state in session.spec.states]
    readouts: list[np.ndarray] = []
    states: dict[str, list[np.ndarray]] = {name: [] for name in names}
    done = 0
    for mark in marks:
        session.push(events[done : int(mark)])
        done = int(mark)
        session.settle()
        readouts.append(session.readout().astype(np.float64))
        for name in names if mark in states_at else ():
            states[name].append(session.state(name).astype(np.float64))
    columns = {name: np.stack(values) for name, values in states.items()}
    return Trace(events[:done], tick_us, np.asarray(marks, np.int64), np.stack(readouts), columns, source, states_at)


def spread(marks: np.ndarray, each: int, room: int) -> np.ndarray:
    """As many of the marks, evenly spread to the last, as fit into `room` bytes at `each` bytes; at least one."""
    count = min(max(room // max(each, 1), 1), len(marks))
    return np.asarray(marks, np.int64)[np.linspace(len(marks) - 1, 0, count).round().astype(int)[::-1]]


def compare(session: Session, trace: Trace, *, pieces: Iterator[int] | None = None) -> list[Deviation]:
    """Replays the trace's events and measures the deviation at every mark.

    Args:
        session: The session under test; it is reset first.
        trace: The reference.
        pieces: Sizes of bulk pushes (chunks are used where available); `None` pushes single events, as a live stream.

    Returns:
        One deviation per mark and tensor that the trace has there.
    """
    session.reset()
    done, deviations = 0, []
    for k, mark in enumerate(trace.marks.tolist()):
        if pieces is None:
            push_singly(session, trace.events[done:mark])
        while pieces is not None and done < mark:
            size = min(next(pieces), mark - done)
            session.push(trace.events[done : done + size])
            done += size
        done = mark
        session.settle()
        deviations.append(_deviation(mark, "readout", session.readout(), trace.readouts, k))
        for row in np.flatnonzero(trace.states_at == mark).tolist():
            for name, values in trace.states.items():
                deviations.append(_deviation(mark, name, session.state(name), values, row))
    return deviations


def push_singly(session: Session, events: Events) -> None:
    """Pushes event by event, as a live stream would."""
    columns = [events.t.tolist(), events.x.tolist(), events.y.tolist(), events.p.tolist()]
    if events.intensity is not None:
        columns.append(events.intensity.tolist())
    for row in zip(*columns, strict=True):
        session.push_event(*row)


def worst(deviations: list[Deviation], what: str | None = None) -> Deviation:
    """The largest relative deviation, of all tensors or of one; NaN counts as the largest."""
    chosen = [d for d in deviations if what in (None, d.what)]
    return max(chosen, key=lambda d: np.inf if np.isnan(d.relative) else d.relative)


def summary(deviations: list[Deviation]) -> dict[str, Any]:
    """The figures a report prints: the worst of the readout, of any state, and over time; `None` where not finite."""
    by_mark: dict[int, float] = {}
    for deviation in deviations:
        by_mark[deviation.mark] = float(np.maximum(by_mark.get(deviation.mark, 0.0), deviation.relative))
    readout, overall = worst(deviations, "readout"), worst(deviations)
    return {
        "readout_absolute": _finite(readout.absolute),
        "readout_relative": _finite(readout.relative),
        "worst_relative": _finite(overall.relative),
        "worst_tensor": overall.what,
        "worst_at_event": overall.mark,
        "relative_by_event": {str(mark): _finite(value) for mark, value in by_mark.items()},
    }


def _finite(value: float) -> float | None:
    """JSON has no numbers that are not finite."""
    return value if np.isfinite(value) else None


def _deviation(mark: int, what: str, value: np.ndarray, reference: np.ndarray, k: int) -> Deviation:
    absolute = float(np.max(np.abs(value.astype(np.float64) - reference[k]), initial=0.0))
    scale = float(np.max(np.abs(reference), initial=0.0))
    return Deviation(mark, what, absolute, absolute / scale if scale else absolute)
