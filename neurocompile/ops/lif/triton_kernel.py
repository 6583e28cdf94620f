"""The Triton kernels of `lif`, forward and backward; `triton_launch.py` calls them.

A program owns `BLOCK` neurons and walks all steps with their membranes in registers: inputs are read once, spikes
written once, and nothing in between. Tensors are contiguous, (T, N) and (N,), of any real type; arithmetic is in `ACC`.
Products and sums are to be compiled without fusing them, so that a membrane at the threshold fires here as elsewhere.

Inputs come first, then integers, then results: the order in which TensorRT hands arguments over.
"""

from __future__ import annotations

import triton
import triton.language as tl

HALF_PI = tl.constexpr(1.5707963267948966)


@triton.jit
def _decay(ptr, t, neurons, neuron, inside, BY_STEP: tl.constexpr, BY_NEURON: tl.constexpr, ACC: tl.constexpr):
    """The decay of a step: one for all, (N,), or (T, N)."""
    # One return: Triton wants all of a function's to be of one shape, those of branches not taken included.
    if BY_STEP:
        decay = tl.load(ptr + tl.cast(t, tl.int64) * neurons + neuron, mask=inside, other=0.0)
    elif BY_NEURON:
        decay = tl.load(ptr + neuron, mask=inside, other=0.0)
    else:
        decay = tl.load(ptr)
    return decay.to(ACC)


@triton.jit
def _fires(h, THRESHOLD: tl.constexpr, STRICT: tl.constexpr):
    if STRICT:
        return h > THRESHOLD
    return h >= THRESHOLD


@triton.jit
def _reset(h, fired, THRESHOLD: tl.constexpr, V_RESET: tl.constexpr, HARD: tl.constexpr):
    """What the reset leaves of a membrane."""
    if HARD:
        return tl.where(fired, V_RESET, h)
    return tl.where(fired, h - THRESHOLD, h)


@triton.jit
def _slope(x, SURROGATE: tl.constexpr, ALPHA: tl.constexpr):
    """The surrogate derivative; `surrogate.py` has the formulas."""
    if SURROGATE == "atan":
        scaled = (HALF_PI * ALPHA) * x
        return (ALPHA / 2) / (1 + scaled * scaled)
    if SURROGATE == "rectangle":
        return tl.where(tl.abs(x) < 0.5 / ALPHA, ALPHA, 0.0)
    s = 1 / (1 + tl.exp(-ALPHA * x))
    return ALPHA * s * (1 - s)


@triton.jit(do_not_specialize=["steps", "neurons"])
def forward_kernel(
    x_ptr, decay_ptr, v_ptr,
    steps, neurons,
    spikes_ptr, last_ptr, membranes_ptr,
    THRESHOLD: tl.constexpr, V_RESET: tl.constexpr, HARD: tl.constexpr, STRICT: tl.constexpr,
    BY_STEP: tl.constexpr, BY_NEURON: tl.constexpr, KEEP: tl.constexpr, ACC: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Writes spikes (T, N), the last membrane (N,) and, with `KEEP`, the membranes before the resets (T, N)."""
    neuron = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = neuron < neurons
    v = tl.load(v_ptr + neuron, mask=inside, other=0.0).to(ACC)
    for t in range(steps):
        at = tl.cast(t, tl.int64) * neurons + neuron
        x = tl.load(x_ptr + at, mask=inside, other=0.0).to(ACC)
        h = _decay(decay_ptr, t, neurons, neuron, inside, BY_STEP, BY_NEURON, ACC) * v + x
        fired = _fires(h, THRESHOLD, STRICT)
        v = _reset(h, fired, THRESHOLD, V_RESET, HARD)
        tl.store(spikes_ptr + at, tl.where(fired, 1.0, 0.0), mask=inside)
        if KEEP:
            tl.store(membranes_ptr + at, h, mask=inside)
    tl.store(last_ptr + neuron, v, mask=inside)


@triton.jit(do_not_specialize=["steps", "neurons"])
def gradient_kernel(
    membranes_ptr, decay_ptr, v_ptr, d_spikes_ptr, d_last_ptr,
    steps, neurons,
    d_x_ptr, d_decay_ptr, d_v_ptr,
    THRESHOLD: tl.constexpr, V_RESET: tl.constexpr, HARD: tl.constexpr, STRICT: tl.constexpr,
    SURROGATE: tl.constexpr, ALPHA: tl.constexpr, DETACH: tl.constexpr,
    BY_STEP: tl.constexpr, BY_NEURON: tl.constexpr, ACC: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Walks back and writes the gradients by x (T, N), by v (N,) and by the decay, (T, N) or summed over steps (N,)."""
    neuron = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = neuron < neurons
    carry = tl.load(d_last_ptr + neuron, mask=inside, other=0.0).to(ACC)
    d_decay = tl.zeros([BLOCK], ACC)
    start = tl.load(v_ptr + neuron, mask=inside, other=0.0).to(ACC)
    last = tl.cast(steps - 1, tl.int64) * neurons + neuron
    h = tl.load(membranes_ptr + last, mask=inside, other=0.0).to(ACC)
    for walked in range(steps):
        t = steps - 1 - walked
        at = tl.cast(t, tl.int64) * neurons + neuron
        by_spike = tl.load(d_spikes_ptr + at, mask=inside, other=0.0).to(ACC)
        later = at >= neurons
        earlier = tl.load(membranes_ptr + at - neurons, mask=inside & later, other=0.0).to(ACC)
        if not DETACH:
            if HARD:
                by_spike += (V_RESET - h) * carry
            else:
                by_spike -= THRESHOLD * carry
        if HARD:
            carry = tl.where(_fires(h, THRESHOLD, STRICT), 0.0, carry)
        d_h = carry + by_spike * _slope(h - THRESHOLD, SURROGATE, ALPHA)
        tl.store(d_x_ptr + at, d_h, mask=inside)
        before = tl.where(later, _reset(earlier, _fires(earlier, THRESHOLD, STRICT), THRESHOLD, V_RESET, HARD), start)
        if BY_STEP:
            tl.store(d_decay_ptr + at, d_h * before, mask=inside)
        else:
            d_decay += d_h * before
        carry = d_h * _decay(decay_ptr, t, neurons, neuron, inside, BY_STEP, BY_NEURON, ACC)
        h = earlier
    tl.store(d_v_ptr + neuron, carry, mask=inside)
    if not BY_STEP:
        tl.store(d_decay_ptr + neuron, d_decay, mask=inside)
