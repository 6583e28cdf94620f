"""Pictures of reports. The only place of the runtime that asks for matplotlib, and only when a picture is wanted."""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from runtime.answers import Answer
from runtime.errors import UserError

LINES = 5
POINTS = 20_000


def check(path: str | None) -> None:
    """Refuses, before any long work, a picture that could not be written in the end."""
    if path is None:
        return
    _pyplot()
    if not Path(path).absolute().parent.is_dir():
        raise UserError(f"{path}: its folder does not exist; make it first")


def timeline(path: str, answers: Sequence[Answer], labels: Sequence[str], title: str) -> None:
    """Probabilities of the classes that ever lead, over the recording's time."""
    pyplot = _pyplot()
    times = [answer.time_ms for answer in answers]
    values = np.stack([answer.probabilities for answer in answers])
    leaders = sorted(set(values.argmax(axis=1).tolist()), key=lambda k: -values[:, k].max())[:LINES]
    figure, axes = pyplot.subplots(figsize=(8, 4), layout="constrained")
    for k in leaders:
        axes.plot(times, values[:, k], marker=".", label=labels[k] if k < len(labels) else str(k))
    waiting = [answer.time_ms for answer in answers if not answer.ready]
    if waiting:
        axes.axvspan(0, max(waiting), color="0.9", label="warming up")
    axes.set(xlabel="time since the first event [ms]", ylabel="softmax probability", ylim=(0, 1.02), title=title)
    axes.legend()
    _save(figure, path)


def latencies(path: str, samples: Mapping[str, np.ndarray], title: str) -> None:
    """How often a latency is exceeded, and each event's latency over the run.

    Args:
        path: The picture.
        samples: What was measured -> (N,) nanoseconds, in the order of the events.
        title: Above the picture.
    """
    pyplot = _pyplot()
    figure, (left, right) = pyplot.subplots(1, 2, figsize=(11, 4), layout="constrained")
    for name, values in samples.items():
        if not len(values):
            continue
        above = 1 - np.arange(len(values)) / len(values)
        left.step(np.sort(values) / 1000, above, where="post", label=name)
        every = max(1, len(values) // POINTS)
        right.plot(np.arange(0, len(values), every), values[::every] / 1000, ",", label=name)
    left.set(xscale="log", yscale="log", xlabel="latency [us]", ylabel="share of events that take at least this long")
    right.set(yscale="log", xlabel="event", ylabel="latency [us]")
    left.grid(which="both", alpha=0.3)
    left.legend()
    figure.suptitle(title)
    _save(figure, path)


def _pyplot() -> Any:
    try:
        importlib.import_module("matplotlib").use("Agg")
        return importlib.import_module("matplotlib.pyplot")
    except ImportError as error:
        raise UserError(
            f"--plot needs matplotlib, which cannot be imported ({error}); pip install matplotlib"
        ) from error


def _save(figure: Any, path: str) -> None:
    try:
        figure.savefig(path, dpi=150)
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: the picture cannot be written ({error}); choose another name") from error
