"""Clocks that are narrower than a recording is long."""

from __future__ import annotations

import numpy as np


def unwrap(values: np.ndarray, bits: int) -> np.ndarray:
    """Counts on where a counter of `bits` bits starts again from zero.

    A step back by more than half the counter's range is such a start; a smaller step back is kept as the file has it.

    Args:
        values: (N,) the counter, any integer type.
        bits: Its width.

    Returns:
        (N,) int64.
    """
    values = values.astype(np.int64)
    if len(values) > 1:
        values[1:] += np.cumsum(np.diff(values) < -(1 << (bits - 1))) << bits
    return values
