"""Splits of a labelled set that any machine repeats."""

from __future__ import annotations

import numpy as np


def hold_out(labels: np.ndarray, fraction: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Holds back a random part of every class.

    Args:
        labels: (N,) integers.
        fraction: Part of each class to hold back, in [0, 1); every class keeps at least one sample.
        seed: Of the random choice.

    Returns:
        Sorted row numbers of what stays and of what is held back.
    """
    rng = np.random.default_rng(seed)
    held = []
    for label in np.unique(labels):
        rows = rng.permutation(np.flatnonzero(labels == label))
        held.append(rows[: min(round(fraction * len(rows)), len(rows) - 1)])
    back = np.sort(np.concatenate([np.empty(0, np.int64), *held]))
    return np.setdiff1d(np.arange(len(labels)), back), back


def windows(count: int, size: int, overlap: int) -> list[tuple[int, int]]:
    """Cuts `count` events into windows of `size` that share `overlap` with the one before.

    Args:
        count: Number of events.
        size: Events per window.
        overlap: Events shared, less than `size`.

    Returns:
        (begin, end) of each window; the last one may be shorter, and is the only one of a recording of at most `size`.
    """
    stride = size - overlap
    full = (count - size) // stride + 1 if count >= size else 0
    cut = [(begin, begin + size) for begin in range(0, full * stride, stride)]
    covered = cut[-1][1] if cut else 0
    if covered < count:
        cut.append((full * stride, count))
    return cut
