"""The Triton kernels of `forgetting_attention`, forward; `triton_gradient.py` has the backward ones.

A program owns `QUERIES` positions of one query head and meets its keys in blocks of `KEYS` with a running maximum and
sum (the online softmax of FlashAttention, arXiv 2205.14135): its own block first, then the past from the first block
that can still matter. Scores are in units of log 2. Prefix sums of the gates are pairs of float32, high and low, of a
float64 sum: the difference of two of them is exact to half a unit in the last place of the difference, and no float64
is left in the loops. Products of half-precision operands are exact and summed in float32; softmax weights are rounded
to the operands' type where they meet values.

Tensors are contiguous: (B, T, H, D), (B, T, K, D), (B, T, H); scratch has a row per batch and query head.
"""

from __future__ import annotations

import triton
import triton.language as tl

LOG2_E = tl.constexpr(1.4426950408889634)
LN_2 = tl.constexpr(0.6931471805599453)

# What remains of the keys is left out once it weighs less than 2^-24 of the sum; the rest is for rounding of the bound.
LEAST = tl.constexpr(-24.0 - 1 / 64)


@triton.jit
def tile(ptr, start, steps, stride, WIDTH: tl.constexpr, ROWS: tl.constexpr, LANES: tl.constexpr, WHOLE: tl.constexpr):
    """(ROWS, LANES) of one head from step `start` on; zero outside. `WHOLE`: all rows exist."""
    row = tl.arange(0, ROWS)[:, None]
    lane = tl.arange(0, LANES)[None, :]
    at = ptr + tl.cast(start, tl.int64) * stride + row * stride + lane
    if WHOLE:
        if WIDTH == LANES:
            return tl.load(at)
        return tl.load(at, mask=lane < WIDTH, other=0.0)
    return tl.load(at, mask=(start + row < steps) & (lane < WIDTH), other=0.0)


@triton.jit
def head_of(row, steps, heads, WIDTH: tl.constexpr):
    """Where the head of a row, of `heads` in each sequence, begins in a (B, T, heads, D) tensor."""
    return (tl.cast(row // heads, tl.int64) * steps * heads + row % heads) * WIDTH


@triton.jit
def key_head_of(row, steps, heads, key_heads, WIDTH: tl.constexpr):
    """Where the key head that a row's query head reads begins in a (B, T, K, D) tensor."""
    head = (row % heads) // (heads // key_heads)
    return (tl.cast(row // heads, tl.int64) * steps * key_heads + head) * WIDTH


@triton.jit
def prefix_at(high_ptr, low_ptr, step, steps):
    """C at some steps, high and low; zero outside."""
    inside = step < steps
    return tl.load(high_ptr + step, mask=inside, other=0.0), tl.load(low_ptr + step, mask=inside, other=0.0)


@triton.jit
def own_scores(q, k, high, low, high_ptr, low_ptr, key, steps, factor, PRECISION: tl.constexpr):
    """Scores (QUERIES, KEYS), those of later keys included."""
    key_high, key_low = prefix_at(high_ptr, low_ptr, key, steps)
    s = tl.dot(q, tl.trans(k), input_precision=PRECISION) * factor
    return s + ((high[:, None] - key_high[None, :]) + (low[:, None] - key_low[None, :]))


@triton.jit
def past_scores(
    q, k, high_begin, low_begin, high_ptr, low_ptr, start, factor,
    KEYS: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Scores (QUERIES, KEYS) with a whole block of earlier keys, as if all queries were at their first step."""
    key = start + tl.arange(0, KEYS)
    decay = (high_begin - tl.load(high_ptr + key)) + (low_begin - tl.load(low_ptr + key))
    return tl.dot(q, tl.trans(k), input_precision=PRECISION) * factor + decay[None, :]


@triton.jit
def first_block(
    longest, weight, high_begin, low_begin, held_high_ptr, held_low_ptr, size_ptr, own,
    KEYS: tl.constexpr, SEARCH: tl.constexpr,
):  # fmt: skip
    """How many key blocks, of the `own` ones before the queries, weigh too little together to count.

    With |q| <= `longest` (over sqrt(D), in units of log 2) and C_begin - C_i + log of a row's sum >= -`weight`, the
    first n keys weigh at most n exp(longest max |k| + weight + C_begin + max -C), which grows with n.
    """
    found = 0
    for start in range(0, own, SEARCH):
        block = start + tl.arange(0, SEARCH)
        inside = block < own
        held = high_begin + tl.load(held_high_ptr + block, mask=inside, other=0.0)
        held += low_begin + tl.load(held_low_ptr + block, mask=inside, other=0.0)
        size = tl.load(size_ptr + block, mask=inside, other=0.0)
        left = longest * size + weight + held + tl.log2(((block + 1) * KEYS).to(tl.float32))
        found += tl.sum((inside & (left <= LEAST)).to(tl.int32), axis=0)
    return found


@triton.jit
def _larger(one, two):
    return tl.maximum(one, two)


@triton.jit(do_not_specialize=["steps", "key_heads", "blocks"])
def size_kernel(
    k_ptr, size_ptr, steps, key_heads, blocks,
    WIDTH: tl.constexpr, LANES: tl.constexpr, KEYS: tl.constexpr,
):  # fmt: skip
    """Writes the largest norm of a key in each block: (B K, blocks)."""
    block = tl.program_id(0) % blocks
    row = tl.program_id(0) // blocks
    base = k_ptr + head_of(row, steps, key_heads, WIDTH)
    k = tile(base, block * KEYS, steps, key_heads * WIDTH, WIDTH, KEYS, LANES, False).to(tl.float32)
    norm = tl.sqrt(tl.sum(k * k, axis=1))
    tl.store(size_ptr + tl.cast(row, tl.int64) * blocks + block, tl.max(norm, axis=0))


@triton.jit(do_not_specialize=["steps", "heads", "key_heads", "blocks"])
def prefix_kernel(
    log_f_ptr, block_size_ptr, high_ptr, low_ptr, held_high_ptr, held_low_ptr, size_ptr,
    steps, heads, key_heads, blocks,
    KEYS: tl.constexpr, SPAN: tl.constexpr,
):  # fmt: skip
    """Walks a head: prefix sums C (B H, T), and at the end of each block the largest -C and the longest key so far.

    `SPAN` steps, a multiple of `KEYS`, are summed at once.
    """
    row = tl.program_id(0)
    wide = tl.cast(row, tl.int64)
    log_f_ptr += wide // heads * steps * heads + row % heads
    block_size_ptr += (wide // heads * key_heads + (row % heads) // (heads // key_heads)) * blocks
    within = tl.arange(0, SPAN)
    carry = tl.full([], 0.0, tl.float64)
    held = tl.full([], float("-inf"), tl.float64)
    longest = tl.full([], 0.0, tl.float32)
    for start in range(0, steps, SPAN):
        step = start + within
        inside = step < steps
        gate = tl.load(log_f_ptr + tl.cast(step, tl.int64) * heads, mask=inside, other=0.0)
        passed = carry + tl.cumsum(gate.to(tl.float64), axis=0) * LOG2_E
        high = passed.to(tl.float32)
        tl.store(high_ptr + wide * steps + step, high, mask=inside)
        tl.store(low_ptr + wide * steps + step, (passed - high.to(tl.float64)).to(tl.float32), mask=inside)
        carry = tl.sum(tl.where(within == SPAN - 1, passed, 0.0), axis=0)

        block = start // KEYS + tl.arange(0, SPAN // KEYS)
        here = block < blocks
        size = tl.load(block_size_ptr + block, mask=here, other=0.0)
        size = tl.maximum(tl.associative_scan(size, 0, _larger), longest)
        most = tl.max(tl.reshape(-passed, (SPAN // KEYS, KEYS)), axis=1)
        most = tl.maximum(tl.associative_scan(most, 0, _larger), held)
        most_high = most.to(tl.float32)
        tl.store(held_high_ptr + wide * blocks + block, most_high, mask=here)
        tl.store(held_low_ptr + wide * blocks + block, (most - most_high.to(tl.float64)).to(tl.float32), mask=here)
        tl.store(size_ptr + wide * blocks + block, size, mask=here)
        longest = tl.max(size, axis=0)
        held = tl.max(most, axis=0)


@triton.jit(do_not_specialize=["steps", "heads", "key_heads", "blocks"])
def forward_kernel(
    q_ptr, k_ptr, v_ptr, high_ptr, low_ptr, held_high_ptr, held_low_ptr, size_ptr, o_ptr, total_ptr,
    steps, heads, key_heads, blocks, scale,
    WIDTH: tl.constexpr, LANES: tl.constexpr, QUERIES: tl.constexpr, KEYS: tl.constexpr,
    SEARCH: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Writes o (B, T, H, D) and the natural logarithm of every softmax's sum (B H, T). `blocks` are of keys."""
    turns = tl.cdiv(steps, QUERIES)
    row = tl.program_id(0) // turns
    # Those with the longest past begin first.
    begin = (turns - 1 - tl.program_id(0) % turns) * QUERIES
    own = begin // KEYS
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
    high, low = prefix_at(high_ptr, low_ptr, step, steps)
    top = tl.full([QUERIES], float("-inf"), tl.float32)
    mass = tl.zeros([QUERIES], tl.float32)
    mean = tl.zeros([QUERIES, LANES], tl.float32)
    for start in range(begin, begin + QUERIES, KEYS):
        key = start + tl.arange(0, KEYS)
        k = tile(k_ptr, start, steps, stride, WIDTH, KEYS, LANES, False)
        v = tile(v_ptr, start, steps, stride, WIDTH, KEYS, LANES, False)
        s = own_scores(q, k, high, low, high_ptr, low_ptr, key, steps, factor, PRECISION)
        s = tl.where(key[None, :] <= step[:, None], s, float("-inf"))
        new = tl.maximum(top, tl.max(s, axis=1))
        shrink = tl.exp2(top - new)
        p = tl.exp2(s - new[:, None])
        mass = mass * shrink + tl.sum(p, axis=1)
        mean = tl.dot(p.to(v.dtype), v, mean * shrink[:, None], input_precision=PRECISION)
        top = new

    # Scores of the past are taken without `since`, what a row's own steps decay, which is the same for all those keys.
    high_begin = tl.load(high_ptr + begin)
    low_begin = tl.load(low_ptr + begin)
    since = (high - high_begin) + (low - low_begin)
    square = q.to(tl.float32) * q.to(tl.float32)
    longest = tl.max(tl.sqrt(tl.sum(square, axis=1)), axis=0) * factor
    weight = tl.max(tl.where(inside, since - top - tl.log2(mass), float("-inf")), axis=0)
    first = first_block(
        longest, weight, high_begin, low_begin, held_high_ptr + wide * blocks, held_low_ptr + wide * blocks,
        size_ptr + wide * blocks, own, KEYS, SEARCH,
    )  # fmt: skip
    for start in range(first * KEYS, begin, KEYS):
        k = tile(k_ptr, start, steps, stride, WIDTH, KEYS, LANES, True)
        v = tile(v_ptr, start, steps, stride, WIDTH, KEYS, LANES, True)
        s = past_scores(q, k, high_begin, low_begin, high_ptr, low_ptr, start, factor, KEYS, PRECISION)
        new = tl.maximum(top, tl.max(s, axis=1) + since)
        shrink = tl.exp2(top - new)
        p = tl.exp2(s - (new - since)[:, None])
        mass = mass * shrink + tl.sum(p, axis=1)
        mean = tl.dot(p.to(v.dtype), v, mean * shrink[:, None], input_precision=PRECISION)
        top = new

    lane = tl.arange(0, LANES)
    at = o_ptr + head + tl.cast(begin, tl.int64) * heads * WIDTH
    at += tl.arange(0, QUERIES)[:, None] * (heads * WIDTH) + lane[None, :]
    tl.store(at, mean / mass[:, None], mask=inside[:, None] & (lane < WIDTH)[None, :])
    tl.store(total_ptr + wide * steps + step, (top + tl.log2(mass)) * LN_2, mask=inside)
