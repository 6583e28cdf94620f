"""`diagonal_scan` for CPU tensors: a scan over blocks, vectorised across blocks, with analytic gradients.

The sequence is cut into N blocks of S steps. A first sweep walks the S positions of all blocks at once and leaves each
block's decay product and its end state from zero; the same scan over those N summaries gives the state that enters
every block; a second sweep walks the S positions again from there and writes the states. That is three complex
multiplications a step where one would do, but each is one long elementwise call on data that is still in cache, and
nothing of the sequence's length is stored beside the result. Real and imaginary parts stay apart because the tensors
arrive that way: joining them into complex64 costs as much as the scan.
"""

from __future__ import annotations

from functools import reduce

import torch
from torch import Tensor

Pair = tuple[Tensor, Tensor]

BLOCK_STEPS = 8
"""Steps of a block, and of a sequence that is walked directly. Longer blocks mean more and shorter calls, which costs
most where cores are shared, and put the rows that one call reads further apart."""


def state_dtype(*inputs: Tensor) -> torch.dtype:
    """The type of the states: float32, or float64 if any input is."""
    return reduce(torch.promote_types, (value.dtype for value in inputs), torch.float32)


def scan(a: Pair, b: Pair, x0: Pair) -> Pair:
    """Evaluates the recurrence, without autograd.

    Args:
        a: (B, T, P) decay, of any real type.
        b: (B, T, P) input.
        x0: (B, P) state before the first step.

    Returns:
        (B, T, P) states, float32, or float64 if any input is.
    """
    a, b, x0 = _widen(a, b, x0)
    x = b[0].new_empty(b[0].shape), b[1].new_empty(b[1].shape)
    _scan_into(x, a, b, x0)
    return x


def gradients(a: Pair, x: Pair, x0: Pair, d: Pair) -> tuple[Tensor, ...]:
    """Pulls the gradient by the states back to the inputs.

    With g_k = d_k + conj(a_{k+1}) g_{k+1}, the same recurrence from the end:
    dL/db_k = g_k, dL/da_k = g_k conj(x_{k-1}) and dL/dx_{-1} = conj(a_0) g_0.

    Args:
        a: (B, T, P) decay.
        x: (B, T, P) states.
        x0: (B, P) state before the first step.
        d: (B, T, P) gradient of the loss by the states.

    Returns:
        Gradients by `a_re, a_im, b_re, b_im, x0_re, x0_im`, of the type of the states.
    """
    a, x, x0, d = _widen(a, x, x0, d)
    g = x[0].new_empty(x[0].shape), x[1].new_empty(x[1].shape)
    grad_a = torch.empty_like(g[0]), torch.empty_like(g[1])
    if g[0].shape[1] == 0:
        return *grad_a, *g, torch.zeros_like(x0[0]), torch.zeros_like(x0[1])
    before, after = slice(None, -1), slice(1, None)
    for gradient, source in zip(g, d, strict=True):
        gradient[:, -1] = source[:, -1]
    _scan_into(_at(g, before), _at(a, after), _at(d, before), (d[0][:, -1], d[1][:, -1]), backwards=True)

    grad_x0 = torch.empty_like(x0[0]), torch.empty_like(x0[1])
    _times_conj(grad_x0, _at(g, 0), _at(a, 0))
    _times_conj(_at(grad_a, 0), _at(g, 0), x0)
    _times_conj(_at(grad_a, after), _at(g, after), _at(x, before))
    return *grad_a, *g, *grad_x0


def _widen(*pairs: Pair) -> list[Pair]:
    dtype = state_dtype(*(part for pair in pairs for part in pair))
    return [(re.to(dtype), im.to(dtype)) for re, im in pairs]


def _scan_into(x: Pair, a: Pair, b: Pair, x0: Pair, *, backwards: bool = False) -> None:
    """Writes the states into `x`; `backwards` walks from the last step to the first and conjugates the decay."""
    batch, steps, width = b[0].shape
    if steps <= BLOCK_STEPS:
        for k in reversed(range(steps)) if backwards else range(steps):
            _step(_at(x, k), _at(a, k), x0, _at(b, k), backwards)
            x0 = _at(x, k)
        return

    size = BLOCK_STEPS
    blocks = -(-steps // size)
    # Blocks are aligned with the end the walk starts from, so that only the one it reaches last may be short.
    # That one needs no summary: all others are full.
    entering = b[0].new_empty(batch, blocks, width), b[1].new_empty(batch, blocks, width)
    first, others = (blocks - 1, slice(None, -1)) if backwards else (0, slice(1, None))
    for part, initial in zip(entering, x0, strict=True):
        part[:, first] = initial
    full = slice(steps - (blocks - 1) * size, None) if backwards else slice((blocks - 1) * size)
    order = range(size - 1, -1, -1) if backwards else range(size)
    decay, end = _summaries(_at(a, full), _at(b, full), size, order, backwards)
    _scan_into(_at(entering, others), decay, end, x0, backwards=backwards)

    state: Pair = entering
    for j in range(size):
        start = (steps - 1 - j) % size if backwards else j
        here = slice(start, None, size)
        count = (steps - 1 - j) // size + 1
        reached = slice(state[0].shape[1] - count, None) if backwards else slice(count)
        _step(_at(x, here), _at(a, here), _at(state, reached), _at(b, here), backwards)
        state = _at(x, here)


def _summaries(a: Pair, b: Pair, size: int, order: range, conjugate: bool) -> tuple[Pair, Pair]:
    """Returns what each full block does to the state that enters it: (decay product, end state from zero)."""
    here = slice(order[0], None, size)
    decay, state = _at(a, here), _at(b, here)
    spare = [[torch.empty_like(decay[0]) for _ in range(4)] for _ in range(2)]
    for turn, position in enumerate(order[1:]):
        here = slice(position, None, size)
        factor = _at(a, here)
        decay_re, decay_im, state_re, state_im = spare[turn % 2]
        _step((state_re, state_im), factor, state, _at(b, here), conjugate)
        # Products of conjugates are conjugates of products, so the decay stays unconjugated on both walks.
        torch.mul(factor[0], decay[0], out=decay_re).addcmul_(factor[1], decay[1], value=-1)
        torch.mul(factor[0], decay[1], out=decay_im).addcmul_(factor[1], decay[0])
        decay, state = (decay_re, decay_im), (state_re, state_im)
    return decay, state


def _step(out: Pair, a: Pair, x: Pair, b: Pair, conjugate: bool) -> None:
    """Writes a x + b, or conj(a) x + b."""
    sign = -1 if conjugate else 1
    torch.addcmul(b[0], a[0], x[0], out=out[0]).addcmul_(a[1], x[1], value=-sign)
    torch.addcmul(b[1], a[0], x[1], out=out[1]).addcmul_(a[1], x[0], value=sign)


def _times_conj(out: Pair, left: Pair, right: Pair) -> None:
    """Writes left conj(right)."""
    torch.mul(left[0], right[0], out=out[0]).addcmul_(left[1], right[1])
    torch.mul(left[1], right[0], out=out[1]).addcmul_(left[0], right[1], value=-1)


def _at(pair: Pair, steps: int | slice) -> Pair:
    """Views of some steps of (B, T, P) tensors."""
    return pair[0][:, steps], pair[1][:, steps]
