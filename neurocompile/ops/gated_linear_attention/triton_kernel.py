"""The Triton kernel of `gated_linear_attention`; `triton_launch.py` calls it, forward once and backward three times.

A program owns `COLUMNS` values of one query head and walks the whole sequence in blocks of `STEPS` positions with the
state in registers, so the op is a single launch without scratch. With c the prefix sums of log f within a block,

    o_i = [ (q_i . k_j) e^{c_i - c_j} ]_{j <= i} v + e^{c_i} S^T q_i,    S' = e^{c_C} S + sum_j e^{c_C - c_j} k_j v_j^T

(arXiv 2312.06635, section 4, with scalar gates). Every exponent is at most 0. Prefix sums are float64 over a block and
kept as pairs of float32, whose differences are exact to half a unit in their last place, so that gates that shut leave
those behind them as they are. The state is float32 and meets float32 or TF32 operands, never shorter ones.

Inputs come first, then integers, then results: the order in which TensorRT hands arguments over. Tensors are
contiguous: (B, T, H, D), (B, T, K, D), (B, T, K, E), (B, T, H), states (B, H, D, E).
"""

from __future__ import annotations

import triton
import triton.language as tl

LOG2_E = tl.constexpr(1.4426950408889634)


@triton.jit
def _rows(ptr, step, inside, stride, WIDTH: tl.constexpr, first, LANES: tl.constexpr):
    """(STEPS, LANES) of one head, from lane `first` on; zero outside."""
    lane = first + tl.arange(0, LANES)
    at = ptr + tl.cast(step, tl.int64)[:, None] * stride + lane[None, :]
    return tl.load(at, mask=inside[:, None] & (lane < WIDTH)[None, :], other=0.0)


@triton.jit
def _base(row, steps, heads, key_heads, WIDTH: tl.constexpr):
    """Where what a row's query head reads begins in a (B, T, key_heads, WIDTH) tensor; `heads` for queries."""
    head = (row % heads) // (heads // key_heads)
    return (tl.cast(row // heads, tl.int64) * steps * key_heads + head) * WIDTH


@triton.jit(do_not_specialize=["steps", "heads", "key_heads"])
def attention_kernel(
    q_ptr, k_ptr, v_ptr, log_f_ptr, state_ptr,
    steps, heads, key_heads,
    o_ptr, last_ptr,
    SCALE: tl.constexpr, WIDTH: tl.constexpr, LANES: tl.constexpr, OUT: tl.constexpr, COLUMNS: tl.constexpr,
    STEPS: tl.constexpr, BACKWARDS: tl.constexpr, PRECISION: tl.constexpr, STATE_PRECISION: tl.constexpr,
):  # fmt: skip
    """Writes o (B, T, H, E) and the last state; one program for each of B H ceil(E / COLUMNS).

    `BACKWARDS` walks from the last step to the first, where a step's gate is that of the step after it.
    """
    parts = (OUT + COLUMNS - 1) // COLUMNS
    row = tl.program_id(0) // parts
    first = tl.program_id(0) % parts * COLUMNS
    wide = tl.cast(row, tl.int64)
    q_ptr += _base(row, steps, heads, heads, WIDTH)
    k_ptr += _base(row, steps, heads, key_heads, WIDTH)
    v_ptr += _base(row, steps, heads, key_heads, OUT)
    o_ptr += _base(row, steps, heads, heads, OUT)
    log_f_ptr += _base(row, steps, heads, heads, 1)

    lane = tl.arange(0, LANES)
    column = first + tl.arange(0, COLUMNS)
    cell = wide * WIDTH * OUT + lane[:, None] * OUT + column[None, :]
    exists = (lane < WIDTH)[:, None] & (column < OUT)[None, :]
    state = tl.load(state_ptr + cell, mask=exists, other=0.0).to(tl.float32)
    within = tl.arange(0, STEPS)
    for begin in range(0, steps, STEPS):
        walked = begin + within
        inside = walked < steps
        if BACKWARDS:
            step = steps - 1 - walked
            gate = tl.load(log_f_ptr + tl.cast(step + 1, tl.int64) * heads, mask=inside & (walked > 0), other=0.0)
        else:
            step = walked
            gate = tl.load(log_f_ptr + tl.cast(step, tl.int64) * heads, mask=inside, other=0.0)
        q = _rows(q_ptr, step, inside, heads * WIDTH, WIDTH, 0, LANES)
        k = _rows(k_ptr, step, inside, key_heads * WIDTH, WIDTH, 0, LANES)
        v = _rows(v_ptr, step, inside, key_heads * OUT, OUT, first, COLUMNS)

        gate = gate.to(tl.float64)
        passed = tl.cumsum(gate, axis=0) * LOG2_E
        total = tl.sum(gate, axis=0) * LOG2_E
        high = passed.to(tl.float32)
        low = (passed - high.to(tl.float64)).to(tl.float32)
        left = tl.exp2((total - passed).to(tl.float32))
        since = (high[:, None] - high[None, :]) + (low[:, None] - low[None, :])
        decay = tl.exp2(tl.where(within[None, :] <= within[:, None], since, float("-inf"))) * SCALE

        pairs = tl.dot(q, tl.trans(k), input_precision=PRECISION) * decay
        before = tl.dot(q.to(tl.float32), state, input_precision=STATE_PRECISION) * (tl.exp2(high) * SCALE)[:, None]
        o = tl.dot(pairs.to(v.dtype), v, before, input_precision=PRECISION)
        learnt = tl.trans(k.to(tl.float32) * left[:, None])
        state = state * tl.exp2(total.to(tl.float32))
        state = tl.dot(learnt, v.to(tl.float32), state, input_precision=STATE_PRECISION)
        at = o_ptr + tl.cast(step, tl.int64)[:, None] * (heads * OUT) + column[None, :]
        tl.store(at, o, mask=inside[:, None] & (column < OUT)[None, :])
    tl.store(last_ptr + cell, state, mask=exists)
