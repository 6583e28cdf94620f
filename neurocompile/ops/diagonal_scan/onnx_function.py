"""`diagonal_scan` in ONNX: one node `neurocompile::DiagonalScan` whose function body is made of standard ops.

The body is the blocked scan: N blocks of about sqrt(T) steps, a `Scan` over the steps of all blocks at once, a `Scan`
over the blocks, and one combination of both. That is 2 sqrt(T) turns of a `Scan` loop, which costs microseconds a turn.
"""

from __future__ import annotations

from torch import Tensor

from neurocompile.ops.function import NodeFunction

_TEXT = """
(a_re, a_im, b_re, b_im, x0_re, x0_im) => (x_re, x_im)
{
    batch = Shape <start = 0, end = 1> (b_re)
    steps = Shape <start = 1, end = 2> (b_re)
    width = Shape <start = 2, end = 3> (b_re)
    real_steps = Cast <to = 1> (steps)
    root = Sqrt (real_steps)
    real_size = Ceil (root)
    size = Cast <to = 7> (real_size)
    one = Constant <value_ints = [1]> ()
    two = Constant <value_ints = [2]> ()
    before_last = Sub (steps, one)
    last_block = Div (before_last, size)
    blocks = Add (last_block, one)
    capacity = Mul (blocks, size)
    missing = Sub (capacity, steps)
    none = Constant <value_ints = [0]> ()
    margins = Concat <axis = 0> (none, missing)
    cut = Concat <axis = 0> (batch, blocks, size, width)
    whole = Concat <axis = 0> (batch, capacity, width)
    states = Concat <axis = 0> (batch, blocks, width)

    a_re_padded = Pad (a_re, margins, , one)
    a_im_padded = Pad (a_im, margins, , one)
    b_re_padded = Pad (b_re, margins, , one)
    b_im_padded = Pad (b_im, margins, , one)
    a_re_blocks = Reshape (a_re_padded, cut)
    a_im_blocks = Reshape (a_im_padded, cut)
    b_re_blocks = Reshape (b_re_padded, cut)
    b_im_blocks = Reshape (b_im_padded, cut)
    real_zero = Constant <value_float = 0.0> ()
    real_one = Constant <value_float = 1.0> ()
    zero_like = CastLike (real_zero, b_re)
    one_like = CastLike (real_one, b_re)
    zeros = Expand (zero_like, states)
    ones = Expand (one_like, states)

    decay_re, decay_im, end_re, end_im, p_re, p_im, s_re, s_im = Scan <
        num_scan_inputs = 4, scan_input_axes = [2, 2, 2, 2], scan_output_axes = [2, 2, 2, 2],
        body = within_blocks (decay_re, decay_im, state_re, state_im, a_re, a_im, b_re, b_im)
            => (decay_re_next, decay_im_next, state_re_next, state_im_next, p_re, p_im, s_re, s_im) {
            rr = Mul (a_re, decay_re)
            ii = Mul (a_im, decay_im)
            ri = Mul (a_re, decay_im)
            ir = Mul (a_im, decay_re)
            decay_re_next = Sub (rr, ii)
            decay_im_next = Add (ri, ir)
            state_rr = Mul (a_re, state_re)
            state_ii = Mul (a_im, state_im)
            state_ri = Mul (a_re, state_im)
            state_ir = Mul (a_im, state_re)
            turned_re = Sub (state_rr, state_ii)
            turned_im = Add (state_ri, state_ir)
            state_re_next = Add (turned_re, b_re)
            state_im_next = Add (turned_im, b_im)
            p_re = Identity (decay_re_next)
            p_im = Identity (decay_im_next)
            s_re = Identity (state_re_next)
            s_im = Identity (state_im_next)
        }
    > (ones, zeros, zeros, zeros, a_re_blocks, a_im_blocks, b_re_blocks, b_im_blocks)

    out_re, out_im, entering_re, entering_im = Scan <
        num_scan_inputs = 4, scan_input_axes = [1, 1, 1, 1], scan_output_axes = [1, 1],
        body = over_blocks (state_re, state_im, decay_re, decay_im, end_re, end_im)
            => (state_re_next, state_im_next, entering_re, entering_im) {
            rr = Mul (decay_re, state_re)
            ii = Mul (decay_im, state_im)
            ri = Mul (decay_re, state_im)
            ir = Mul (decay_im, state_re)
            turned_re = Sub (rr, ii)
            turned_im = Add (ri, ir)
            state_re_next = Add (turned_re, end_re)
            state_im_next = Add (turned_im, end_im)
            entering_re = Identity (state_re)
            entering_im = Identity (state_im)
        }
    > (x0_re, x0_im, decay_re, decay_im, end_re, end_im)

    carry_re = Unsqueeze (entering_re, two)
    carry_im = Unsqueeze (entering_im, two)
    rr = Mul (p_re, carry_re)
    ii = Mul (p_im, carry_im)
    ri = Mul (p_re, carry_im)
    ir = Mul (p_im, carry_re)
    turned_re = Sub (rr, ii)
    turned_im = Add (ri, ir)
    x_re_blocks = Add (turned_re, s_re)
    x_im_blocks = Add (turned_im, s_im)
    x_re_padded = Reshape (x_re_blocks, whole)
    x_im_padded = Reshape (x_im_blocks, whole)
    x_re = Slice (x_re_padded, none, steps, one)
    x_im = Slice (x_im_padded, none, steps, one)
}
"""

FUNCTION = NodeFunction("DiagonalScan", _TEXT)
"""Inputs `a_re, a_im, b_re, b_im` (B, T, P) and `x0_re, x0_im` (B, P), outputs `x_re, x_im` (B, T, P), all of one
floating-point type, T at least 1. Sizes may be dynamic.
"""


def symbolic_node(*inputs: Tensor) -> tuple[Tensor, Tensor]:
    """Emits the node while a module is being exported; the inputs are all six and of one type."""
    like = (inputs[2].dtype, inputs[2].shape)
    re, im = FUNCTION.emit(inputs, (like, like))
    return re, im
