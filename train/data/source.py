"""What a data set is to the data module: a numbered list of recordings with labels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np

from train.augment import Columns
from train.data.split import windows


class Source(Protocol):
    """Labelled recordings; reading one may be slow, knowing the labels is not.

    A recording is `Columns`, or `train.event2vec.points.Points` where it is not made of whole events.
    """

    @property
    def labels(self) -> np.ndarray:
        """(N,) int64."""
        ...

    @property
    def names(self) -> Sequence[str]:
        """What each recording is called in messages and predictions."""
        ...

    def __len__(self) -> int: ...

    def __getitem__(self, row: int) -> Any: ...


def count(source: Source, row: int) -> int:
    """Number of events of a recording; by the source's own `count` if it has a quick one."""
    quick = getattr(source, "count", None)
    return quick(row) if quick else len(source[row])


class Subset:
    """Some rows of a source."""

    def __init__(self, source: Source, rows: np.ndarray) -> None:
        self.source, self.rows = source, rows
        self.labels = source.labels[rows]
        self.names = [source.names[row] for row in rows]

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, row: int) -> Any:
        return self.source[int(self.rows[row])]

    def count(self, row: int) -> int:
        """Number of events of a recording."""
        return count(self.source, int(self.rows[row]))


class Sliced:
    """A source whose recordings are cut into windows of events; a window has its recording's label.

    Args:
        source: The recordings.
        size: Events per window.
        overlap: Events that neighbouring windows share.
    """

    def __init__(self, source: Source, size: int, overlap: int) -> None:
        self.source = source
        self.windows = [
            (row, *window) for row in range(len(source)) for window in windows(count(source, row), size, overlap)
        ]
        self.labels = source.labels[[row for row, _, _ in self.windows]]
        self.names = [f"{source.names[row]}[{begin}:{end}]" for row, begin, end in self.windows]

    def __len__(self) -> int:
        return len(self.windows)

    def __getitem__(self, row: int) -> Columns:
        recording, begin, end = self.windows[row]
        return self.source[recording][begin:end]
