"""What `benchmarks.gpu_check` runs: one module per op and two for plugins, each with `checks()` and `timings()`.

A new one joins by adding its module's name to `OPS`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor

OPS = ("diagonal_scan", "forgetting_attention", "gated_linear_attention", "lif", "plugins", "cpp_plugins")


class Skipped(Exception):  # noqa: N818 -- nothing is wrong
    """A comparison that this machine cannot make; the message says what it lacks."""


@dataclass(frozen=True)
class Check:
    """One comparison with the reference in float64.

    Attributes:
        name: What is compared, for people.
        bound: The largest error that passes.
        run: Returns the error, relative to the largest value of each tensor, or raises `Skipped`.
    """

    name: str
    bound: float
    run: Callable[[], float]


@dataclass(frozen=True)
class Timing:
    """One measurement.

    Attributes:
        problem: Shape, type and direction; contenders are compared within one problem.
        contender: Who solves it.
        bytes: What any solution has to read and write at least.
        prepare: Builds the inputs, proves a peer right, and returns the call to time.
    """

    problem: str
    contender: str
    bytes: int
    prepare: Callable[[], Callable[[], object]]


def largest_error(actual: Iterable[Tensor], exact: Iterable[Tensor]) -> float:
    """The largest error of several tensors, each relative to its largest value.

    Args:
        actual: Tensors of any type and device.
        exact: Their float64 counterparts.

    Returns:
        The error; infinite if anything is NaN or shapes differ.
    """
    worst = 0.0
    for got, want in zip(actual, exact, strict=True):
        if got.shape != want.shape:
            return float("inf")
        if want.numel():
            error = (
                got.detach().double().cpu() - want.detach().cpu()
            ).abs().max() / want.detach().abs().max().cpu().clamp(min=1e-300)
            worst = max(worst, float(error.nan_to_num(torch.inf, torch.inf)))
    return worst


@contextmanager
def poisoned() -> Iterator[None]:
    """Makes what `torch.empty` returns NaN, so that an element no kernel writes shows."""
    empty = torch.empty

    def poison(*args, **options):
        fresh = empty(*args, **options)
        return fresh.fill_(float("nan")) if fresh.is_floating_point() else fresh

    torch.empty = poison
    try:
        yield
    finally:
        torch.empty = empty
