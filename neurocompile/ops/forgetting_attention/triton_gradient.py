"""The Triton kernels of `forgetting_attention`, backward: scores are recomputed from the saved log-sum-exp.

Every result is summed by one program in a fixed order, so that gradients are the same in every run: there are no
atomics. The queries' kernel walks keys, the keys' kernel walks the queries of all heads that read them. A gate gets the
sum of all score gradients that span it, from row sums less column sums of one and the same matrix: rounding of its
elements cancels there, where column sums alone would gather it over the whole sequence.
"""

from __future__ import annotations

import triton
import triton.language as tl

from neurocompile.ops.forgetting_attention.triton_kernel import (
    LOG2_E,
    first_block,
    head_of,
    key_head_of,
    own_scores,
    past_scores,
    prefix_at,
    tile,
)


@triton.jit(do_not_specialize=["steps", "heads", "blocks"])
def share_kernel(
    q_ptr, o_ptr, d_o_ptr, high_ptr, low_ptr, held_high_ptr, held_low_ptr, size_ptr, total_ptr, share_ptr, first_ptr,
    steps, heads, blocks, scale,
    WIDTH: tl.constexpr, LANES: tl.constexpr, QUERIES: tl.constexpr, KEYS: tl.constexpr, SEARCH: tl.constexpr,
):  # fmt: skip
    """Writes d_o . o of each row (B H, T), and the first key block that matters to each block of queries."""
    turns = tl.cdiv(steps, QUERIES)
    row = tl.program_id(0) // turns
    turn = tl.program_id(0) % turns
    begin = turn * QUERIES
    wide = tl.cast(row, tl.int64)
    head = head_of(row, steps, heads, WIDTH)
    o = tile(o_ptr + head, begin, steps, heads * WIDTH, WIDTH, QUERIES, LANES, False)
    d_o = tile(d_o_ptr + head, begin, steps, heads * WIDTH, WIDTH, QUERIES, LANES, False).to(tl.float32)
    step = begin + tl.arange(0, QUERIES)
    inside = step < steps
    tl.store(share_ptr + wide * steps + step, tl.sum(o * d_o, axis=1), mask=inside)

    q = tile(q_ptr + head, begin, steps, heads * WIDTH, WIDTH, QUERIES, LANES, False).to(tl.float32)
    high_ptr += wide * steps
    low_ptr += wide * steps
    high_begin = tl.load(high_ptr + begin)
    low_begin = tl.load(low_ptr + begin)
    high, low = prefix_at(high_ptr, low_ptr, step, steps)
    total = tl.load(total_ptr + wide * steps + step, mask=inside, other=float("inf"))
    longest = tl.max(tl.sqrt(tl.sum(q * q, axis=1)), axis=0) * (scale * LOG2_E)
    weight = tl.max((high - high_begin) + (low - low_begin) - total * LOG2_E, axis=0)
    first = first_block(
        longest, weight, high_begin, low_begin, held_high_ptr + wide * blocks, held_low_ptr + wide * blocks,
        size_ptr + wide * blocks, begin // KEYS, KEYS, SEARCH,
    )  # fmt: skip
    tl.store(first_ptr + wide * turns + turn, first)


@triton.jit(do_not_specialize=["steps", "heads", "key_heads"])
def query_kernel(
    q_ptr, k_ptr, v_ptr, d_o_ptr, high_ptr, low_ptr, total_ptr, share_ptr, first_ptr, d_q_ptr, rows_ptr,
    steps, heads, key_heads, scale,
    WIDTH: tl.constexpr, LANES: tl.constexpr, QUERIES: tl.constexpr, KEYS: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Writes the gradient by q (B, T, H, D) and the row sums of the scores' gradient (B H, T)."""
    turns = tl.cdiv(steps, QUERIES)
    row = tl.program_id(0) // turns
    turn = turns - 1 - tl.program_id(0) % turns
    begin = turn * QUERIES
    wide = tl.cast(row, tl.int64)
    key_head = key_head_of(row, steps, heads, key_heads, WIDTH)
    k_ptr += key_head
    v_ptr += key_head
    high_ptr += wide * steps
    low_ptr += wide * steps
    stride = key_heads * WIDTH
    factor = scale * LOG2_E

    step = begin + tl.arange(0, QUERIES)
    inside = step < steps
    head = head_of(row, steps, heads, WIDTH)
    q = tile(q_ptr + head, begin, steps, heads * WIDTH, WIDTH, QUERIES, LANES, False)
    d_o = tile(d_o_ptr + head, begin, steps, heads * WIDTH, WIDTH, QUERIES, LANES, False)
    high, low = prefix_at(high_ptr, low_ptr, step, steps)
    total = tl.load(total_ptr + wide * steps + step, mask=inside, other=float("inf")) * LOG2_E
    share = tl.load(share_ptr + wide * steps + step, mask=inside, other=0.0)
    d_q = tl.zeros([QUERIES, LANES], tl.float32)
    rows = tl.zeros([QUERIES], tl.float32)
    for start in range(begin, begin + QUERIES, KEYS):
        key = start + tl.arange(0, KEYS)
        k = tile(k_ptr, start, steps, stride, WIDTH, KEYS, LANES, False)
        v = tile(v_ptr, start, steps, stride, WIDTH, KEYS, LANES, False)
        s = own_scores(q, k, high, low, high_ptr, low_ptr, key, steps, factor, PRECISION)
        p = tl.exp2(tl.where(key[None, :] <= step[:, None], s - total[:, None], float("-inf")))
        d_s = p * (tl.dot(d_o, tl.trans(v), input_precision=PRECISION) - share[:, None])
        rows += tl.sum(d_s, axis=1)
        d_q = tl.dot(d_s.to(k.dtype), k, d_q, input_precision=PRECISION)

    high_begin = tl.load(high_ptr + begin)
    low_begin = tl.load(low_ptr + begin)
    total -= (high - high_begin) + (low - low_begin)
    first = tl.load(first_ptr + wide * turns + turn)
    for start in range(first * KEYS, begin, KEYS):
        k = tile(k_ptr, start, steps, stride, WIDTH, KEYS, LANES, True)
        v = tile(v_ptr, start, steps, stride, WIDTH, KEYS, LANES, True)
        s = past_scores(q, k, high_begin, low_begin, high_ptr, low_ptr, start, factor, KEYS, PRECISION)
        p = tl.exp2(s - total[:, None])
        d_s = p * (tl.dot(d_o, tl.trans(v), input_precision=PRECISION) - share[:, None])
        rows += tl.sum(d_s, axis=1)
        d_q = tl.dot(d_s.to(k.dtype), k, d_q, input_precision=PRECISION)

    lane = tl.arange(0, LANES)
    at = d_q_ptr + head + tl.cast(begin, tl.int64) * heads * WIDTH
    at += tl.arange(0, QUERIES)[:, None] * (heads * WIDTH) + lane[None, :]
    tl.store(at, d_q * scale, mask=inside[:, None] & (lane < WIDTH)[None, :])
    tl.store(rows_ptr + wide * steps + step, rows, mask=inside)


@triton.jit(do_not_specialize=["steps", "heads", "key_heads"])
def key_kernel(
    q_ptr, k_ptr, v_ptr, d_o_ptr, high_ptr, low_ptr, total_ptr, share_ptr, first_ptr, d_k_ptr, d_v_ptr, columns_ptr,
    steps, heads, key_heads, scale,
    WIDTH: tl.constexpr, LANES: tl.constexpr, QUERIES: tl.constexpr, KEYS: tl.constexpr,
    FIRST_QUERIES: tl.constexpr, FIRST_KEYS: tl.constexpr, SEARCH: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Writes the gradients by k and v (B, T, K, D) and the column sums of the scores' gradient (B H, T).

    `first` was written for blocks of `FIRST_QUERIES` and `FIRST_KEYS`.
    """
    blocks = tl.cdiv(steps, KEYS)
    turns = tl.cdiv(steps, FIRST_QUERIES)
    key_row = tl.program_id(0) // blocks
    begin = tl.program_id(0) % blocks * KEYS
    group = heads // key_heads
    factor = scale * LOG2_E
    key = begin + tl.arange(0, KEYS)
    inside = key < steps
    key_head = head_of(key_row, steps, key_heads, WIDTH)
    k = tile(k_ptr + key_head, begin, steps, key_heads * WIDTH, WIDTH, KEYS, LANES, False)
    v = tile(v_ptr + key_head, begin, steps, key_heads * WIDTH, WIDTH, KEYS, LANES, False)
    d_k = tl.zeros([KEYS, LANES], tl.float32)
    d_v = tl.zeros([KEYS, LANES], tl.float32)
    for member in range(0, group):
        row = key_row // key_heads * heads + key_row % key_heads * group + member
        wide = tl.cast(row, tl.int64)
        head = head_of(row, steps, heads, WIDTH)
        key_high, key_low = prefix_at(high_ptr + wide * steps, low_ptr + wide * steps, key, steps)
        # One past the last query to which these keys matter.
        end = begin + KEYS
        for start in range(begin // FIRST_QUERIES, turns, SEARCH):
            turn = start + tl.arange(0, SEARCH)
            there = turn < turns
            first = tl.load(first_ptr + wide * turns + turn, mask=there, other=0) * FIRST_KEYS
            reach = tl.where(there & (first < begin + KEYS), (turn + 1) * FIRST_QUERIES, 0)
            end = tl.maximum(end, tl.max(reach, axis=0))
        columns = tl.zeros([KEYS], tl.float32)
        for start in range(begin // QUERIES * QUERIES, tl.minimum(end, steps), QUERIES):
            step = start + tl.arange(0, QUERIES)
            there = step < steps
            q = tile(q_ptr + head, start, steps, heads * WIDTH, WIDTH, QUERIES, LANES, False)
            d_o = tile(d_o_ptr + head, start, steps, heads * WIDTH, WIDTH, QUERIES, LANES, False)
            high, low = prefix_at(high_ptr + wide * steps, low_ptr + wide * steps, step, steps)
            total = tl.load(total_ptr + wide * steps + step, mask=there, other=float("inf")) * LOG2_E
            share = tl.load(share_ptr + wide * steps + step, mask=there, other=0.0)
            s = tl.dot(k, tl.trans(q), input_precision=PRECISION) * factor
            s += (high[None, :] - key_high[:, None]) + ((low - total)[None, :] - key_low[:, None])
            p = tl.exp2(tl.where(key[:, None] <= step[None, :], s, float("-inf")))
            d_v = tl.dot(p.to(d_o.dtype), d_o, d_v, input_precision=PRECISION)
            d_s = p * (tl.dot(v, tl.trans(d_o), input_precision=PRECISION) - share[None, :])
            columns += tl.sum(d_s, axis=1)
            d_k = tl.dot(d_s.to(q.dtype), q, d_k, input_precision=PRECISION)
        tl.store(columns_ptr + wide * steps + key, columns, mask=inside)

    lane = tl.arange(0, LANES)
    at = key_head + tl.cast(begin, tl.int64) * key_heads * WIDTH
    at += tl.arange(0, KEYS)[:, None] * (key_heads * WIDTH) + lane[None, :]
    mask = inside[:, None] & (lane < WIDTH)[None, :]
    tl.store(d_k_ptr + at, d_k * scale, mask=mask)
    tl.store(d_v_ptr + at, d_v, mask=mask)


@triton.jit(do_not_specialize=["steps", "heads"])
def gate_kernel(rows_ptr, columns_ptr, d_log_f_ptr, steps, heads, SPAN: tl.constexpr):
    """Writes the gradient by log_f (B, T, H): what rows from a step on hold less what columns from it on hold."""
    row = tl.program_id(0)
    wide = tl.cast(row, tl.int64)
    d_log_f_ptr += wide // heads * steps * heads + row % heads
    within = tl.arange(0, SPAN)
    carry = tl.full([], 0.0, tl.float64)
    for start in range(0, steps, SPAN):
        step = steps - 1 - start - within
        inside = step >= 0
        there = wide * steps + step
        d_c = tl.load(rows_ptr + there, mask=inside, other=0.0).to(tl.float64)
        d_c -= tl.load(columns_ptr + there, mask=inside, other=0.0).to(tl.float64)
        d_log_f = carry + tl.cumsum(d_c, axis=0)
        tl.store(d_log_f_ptr + tl.cast(step, tl.int64) * heads, d_log_f, mask=inside)
        carry = tl.sum(tl.where(within == SPAN - 1, d_log_f, 0.0), axis=0)
