"""`forgetting_attention_suffixes` in ONNX: a node `neurocompile::ForgettingAttentionSuffixes`, its body standard ops.

Maximum, sum and weighted values of every C keys are formed side by side; each answer then combines those from its own
on with what is known. Memory grows with Q times M. Prefix sums of the gates and their differences are float64. What is
combined stays elementwise, so that low precision is nowhere but in the products.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from neurocompile.ops.function import NodeFunction

_TEXT = """
<cut: int = 1>
(q, k, v, log_f, known) => (o)
{
    batch = Shape <start = 0, end = 1> (q)
    queries = Shape <start = 1, end = 2> (q)
    heads = Shape <start = 2, end = 3> (q)
    width = Shape <start = 3, end = 4> (q)
    keys = Shape <start = 1, end = 2> (k)
    key_heads = Shape <start = 2, end = 3> (k)
    steps = Shape <start = 1, end = 2> (log_f)
    none = Constant <value_ints = [0]> ()
    one = Constant <value_ints = [1]> ()
    rest = Constant <value_ints = [-1]> ()
    two = Constant <value_ints = [2]> ()
    three = Constant <value_ints = [3]> ()
    four = Constant <value_ints = [4]> ()
    scalar_cut = Constant <value_int: int = @cut> ()
    size = Unsqueeze (scalar_cut, none)
    parts = Div (keys, size)
    first = Sub (steps, queries)

    real_width = CastLike (width, q)
    root = Sqrt (real_width)
    scaled = Div (q, root)
    query_cut = Concat <axis = 0> (batch, queries, key_heads, rest, width)
    q_grouped = Reshape (scaled, query_cut)
    q_heads = Transpose <perm = [0, 2, 3, 1, 4]> (q_grouped)
    q_all = Unsqueeze (q_heads, three)
    key_cut = Concat <axis = 0> (batch, parts, size, key_heads, width)
    k_parts = Reshape (k, key_cut)
    k_heads = Transpose <perm = [0, 3, 1, 4, 2]> (k_parts)
    k_all = Unsqueeze (k_heads, two)
    v_parts = Reshape (v, key_cut)
    v_heads = Transpose <perm = [0, 3, 1, 2, 4]> (v_parts)
    v_all = Unsqueeze (v_heads, two)

    wide = Cast <to = 11> (log_f)
    axis = Constant <value_int = 1> ()
    sums = CumSum (wide, axis)
    here_flat = Slice (sums, first, steps, one)
    here_cut = Concat <axis = 0> (batch, queries, key_heads, rest)
    here_grouped = Reshape (here_flat, here_cut)
    here_heads = Transpose <perm = [0, 2, 3, 1]> (here_grouped)
    here_axes = Constant <value_ints = [3, 5]> ()
    here = Unsqueeze (here_heads, here_axes)
    there_flat = Slice (sums, none, keys, one)
    there_cut = Concat <axis = 0> (batch, parts, size, key_heads, rest)
    there_grouped = Reshape (there_flat, there_cut)
    there_heads = Transpose <perm = [0, 3, 4, 1, 2]> (there_grouped)
    there = Unsqueeze (there_heads, four)
    wide_decay = Sub (here, there)
    decay = CastLike (wide_decay, q)

    zero = Constant <value_int = 0> ()
    step = Constant <value_int = 1> ()
    scalar_first = Squeeze (first, none)
    scalar_steps = Squeeze (steps, none)
    scalar_keys = Squeeze (keys, none)
    scalar_parts = Squeeze (parts, none)
    places = Range (scalar_first, scalar_steps, step)
    at_query = Unsqueeze (places, one)
    positions = Range (zero, scalar_keys, step)
    position_cut = Concat <axis = 0> (parts, one, size)
    at_key = Reshape (positions, position_cut)
    seen = GreaterOrEqual (at_query, at_key)
    low = Constant <value_float = -1.0e30> ()
    hidden = CastLike (low, q)
    single_zero = Constant <value_float = 0.0> ()
    nothing = CastLike (single_zero, q)
    single_one = Constant <value_float = 1.0> ()
    unit = CastLike (single_one, q)

    products = MatMul (q_all, k_all)
    decayed = Add (products, decay)
    scores = Where (seen, decayed, hidden)
    largest = ReduceMax <keepdims = 1> (scores, rest)
    shifted = Sub (scores, largest)
    powers = Exp (shifted)
    weights = Where (seen, powers, nothing)
    part_mass = ReduceSum <keepdims = 1> (weights, rest)
    part_sum = MatMul (weights, v_all)

    known_cut = Concat <axis = 0> (batch, queries, key_heads, rest, width)
    known_value = Slice (known, none, width, three)
    value_grouped = Reshape (known_value, known_cut)
    value_heads = Transpose <perm = [0, 2, 3, 1, 4]> (value_grouped)
    value_all = Unsqueeze (value_heads, three)
    after = Add (width, one)
    known_score = Slice (known, width, after, three)
    score_cut = Concat <axis = 0> (batch, queries, key_heads, rest, one)
    score_grouped = Reshape (known_score, score_cut)
    score_heads = Transpose <perm = [0, 2, 3, 1, 4]> (score_grouped)
    score_all = Unsqueeze (score_heads, three)
    no_score = Mul (score_all, nothing)
    known_mass = Add (no_score, unit)
    column_top = Concat <axis = 3> (largest, score_all)
    column_mass = Concat <axis = 3> (part_mass, known_mass)
    column_sum = Concat <axis = 3> (part_sum, value_all)

    columns = Add (scalar_parts, step)
    answer_at = Range (zero, scalar_parts, step)
    column_at = Range (zero, columns, step)
    answer_axes = Constant <value_ints = [1, 2, 3]> ()
    column_axes = Constant <value_ints = [1, 2]> ()
    answer_row = Unsqueeze (answer_at, answer_axes)
    column_row = Unsqueeze (column_at, column_axes)
    taken = GreaterOrEqual (column_row, answer_row)
    top_all = Unsqueeze (column_top, three)
    tops = Where (taken, top_all, hidden)
    top = ReduceMax <keepdims = 1> (tops, four)
    below = Sub (tops, top)
    factors_all = Exp (below)
    factors = Where (taken, factors_all, nothing)
    mass_all = Unsqueeze (column_mass, three)
    masses = Mul (factors, mass_all)
    mass = ReduceSum <keepdims = 0> (masses, four)
    sum_all = Unsqueeze (column_sum, three)
    summands = Mul (factors, sum_all)
    total_sum = ReduceSum <keepdims = 0> (summands, four)
    mean = Div (total_sum, mass)
    log_mass = Log (mass)
    flat_top = Squeeze (top, four)
    logarithm = Add (flat_top, log_mass)
    packed = Concat <axis = -1> (mean, logarithm)
    ordered = Transpose <perm = [0, 3, 4, 1, 2, 5]> (packed)
    packed_width = Add (width, one)
    joined = Concat <axis = 0> (batch, parts, queries, heads, packed_width)
    o = Reshape (ordered, joined)
}
"""

FUNCTION = NodeFunction("ForgettingAttentionSuffixes", _TEXT)
"""Inputs `q` (B, Q, H, D), `k` and `v` (B, M, K, D), `log_f` (B, T, H), `known` (B, Q, H, D + 1), output `o`
(B, M / C, Q, H, D + 1), all of one floating-point type; attribute `cut` C. Sizes may be dynamic.
"""


def symbolic_node(inputs: Sequence[Tensor], cut: int) -> Tensor:
    """Emits the node while a module is being exported; the inputs are all five and of one type."""
    q, k = inputs[0], inputs[1]
    shape = (q.shape[0], k.shape[1] // cut, *q.shape[1:3], q.shape[3] + 1)
    return FUNCTION.emit(inputs, [(q.dtype, shape)], {"cut": cut})[0]
