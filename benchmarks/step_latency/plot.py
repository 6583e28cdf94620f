"""The picture: how often an event takes at least how long."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np


def missing() -> str:
    """Why there can be no picture, or nothing."""
    return "" if find_spec("matplotlib") else "no picture: matplotlib is not installed; pip install matplotlib"


def draw(report: Mapping[str, Any], path: Path) -> None:
    """Distribution of single events' latencies, from the histograms: cumulative, and its tail.

    Args:
        report: What was measured.
        path: The picture.

    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, (left, right) = pyplot.subplots(1, 2, figsize=(12, 5), layout="constrained")
    colours = [pyplot.get_cmap("tab20")(number) for number in range(20)]
    rows = [row for row in report["rows"] if row.get("events_per_call", 1) == 1]
    for colour, row in zip(colours, rows, strict=False):
        times = np.array(row["histogram"]["upper_ns"]) / 1000
        share = np.cumsum(row["histogram"]["count"]) / sum(row["histogram"]["count"])
        style = {"color": colour, "label": row["name"], "linewidth": 2.0 if row["language"] == "C" else 1.0}
        left.step(times, share, where="post", **style)
        right.step(times, np.append(1.0, 1 - share[:-1]), where="pre", **style)
    left.set(xscale="log", xlabel="latency [us]", ylabel="share of events that take at most this long")
    right.set(xscale="log", yscale="log", xlabel="latency [us]", ylabel="share of events that take longer")
    for axes in (left, right):
        axes.grid(which="both", alpha=0.25)
    left.legend(fontsize="small")
    figure.suptitle(f"{report['model']}, one event per call, {report['machine']['cpu']}")
    # No time of day in the file: the same report gives the same picture.
    figure.savefig(path, metadata={"Date": None})
    pyplot.close(figure)
