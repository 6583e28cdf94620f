"""`lif` for CPU tensors: blocks of neurons whose membranes stay in cache over all steps, with analytic gradients.

Each step is rounded as the definition rounds it: a product, then a sum.
"""

from __future__ import annotations

import torch
from torch import Tensor

from neurocompile.ops.lif.layout import flat_decay, fold_decay, sum_dtype
from neurocompile.ops.lif.neuron import Neuron
from neurocompile.ops.lif.surrogate import derivative

BLOCK = 32768
"""Neurons of a block: a few buffers of 128 KiB."""


def forward(x: Tensor, decay: Tensor, v: Tensor, neuron: Neuron, keep: bool) -> tuple[Tensor, Tensor, Tensor]:
    """Evaluates all steps, without autograd.

    Args:
        x: (T, ..), of any real type.
        decay: Broadcasts to `x`.
        v: (..) membrane before the first step.
        neuron: Threshold, reset and comparison.
        keep: Whether the membranes before the resets are wanted, for the adjoint.

    Returns:
        (T, ..) spikes of the type of `x`, (..) membrane after the last step and (T, ..) or, without `keep`, (0, ..)
        membranes before the resets, float32, or float64 if any input is.
    """
    dtype, steps, count = sum_dtype(x, decay, v), x.shape[0], v.numel()
    spikes, last = torch.empty_like(x, memory_format=torch.contiguous_format), v.new_empty(v.shape, dtype=dtype)
    membranes = v.new_empty((steps if keep else 0, *v.shape), dtype=dtype)
    flat_x, flat_v, d = x.reshape(steps, count), v.reshape(count), flat_decay(decay, x.shape).to(dtype)
    flat_spikes, flat_last, h_all = spikes.view(steps, count), last.view(count), membranes.view(-1, count)
    walk = _soft if neuron.v_reset is None else _hard
    for begin in range(0, count, BLOCK):
        part = slice(begin, min(begin + BLOCK, count))
        flat_last[part] = flat_v[part]
        walk(flat_x[:, part], d, part, flat_last[part], flat_spikes[:, part], h_all[:, part] if keep else None, neuron)
    return spikes, last, membranes


def gradients(
    membranes: Tensor, decay: Tensor, v: Tensor, d_spikes: Tensor, d_last: Tensor, neuron: Neuron, by_decay: bool = True
) -> tuple[Tensor, Tensor, Tensor]:
    """Walks back from the last step.

    With g the surrogate derivative at h and D the gradient by v_t:

        soft reset: dh = D + (ds - threshold D) g        hard reset: dh = (1 - s) D + (ds + (v_reset - h) D) g
        dx = dh        dd = dh v_{t-1}        D' = d dh

    where the reset is detached, the terms with D and g are left out.

    Args:
        membranes: (T, ..) membranes before the resets.
        decay: Broadcasts to them.
        v: (..) membrane before the first step.
        d_spikes: (T, ..) gradient by the spikes.
        d_last: (..) gradient by the last membrane.
        neuron: As in `forward`.
        by_decay: Whether the gradient by the decay is wanted.

    Returns:
        Gradients by the input, of the type of `d_spikes`, by `decay` and by `v`, in their types; zero for the decay if
        that is not wanted.
    """
    dtype, shape, steps, count = membranes.dtype, membranes.shape, membranes.shape[0], v.numel()
    d = flat_decay(decay, shape).to(dtype)
    h_all, start = membranes.reshape(steps, count), v.reshape(count).to(dtype)
    d_s, d_end = d_spikes.reshape(steps, count), d_last.reshape(count).to(dtype)
    d_x = torch.empty(d_s.shape, dtype=d_s.dtype, device=v.device)
    d_decay = torch.zeros(d.shape[0], count, dtype=dtype, device=v.device)
    d_v = torch.empty_like(start)
    for begin in range(0, count, BLOCK):
        part = slice(begin, min(begin + BLOCK, count))
        carry = d_end[part]
        for t in reversed(range(steps)):
            h = h_all[t, part]
            slope = derivative(h - neuron.threshold, neuron.surrogate, neuron.alpha)
            by_spike = d_s[t, part].to(dtype)
            if not neuron.detach_reset and neuron.v_reset is None:
                by_spike = torch.sub(by_spike, carry, alpha=neuron.threshold)
            elif not neuron.detach_reset:
                by_spike = torch.addcmul(by_spike, neuron.v_reset - h, carry)
            if neuron.v_reset is not None:
                carry = torch.addcmul(carry, carry, _spikes(h, neuron), value=-1)
            d_h = torch.addcmul(carry, by_spike, slope)
            d_x[t, part] = d_h
            if by_decay:
                before = _after(h_all[t - 1, part], neuron) if t else start[part]
                d_decay[t if len(d_decay) > 1 else 0, part].addcmul_(d_h, before)
            carry = d_h.mul_(_row(d, t, part))
        d_v[part] = carry
    return d_x.view(shape), fold_decay(d_decay, decay, shape), d_v.view(v.shape).to(v.dtype)


def _soft(
    x: Tensor, decay: Tensor, part: slice, state: Tensor, spikes: Tensor, kept: Tensor | None, neuron: Neuron
) -> None:
    """Walks one block, updating `state` and writing `spikes` and, if wanted, what is kept."""
    fires = torch.gt if neuron.strict else torch.ge
    for t in range(len(x)):
        h = state if kept is None else kept[t]
        torch.mul(state, _row(decay, t, part), out=h)
        h.add_(x[t])
        fires(h, neuron.threshold, out=spikes[t])
        torch.sub(h, spikes[t], alpha=neuron.threshold, out=state)


def _hard(
    x: Tensor, decay: Tensor, part: slice, state: Tensor, spikes: Tensor, kept: Tensor | None, neuron: Neuron
) -> None:
    """The same, on negated membranes: torch's `threshold` keeps what is above, and is ten times as fast as a mask."""
    level, rest = -_level(neuron, state.dtype), -(neuron.v_reset or 0.0)
    state.neg_()
    for t in range(len(x)):
        state.mul_(_row(decay, t, part)).sub_(x[t])
        torch.le(state, level, out=spikes[t])
        if kept is not None:
            torch.neg(state, out=kept[t])
        torch.nn.functional.threshold_(state, level, rest)
    state.neg_()


def _level(neuron: Neuron, dtype: torch.dtype) -> float:
    """The smallest membrane that fires."""
    level = torch.tensor(neuron.threshold, dtype=dtype)
    return (level.nextafter(torch.tensor(torch.inf, dtype=dtype)) if neuron.strict else level).item()


def _spikes(h: Tensor, neuron: Neuron) -> Tensor:
    """Spikes in the type of the membranes."""
    return (torch.gt if neuron.strict else torch.ge)(h, neuron.threshold, out=torch.empty_like(h))


def _after(h: Tensor, neuron: Neuron) -> Tensor:
    """What the reset leaves of a membrane."""
    if neuron.v_reset is None:
        return torch.sub(h, _spikes(h, neuron), alpha=neuron.threshold)
    return torch.nn.functional.threshold_(-h, -_level(neuron, h.dtype), -neuron.v_reset).neg_()


def _row(decay: Tensor, t: int, part: slice) -> Tensor:
    row = decay[t if len(decay) > 1 else 0]
    return row[part] if len(row) > 1 else row
