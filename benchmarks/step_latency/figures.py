"""Numbers of a distribution: percentiles, and a histogram that keeps its shape in a few hundred counts."""

from __future__ import annotations

from typing import Any

import numpy as np

PERCENTILES = (50, 90, 99, 99.9)
BINS_PER_DECADE = 50
FIRST, DECADES = 10.0, 8


def percentiles(samples: np.ndarray) -> dict[str, float]:
    """Mean, p50, p90, p99, p99.9 and maximum of (N,) nanoseconds."""
    ranks = {f"p{rank}_ns": float(np.percentile(samples, rank)) for rank in PERCENTILES}
    return {"mean_ns": float(samples.mean()), **ranks, "max_ns": float(samples.max())}


def histogram(samples: np.ndarray) -> dict[str, list[float]]:
    """Counts of (N,) nanoseconds in bins of equal ratio, 50 to a decade.

    Returns:
        `upper_ns`, the upper edges of the bins that are not empty, and `count`.
    """
    place = np.ceil(np.log10(np.maximum(samples, FIRST) / FIRST) * BINS_PER_DECADE).astype(int)
    counts = np.bincount(np.minimum(place, BINS_PER_DECADE * DECADES))
    used = np.flatnonzero(counts)
    edges = FIRST * 10.0 ** (used / BINS_PER_DECADE)
    return {"upper_ns": [float(f"{edge:.4g}") for edge in edges], "count": counts[used].tolist()}


def row(name: str, samples: np.ndarray, processor_ns: float, wall_ns: float, **more: Any) -> dict[str, Any]:
    """What every contestant reports.

    Args:
        name: The contestant.
        samples: (N,) nanoseconds of single events.
        processor_ns: Processor time per event of the fastest pass without clock reads.
        wall_ns: Wall time per event of the fastest pass.
        **more: What only some report.
    """
    times = {"events_per_second": 1e9 / processor_ns, "processor_ns": processor_ns, "wall_ns": wall_ns}
    return {"name": name, **times, **percentiles(samples), "histogram": histogram(samples), **more}
