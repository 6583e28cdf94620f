"""`diagonal_scan` for CUDA tensors: plans and launches the Triton kernels. Importing this file imports Triton.

Where sequences times columns alone leave the chip idle, a sequence is cut into chunks: a first launch leaves what each
chunk does to the state that enters it, the scan over those few summaries follows, and the last launch walks all chunks
side by side.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from neurocompile.ops.diagonal_scan.blocked import Pair, state_dtype
from neurocompile.ops.diagonal_scan.triton_kernel import gradient_kernel, scan_kernel, summary_kernel

TILE_STEPS = 32
"""Steps of one tile."""

TILE_COLUMNS = 32
"""Columns of one tile at most."""

PROGRAMS = 512
"""Programs to aim for by cutting sequences into chunks: a few for each multiprocessor of a large chip."""


def scan(a: Pair, b: Pair, x0: Pair) -> Pair:
    """Evaluates the recurrence, without autograd.

    Args:
        a: (B, T, P) decay; bfloat16, float16, float32 or float64.
        b: (B, T, P) input.
        x0: (B, P) state before the first step.

    Returns:
        (B, T, P) states, float32, or float64 if any input is.
    """
    a, b, x0 = _contiguous(a), _contiguous(b), _contiguous(x0)
    launcher = _Launcher(b[0], (*a, *b, *x0), PROGRAMS)
    x = launcher.empty(b[0].shape), launcher.empty(b[0].shape)
    if x[0].numel():
        launcher.launch(scan_kernel, launcher.chunks, *a, *b, *x0, *launcher.entering(a, b, x0, backwards=False), *x)
    return x


def gradients(a: Pair, x: Pair, x0: Pair, d: Pair) -> tuple[Tensor, ...]:
    """Pulls the gradient by the states back to the inputs; `blocked.gradients` has the formulas.

    Args:
        a: (B, T, P) decay.
        x: (B, T, P) states.
        x0: (B, P) state before the first step.
        d: (B, T, P) gradient of the loss by the states.

    Returns:
        Gradients by `a_re, a_im, b_re, b_im, x0_re, x0_im`, of the type of the states.
    """
    a, x, x0, d = _contiguous(a), _contiguous(x), _contiguous(x0), _contiguous(d)
    launcher = _Launcher(d[0], (*a, *x, *x0, *d), PROGRAMS)
    shapes = [d[0].shape] * 4 + [x0[0].shape] * 2
    if not d[0].numel():
        return tuple(launcher.zeros(shape) for shape in shapes)
    grads = tuple(launcher.empty(shape) for shape in shapes)
    rest = launcher.zeros(x0[0].shape), launcher.zeros(x0[0].shape)
    entering = launcher.entering(a, d, rest, backwards=True)
    launcher.launch(gradient_kernel, launcher.chunks, *a, *d, *x0, *entering, *x, *grads)
    return grads


class _Launcher:
    """How one problem is cut, and the launches that follow from it."""

    def __init__(self, like: Tensor, inputs: tuple[Tensor, ...], programs: int) -> None:
        self.batch, self.steps, self.width = like.shape
        self.device = like.device
        self.dtype = state_dtype(*inputs)
        self.columns = min(TILE_COLUMNS, triton.next_power_of_2(max(self.width, 1)))
        self.groups = self.batch * triton.cdiv(self.width, self.columns)
        tiles = triton.cdiv(self.steps, TILE_STEPS)
        self.tiles = triton.cdiv(tiles, min(max(programs // max(self.groups, 1), 1), max(tiles, 1)))
        self.chunks = triton.cdiv(tiles, max(self.tiles, 1))

    def empty(self, shape: tuple[int, ...]) -> Tensor:
        return torch.empty(shape, dtype=self.dtype, device=self.device)

    def zeros(self, shape: tuple[int, ...]) -> Tensor:
        return torch.zeros(shape, dtype=self.dtype, device=self.device)

    def launch(self, kernel: Any, chunks: int, *tensors: Tensor, **options: Any) -> None:
        """Runs `kernel` with one program for each chunk and group of columns."""
        accumulator = tl.float64 if self.dtype is torch.float64 else tl.float32
        with torch.cuda.device_of(tensors[0]):
            kernel[(self.groups * chunks,)](
                *tensors,
                self.steps,
                self.width,
                self.chunks,
                self.tiles,
                ACC=accumulator,
                TILE_STEPS=TILE_STEPS,
                TILE_COLUMNS=self.columns,
                **options,
            )

    def entering(self, a: Pair, b: Pair, x0: Pair, *, backwards: bool) -> Pair:
        """States (B, chunks - 1, P) that enter the later chunks; where there is one chunk, `x0`, which is not read."""
        if self.chunks == 1:
            return x0
        shape = (self.batch, self.chunks - 1, self.width)
        decay, end = (self.empty(shape), self.empty(shape)), (self.empty(shape), self.empty(shape))
        self.launch(summary_kernel, self.chunks - 1, *a, *b, *decay, *end, BACKWARDS=backwards)
        states = self.empty(shape), self.empty(shape)
        whole = _Launcher(end[0], end, programs=0)
        whole.launch(scan_kernel, 1, *decay, *end, *x0, *x0, *states)
        return states


def _contiguous(pair: Pair) -> Pair:
    return pair[0].contiguous(), pair[1].contiguous()
