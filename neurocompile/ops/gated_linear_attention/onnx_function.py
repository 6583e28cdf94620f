"""`gated_linear_attention` in ONNX: one node `neurocompile::GatedLinearAttention`, its body of standard operators.

The body is a `Scan` over blocks of 64 positions that carries the state; see `blocked`. From operator set 27 on, ONNX
has `LinearAttention` (`update_rule` "gated"), which ONNX Runtime 1.31 does not load; its `com.microsoft` operator of
that name computes the same, and a test holds the two together.
"""

from __future__ import annotations

from torch import Tensor

from neurocompile.ops.function import NodeFunction

BLOCK = 64

_TEXT = f"""
(q, k, v, log_f, state) => (o, last)
{{
    batch = Shape <start = 0, end = 1> (q)
    steps = Shape <start = 1, end = 2> (q)
    heads = Shape <start = 2, end = 3> (q)
    width = Shape <start = 3, end = 4> (q)
    key_heads = Shape <start = 2, end = 3> (k)
    out = Shape <start = 3, end = 4> (v)
    none = Constant <value_ints = [0]> ()
    one = Constant <value_ints = [1]> ()
    rest = Constant <value_ints = [-1]> ()
    two = Constant <value_ints = [2]> ()
    third = Constant <value_ints = [3]> ()
    largest = Constant <value_ints = [{BLOCK}]> ()
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
    q_padded = Pad (scaled, margins, , one)
    q_cut = Concat <axis = 0> (batch, blocks, size, key_heads, rest, width)
    q_six = Reshape (q_padded, q_cut)
    q_blocks = Transpose <perm = [1, 0, 3, 4, 2, 5]> (q_six)
    k_padded = Pad (k, margins, , one)
    k_cut = Concat <axis = 0> (batch, blocks, size, key_heads, one, width)
    k_six = Reshape (k_padded, k_cut)
    k_blocks = Transpose <perm = [1, 0, 3, 4, 5, 2]> (k_six)
    v_padded = Pad (v, margins, , one)
    v_cut = Concat <axis = 0> (batch, blocks, size, key_heads, one, out)
    v_six = Reshape (v_padded, v_cut)
    v_blocks = Transpose <perm = [1, 0, 3, 4, 2, 5]> (v_six)
    f_padded = Pad (log_f, margins, , one)
    f_cut = Concat <axis = 0> (batch, blocks, size, key_heads, rest)
    f_five = Reshape (f_padded, f_cut)
    f_blocks = Transpose <perm = [1, 0, 3, 4, 2]> (f_five)
    grouped = Concat <axis = 0> (batch, key_heads, rest, width, out)
    state_grouped = Reshape (state, grouped)

    zero = Constant <value_int = 0> ()
    step = Constant <value_int = 1> ()
    across = Constant <value_int = 3> ()
    scalar_size = Squeeze (size, none)
    within = Range (zero, scalar_size, step)
    column = Unsqueeze (within, one)
    row = Unsqueeze (within, none)
    seen = GreaterOrEqual (column, row)
    low = Constant <value_float = -1.0e30> ()
    hidden = CastLike (low, q)
    at_end = Sub (size, one)

    end_state, o_blocks = Scan <
        num_scan_inputs = 4, scan_input_axes = [0, 0, 0, 0], scan_output_axes = [0],
        body = block (s, queries, keys, values, gates) => (s_next, result) {{
            c = CumSum (gates, across)
            c_column = Unsqueeze (c, rest)
            four = Constant <value_ints = [3]> ()
            c_row = Unsqueeze (c, four)
            passed = Sub (c_column, c_row)
            past = Where (seen, passed, hidden)
            decay = Exp (past)
            products = MatMul (queries, keys)
            weights = Mul (products, decay)
            own = MatMul (weights, values)
            opened = Exp (c_column)
            asked = Mul (queries, opened)
            before = MatMul (asked, s)
            result = Add (own, before)
            c_end = Slice (c, at_end, size, third)
            left_log = Sub (c_end, c)
            left = Exp (left_log)
            left_row = Unsqueeze (left, four)
            keys_left = Mul (keys, left_row)
            learnt = MatMul (keys_left, values)
            kept = Exp (c_end)
            kept_all = Unsqueeze (kept, rest)
            s_kept = Mul (kept_all, s)
            s_next = Add (s_kept, learnt)
        }}
    > (state_grouped, q_blocks, k_blocks, v_blocks, f_blocks)

    o_cut = Transpose <perm = [1, 0, 4, 2, 3, 5]> (o_blocks)
    joined = Concat <axis = 0> (batch, capacity, heads, out)
    o_padded = Reshape (o_cut, joined)
    o = Slice (o_padded, none, steps, one)
    flat = Concat <axis = 0> (batch, heads, width, out)
    last = Reshape (end_state, flat)
}}
"""

FUNCTION = NodeFunction("GatedLinearAttention", _TEXT)
"""Inputs `q` (B, T, H, D), `k` (B, T, K, D), `v` (B, T, K, E), `log_f` (B, T, H), `state` (B, H, D, E), outputs `o`
(B, T, H, E) and `last` (B, H, D, E), all of one floating-point type, T at least 1. Sizes may be dynamic.
"""


def symbolic_node(*inputs: Tensor) -> tuple[Tensor, Tensor]:
    """Emits the node while a module is being exported; the inputs are all five and of one type."""
    q, _, v, _, state = inputs
    o, last = FUNCTION.emit(inputs, ((q.dtype, (*q.shape[:3], v.shape[3])), (q.dtype, state.shape)))
    return o, last
