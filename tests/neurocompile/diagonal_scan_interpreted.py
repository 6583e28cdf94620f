"""Errors of the Triton kernels of `diagonal_scan`, asked by `test_diagonal_scan_triton.py`.

Reads a list of cases from standard input and writes, for each, the largest error of every result relative to its
largest value, as JSON.
"""

from __future__ import annotations

import json
import sys

import torch

from interpreted import poison, relative
from neurocompile.ops.diagonal_scan import blocked, triton_launch

NAMES = ("x_re", "x_im", "a_re", "a_im", "b_re", "b_im", "x0_re", "x0_im")


def run(batch: int, steps: int, width: int, dtype: str, programs: int, initial: bool) -> dict[str, float]:
    """Errors of one case against the blocked scan in float64, which has a test of its own."""
    draw = torch.Generator().manual_seed(steps)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=draw, dtype=torch.float64).to(getattr(torch, dtype))

    long, short = (batch, steps, width), (batch, width)
    a = normal(*long) * 0.5, normal(*long) * 0.5
    b = normal(*long), normal(*long)
    x0 = (normal(*short), normal(*short)) if initial else (torch.zeros(short), torch.zeros(short))
    d = normal(*long), normal(*long)

    triton_launch.PROGRAMS = programs
    x = triton_launch.scan(a, b, x0)
    results = x + triton_launch.gradients(a, x, x0, d)
    wide = [tuple(part.double() for part in pair) for pair in (a, b, x0, d)]
    exact = blocked.scan(*wide[:3])
    exact = exact + blocked.gradients(wide[0], exact, wide[2], wide[3])
    return {name: relative(got, want, 1e-30) for name, got, want in zip(NAMES, results, exact, strict=True)}


if __name__ == "__main__":
    poison()
    print(json.dumps([run(**case) for case in json.load(sys.stdin)]))
