"""What a session answers while a recording runs through it: the label, how sure, and by how much, over time."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from runtime.errors import UserError
from runtime.events import Recording
from runtime.session import Session
from runtime.trace import push_singly

ROWS = 20


@dataclass(frozen=True)
class Interval:
    """How often to answer.

    Attributes:
        size: Milliseconds of the recording's time, or events.
        unit: `ms` or `events`.
    """

    size: float
    unit: str

    def __str__(self) -> str:
        return f"{self.size:g} {self.unit}"


@dataclass(frozen=True, eq=False)
class Answer:
    """One readout.

    Attributes:
        time_ms: Time since the recording's first event.
        events: Events pushed so far.
        label: The class with the largest logit.
        probability: Its softmax probability.
        margin: Its logit less the second largest.
        ready: Whether the readout rests on a complete group; before that the model is warming up.
        probabilities: (C,) float64, of all classes.
    """

    time_ms: float
    events: int
    label: str
    probability: float
    margin: float
    ready: bool
    probabilities: np.ndarray

    def to_json(self) -> dict[str, float | int | str | bool]:
        """The plain fields."""
        return {
            "time_ms": round(self.time_ms, 6),
            "events": self.events,
            "label": self.label,
            "probability": self.probability,
            "margin": self.margin,
            "ready": self.ready,
        }


def parse_interval(text: str) -> Interval:
    """`10ms`, `0.5s`, `200us` or a bare number of events.

    Raises:
        UserError: If it is neither.
    """
    for suffix, scale in (("ms", 1.0), ("us", 1e-3), ("s", 1e3), ("", 0.0)):
        if text.endswith(suffix):
            try:
                size = float(text[: len(text) - len(suffix)])
            except ValueError:
                break
            interval = Interval(size * scale, "ms") if scale else Interval(size, "events")
            if 0 < size < float("inf") and (scale or size == int(size)):
                return interval
            break
    raise UserError(f"interval {text!r} is neither a time such as 10ms nor a whole number of events such as 1000")


def suit(recording: Recording) -> Interval:
    """The round time interval that gives at most `ROWS` answers over the recording."""
    span = _span_ms(recording) or 1.0
    power = 10.0 ** math.floor(math.log10(span / ROWS))
    return Interval(next(step * power for step in (1, 2, 5, 10) if span / (step * power) <= ROWS), "ms")


def answers(session: Session, recording: Recording, every: Interval | None) -> Iterator[Answer]:
    """Pushes a recording event by event into a session that is reset first.

    Args:
        session: The session.
        recording: The recording.
        every: When to answer besides the end; `None` for the final answer alone. At a time mark all events before it
            count; marks between which no event came are skipped.

    Yields:
        The answers in order; the last one is the final answer.
    """
    events, done = recording.events, 0
    session.reset()
    for mark, time_ms in _marks(recording, every):
        push_singly(session, events[done:mark])
        done = mark
        if done == len(events):
            session.settle()
        yield _answer(session, time_ms, done)


def _marks(recording: Recording, every: Interval | None) -> list[tuple[int, float]]:
    """(events, milliseconds) of every answer."""
    count = len(recording.events)
    if not count:
        raise UserError(f"{recording.source}: holds no events, so there is nothing to answer")
    times = (recording.events.t - recording.events.t[0]) * (recording.tick_us / 1000)
    marks: dict[int, float] = {}
    if every and every.unit == "events":
        marks = {int(mark): float(times[mark - 1]) for mark in np.arange(every.size, count, every.size).astype(int)}
    elif every:
        ticks = every.size * 1000 / recording.tick_us
        number = ((recording.events.t - recording.events.t[0]) / ticks).astype(np.int64)
        for mark in (np.flatnonzero(np.diff(number)) + 1).tolist():
            marks[mark] = float(number[mark - 1] + 1) * every.size
    return [*marks.items(), (count, float(times[-1]))]


def _answer(session: Session, time_ms: float, events: int) -> Answer:
    logits = session.readout().astype(np.float64)
    weights = np.exp(logits - logits.max())
    probabilities = weights / weights.sum()
    best = int(logits.argmax())
    rest = np.delete(logits, best)
    margin = float(logits[best] - rest.max()) if len(rest) else math.inf
    labels = session.spec.labels
    label = labels[best] if best < len(labels) else str(best)
    return Answer(time_ms, events, label, float(probabilities[best]), margin, session.ready, probabilities)


def _span_ms(recording: Recording) -> float:
    t = recording.events.t
    return float(t[-1] - t[0]) * recording.tick_us / 1000 if len(t) else 0.0
