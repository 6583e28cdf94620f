"""Events as columns, and a recording: events plus what is known of the sensor."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from runtime.errors import UserError


@dataclass(frozen=True, eq=False)
class Events:
    """Sensor readings in the order they were given, one row each.

    Attributes:
        t: (N,) int64, ticks.
        x: (N,) uint16, column; audio: channel.
        y: (N,) uint16, row; audio: ear.
        p: (N,) bool, polarity, True = ON; of numbers, those above 0 are ON.
        intensity: (N,) float32, how many readings each row stands for, where rows are clusters; `None` for single ones.

    Raises:
        UserError: If a value does not fit its column's type.
    """

    t: np.ndarray
    x: np.ndarray
    y: np.ndarray
    p: np.ndarray
    intensity: np.ndarray | None = None

    def __post_init__(self) -> None:
        for name, dtype in (("t", np.int64), ("x", np.uint16), ("y", np.uint16), ("p", np.bool_)):
            column = np.asarray(getattr(self, name))
            if column.dtype != dtype:
                column = _converted(name, column, dtype)
            column = np.ascontiguousarray(column)
            if column.ndim != 1 or len(column) != len(self.t):
                raise ValueError(f"column {name} has shape {column.shape}, expected ({len(self.t)},)")
            object.__setattr__(self, name, column)
        if self.intensity is not None:
            object.__setattr__(self, "intensity", _intensities(self.intensity, len(self.t)))

    def __len__(self) -> int:
        return len(self.t)

    def __getitem__(self, rows: slice | np.ndarray) -> Events:
        weight = None if self.intensity is None else self.intensity[rows]
        return Events(self.t[rows], self.x[rows], self.y[rows], self.p[rows], weight)

    @classmethod
    def empty(cls) -> Events:
        """No events."""
        return cls(np.empty(0, np.int64), np.empty(0, np.uint16), np.empty(0, np.uint16), np.empty(0, np.bool_))

    @classmethod
    def concatenate(cls, parts: Iterable[Events]) -> Events:
        """The parts one after the other, times unchanged; where some are clusters, other events have intensity 1."""
        parts = [cls.empty(), *parts]
        t, x, y, p = (np.concatenate([getattr(part, name) for part in parts]) for name in "txyp")
        weighted = any(part.intensity is not None for part in parts)
        return cls(t, x, y, p, np.concatenate([part.intensities for part in parts]) if weighted else None)

    @property
    def intensities(self) -> np.ndarray:
        """(N,) float32, 1 for single events."""
        return np.ones(len(self), np.float32) if self.intensity is None else self.intensity


def _converted(name: str, column: np.ndarray, dtype: type) -> np.ndarray:
    """The column in its type, if every value survives that."""
    if column.dtype.kind not in "biuf":
        raise UserError(f"event column {name} is of type {column.dtype}; it must be numbers")
    if dtype is np.bool_:
        return column > 0
    if column.size and column.dtype.kind != "b":
        limits, low, high = np.iinfo(dtype), column.min().item(), column.max().item()
        if not (low >= limits.min and high <= limits.max):
            raise UserError(f"event column {name} goes from {low} to {high}; it must be {limits.min} to {limits.max}")
        if column.dtype.kind == "f" and (column != np.rint(column)).any():
            raise UserError(f"event column {name} is not whole numbers; times count ticks of the recording")
    return column.astype(dtype)


def _intensities(column: np.ndarray, length: int) -> np.ndarray:
    """The column in its type, if every value is a possible weight."""
    column = np.asarray(column)
    if column.ndim != 1 or len(column) != length:
        raise ValueError(f"column intensity has shape {column.shape}, expected ({length},)")
    if column.dtype.kind not in "iuf":
        raise UserError(f"event column intensity is of type {column.dtype}; it must be numbers")
    weights = np.ascontiguousarray(column, np.float32)
    if not (np.isfinite(weights) & (weights >= 0)).all():
        raise UserError("event column intensity holds numbers below 0 or none at all; it must be how many events count")
    return weights


@dataclass(frozen=True, eq=False)
class Recording:
    """A finite stream of one sensor.

    Attributes:
        events: The events.
        width: Sensor columns (audio: channels), or `None` where the file does not say.
        height: Sensor rows (audio: ears), or `None`.
        tick_us: Length of one tick of `events.t` in microseconds.
        source: Where it came from, for messages.
        format: Name of the file format.
    """

    events: Events
    width: int | None = None
    height: int | None = None
    tick_us: float = 1.0
    source: str = "memory"
    format: str = "memory"
