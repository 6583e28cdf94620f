"""A recording while it is being changed: signed 64-bit columns, so that no step of an augmentation can overflow."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from runtime.events import Events


@dataclass(frozen=True, eq=False)
class Columns:
    """Events as int64 columns.

    Attributes:
        t: (N,) microseconds, never decreasing; may be negative.
        x: (N,) column or channel.
        y: (N,) row; 0 for audio.
        p: (N,) polarity, 0 or 1.
    """

    t: np.ndarray
    x: np.ndarray
    y: np.ndarray
    p: np.ndarray

    def __len__(self) -> int:
        return len(self.t)

    def __getitem__(self, rows: slice | np.ndarray) -> Columns:
        return Columns(self.t[rows], self.x[rows], self.y[rows], self.p[rows])

    @classmethod
    def of(cls, events: Events) -> Columns:
        """Columns of `events` whose tick lasts a microsecond."""
        return cls(*(np.asarray(column).astype(np.int64) for column in (events.t, events.x, events.y, events.p)))

    def events(self) -> Events:
        """The columns as the runtime's events; coordinates must have come back into the sensor."""
        return Events(self.t, self.x.astype(np.uint16), self.y.astype(np.uint16), self.p.astype(np.bool_))

    def sorted(self) -> Columns:
        """The events in time order; simultaneous ones keep theirs."""
        if len(self) < 2 or (np.diff(self.t) >= 0).all():
            return self
        return self[np.argsort(self.t, kind="stable")]

    def inside(self, width: int, height: int) -> Columns:
        """The events that lie on a sensor of `width` columns and `height` rows."""
        within = (self.x >= 0) & (self.x < width) & (self.y >= 0) & (self.y < height)
        return self if within.all() else self[within]

    @classmethod
    def merged(cls, first: Columns, second: Columns) -> Columns:
        """The events of both in time order; of simultaneous ones, those of `first` come first."""
        pairs = ((getattr(first, name), getattr(second, name)) for name in "txyp")
        return cls(*(np.concatenate(pair) for pair in pairs)).sorted()
