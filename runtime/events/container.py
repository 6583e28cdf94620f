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

    Raises:
        UserError: If a value does not fit its column's type.
    """

    t: np.ndarray
    x: np.ndarray
    y: np.ndarray
    p: np.ndarray

    def __post_init__(self) -> None:
        for name, dtype in (("t", np.int64), ("x", np.uint16), ("y", np.uint16), ("p", np.bool_)):
            column = np.asarray(getattr(self, name))
            if column.dtype != dtype:
                column = _converted(name, column, dtype)
            column = np.ascontiguousarray(column)
            if column.ndim != 1 or len(column) != len(self.t):
                raise ValueError(f"column {name} has shape {column.shape}, expected ({len(self.t)},)")
            object.__setattr__(self, name, column)

    def __len__(self) -> int:
        return len(self.t)

    def __getitem__(self, rows: slice | np.ndarray) -> Events:
        return Events(self.t[rows], self.x[rows], self.y[rows], self.p[rows])

    @classmethod
    def empty(cls) -> Events:
        """No events."""
        return cls(np.empty(0, np.int64), np.empty(0, np.uint16), np.empty(0, np.uint16), np.empty(0, np.bool_))

    @classmethod
    def concatenate(cls, parts: Iterable[Events]) -> Events:
        """The parts one after the other, times unchanged."""
        parts = [cls.empty(), *parts]
        return cls(*(np.concatenate([getattr(part, name) for part in parts]) for name in "txyp"))


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
