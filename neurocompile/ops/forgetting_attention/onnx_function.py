"""`forgetting_attention` in ONNX: one node `neurocompile::ForgettingAttention` with a function body of standard ops.

The body is a `Scan` over blocks of 64 queries, each of which meets all keys up to its own end: memory grows with T,
and no key behind a block is touched. Prefix sums of the gates and their differences within a block are float64; between
blocks both sides are taken relative to the queries' first position.
"""

from __future__ import annotations

from torch import Tensor

from neurocompile.ops.function import NodeFunction

QUERIES = 64

_TEXT = f"""
(q, k, v, log_f) => (o)
{{
    batch = Shape <start = 0, end = 1> (q)
    steps = Shape <start = 1, end = 2> (q)
    width = Shape <start = 3, end = 4> (q)
    key_heads = Shape <start = 2, end = 3> (k)
    whole = Shape (q)
    none = Constant <value_ints = [0]> ()
    one = Constant <value_ints = [1]> ()
    rest = Constant <value_ints = [-1]> ()
    two = Constant <value_ints = [2]> ()
    third = Constant <value_ints = [3]> ()
    fourth = Constant <value_ints = [4]> ()
    largest = Constant <value_ints = [{QUERIES}]> ()
    size = Min (largest, steps)
    before_last = Sub (steps, one)
    last_block = Div (before_last, size)
    blocks = Add (last_block, one)
    capacity = Mul (blocks, size)
    missing = Sub (capacity, steps)
    margins = Concat <axis = 0> (none, missing)

    real_width = CastLike (width, q)
    root = Sqrt (real_width)
    scaled = Div (q, root)
    padded = Pad (scaled, margins, , one)
    cut = Concat <axis = 0> (batch, blocks, size, key_heads, rest, width)
    q_cut = Reshape (padded, cut)
    q_blocks = Transpose <perm = [1, 0, 3, 4, 2, 5]> (q_cut)
    k_heads = Transpose <perm = [0, 2, 3, 1]> (k)
    v_heads = Transpose <perm = [0, 2, 1, 3]> (v)
    k_all = Unsqueeze (k_heads, two)
    v_all = Unsqueeze (v_heads, two)

    wide = Cast <to = 11> (log_f)
    axis = Constant <value_int = 1> ()
    sums = CumSum (wide, axis)
    grouped = Concat <axis = 0> (batch, steps, key_heads, rest)
    sums_cut = Reshape (sums, grouped)
    passed = Transpose <perm = [0, 2, 3, 1]> (sums_cut)
    passed_padded = Pad (passed, margins, , third)

    zero = Constant <value_int = 0> ()
    step = Constant <value_int = 1> ()
    scalar_size = Squeeze (size, none)
    scalar_capacity = Squeeze (capacity, none)
    scalar_steps = Squeeze (steps, none)
    begins = Range (zero, scalar_capacity, scalar_size)
    places = Range (zero, scalar_steps, step)
    within = Range (zero, scalar_size, step)
    column = Unsqueeze (within, one)
    low = Constant <value_float = -1.0e30> ()
    hidden = CastLike (low, q)

    o_blocks = Scan <
        num_scan_inputs = 2, scan_input_axes = [0, 0], scan_output_axes = [0],
        body = block (begin, queries) => (result) {{
            stop = Add (begin, scalar_size)
            bounded = Min (stop, scalar_steps)
            end = Unsqueeze (bounded, none)
            keys = Slice (k_all, none, end, fourth)
            values = Slice (v_all, none, end, third)
            first = Unsqueeze (begin, none)
            last = Unsqueeze (stop, none)
            c_past = Slice (passed, none, first, third)
            c_own = Slice (passed, first, end, third)
            c_rows = Slice (passed_padded, first, last, third)
            next = Add (first, one)
            c_begin = Slice (passed, first, next, third)
            wide_past = Sub (c_begin, c_past)
            wide_rows = Sub (c_rows, c_begin)
            past = CastLike (wide_past, queries)
            rows = CastLike (wide_rows, queries)
            past_row = Unsqueeze (past, third)
            rows_column = Unsqueeze (rows, fourth)
            past_decay = Add (rows_column, past_row)
            own_row = Unsqueeze (c_own, third)
            own_column = Unsqueeze (c_rows, fourth)
            wide_own = Sub (own_column, own_row)
            own_bias = CastLike (wide_own, queries)
            at_row = Add (column, begin)
            at_key = Slice (places, first, end, none)
            seen = GreaterOrEqual (at_row, at_key)
            own_decay = Where (seen, own_bias, hidden)
            decay = Concat <axis = -1> (past_decay, own_decay)
            products = MatMul (queries, keys)
            scores = Add (products, decay)
            weights = Softmax <axis = -1> (scores)
            result = MatMul (weights, values)
        }}
    > (begins, q_blocks)

    o_cut = Transpose <perm = [1, 0, 4, 2, 3, 5]> (o_blocks)
    heads = Shape <start = 2, end = 3> (q)
    joined = Concat <axis = 0> (batch, capacity, heads, width)
    o_padded = Reshape (o_cut, joined)
    o = Slice (o_padded, none, steps, one)
}}
"""

FUNCTION = NodeFunction("ForgettingAttention", _TEXT)
"""Inputs `q` (B, T, H, D), `k` and `v` (B, T, K, D), `log_f` (B, T, H), output `o` (B, T, H, D), all of one
floating-point type, T at least 1. Sizes may be dynamic.
"""


def symbolic_node(*inputs: Tensor) -> Tensor:
    """Emits the node while a module is being exported; the inputs are all four and of one type."""
    return FUNCTION.emit(inputs, [(inputs[0].dtype, inputs[0].shape)])[0]
