"""The Triton kernels of `diagonal_scan`, forward and backward; `triton_launch.py` calls them.

A program owns a few columns (channels) of one sequence and walks a chunk of it in tiles: a tile is loaded at once,
scanned in registers and continued from the carry, so that a step costs no round trip to memory. Tensors are contiguous,
(B, T, P) and (B, P), of any real type; arithmetic and carry are in `ACC`. Elements outside a sequence read as zero
decay and zero input, which is harmless because nothing follows them.
"""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def _then(first_re, first_im, start_re, start_im, second_re, second_im, end_re, end_im):
    """Composes x -> first x + start with x -> second x + end."""
    return (
        second_re * first_re - second_im * first_im,
        second_re * first_im + second_im * first_re,
        second_re * start_re - second_im * start_im + end_re,
        second_re * start_im + second_im * start_re + end_im,
    )


@triton.jit
def _scan_tile(
    a_re_ptr, a_im_ptr, b_re_ptr, b_im_ptr, base, tile, steps, width, columns,
    BACKWARDS: tl.constexpr, ACC: tl.constexpr, TILE_STEPS: tl.constexpr,
):  # fmt: skip
    """Scans one tile from the identity; returns where its elements lie, which exist, and prefix decays and states.

    The k-th step of the backward walk is step T-1-k of the sequence; it multiplies by conj(a) of the step after.
    """
    k = tile * TILE_STEPS + tl.arange(0, TILE_STEPS)
    step = steps - 1 - k if BACKWARDS else k
    inside = (k < steps)[:, None] & (columns < width)[None, :]
    at = base + step.to(tl.int64)[:, None] * width + columns[None, :]
    if BACKWARDS:
        decays = inside & (k > 0)[:, None]
        a_re = tl.load(a_re_ptr + at + width, mask=decays, other=0.0).to(ACC)
        a_im = -tl.load(a_im_ptr + at + width, mask=decays, other=0.0).to(ACC)
    else:
        a_re = tl.load(a_re_ptr + at, mask=inside, other=0.0).to(ACC)
        a_im = tl.load(a_im_ptr + at, mask=inside, other=0.0).to(ACC)
    b_re = tl.load(b_re_ptr + at, mask=inside, other=0.0).to(ACC)
    b_im = tl.load(b_im_ptr + at, mask=inside, other=0.0).to(ACC)
    decay_re, decay_im, state_re, state_im = tl.associative_scan((a_re, a_im, b_re, b_im), 0, _then)
    return step, at, inside, decay_re, decay_im, state_re, state_im


@triton.jit
def _last(tile, TILE_STEPS: tl.constexpr):
    """The last row of a tile."""
    row = tl.arange(0, TILE_STEPS)[:, None]
    return tl.sum(tl.where(row == TILE_STEPS - 1, tile, 0.0), axis=0)


@triton.jit
def _place(chunks, steps, width, TILE_COLUMNS: tl.constexpr):
    """Which sequence, chunk and columns this program owns, and where the sequence begins."""
    groups = tl.cdiv(width, TILE_COLUMNS)
    program = tl.program_id(0)
    columns = (program % groups) * TILE_COLUMNS + tl.arange(0, TILE_COLUMNS)
    chunk = (program // groups) % chunks
    sequence = (program // groups) // chunks
    return sequence, chunk, columns, sequence.to(tl.int64) * steps * width


@triton.jit
def _entering(ptr, x0_ptr, sequence, chunk, chunks, width, columns, ACC: tl.constexpr):
    """The state that enters a chunk: the initial state, or the one after the chunk before."""
    first = columns < tl.where(chunk == 0, width, 0)
    later = columns < tl.where(chunk == 0, 0, width)
    initial = tl.load(x0_ptr + sequence * width + columns, mask=first, other=0.0).to(ACC)
    row = sequence * (chunks - 1) + chunk - 1
    return initial + tl.load(ptr + row * width + columns, mask=later, other=0.0).to(ACC)


@triton.jit
def summary_kernel(
    a_re_ptr, a_im_ptr, b_re_ptr, b_im_ptr, decay_re_ptr, decay_im_ptr, end_re_ptr, end_im_ptr,
    steps, width, chunks, tiles,
    BACKWARDS: tl.constexpr, ACC: tl.constexpr, TILE_STEPS: tl.constexpr, TILE_COLUMNS: tl.constexpr,
):  # fmt: skip
    """Writes decay product and end state from zero of all chunks but the last: (B, chunks - 1, P), in walking order."""
    sequence, chunk, columns, base = _place(chunks - 1, steps, width, TILE_COLUMNS)
    decay_re = tl.full([TILE_COLUMNS], 1.0, ACC)
    decay_im = tl.zeros([TILE_COLUMNS], ACC)
    end_re = tl.zeros([TILE_COLUMNS], ACC)
    end_im = tl.zeros([TILE_COLUMNS], ACC)
    for index in range(tiles):
        _, _, _, p_re, p_im, s_re, s_im = _scan_tile(
            a_re_ptr, a_im_ptr, b_re_ptr, b_im_ptr, base, chunk * tiles + index, steps, width, columns,
            BACKWARDS, ACC, TILE_STEPS,
        )  # fmt: skip
        decay_re, decay_im, end_re, end_im = _then(
            decay_re, decay_im, end_re, end_im,
            _last(p_re, TILE_STEPS), _last(p_im, TILE_STEPS), _last(s_re, TILE_STEPS), _last(s_im, TILE_STEPS),
        )  # fmt: skip
    at = (sequence * (chunks - 1) + chunk) * width + columns
    tl.store(decay_re_ptr + at, decay_re, mask=columns < width)
    tl.store(decay_im_ptr + at, decay_im, mask=columns < width)
    tl.store(end_re_ptr + at, end_re, mask=columns < width)
    tl.store(end_im_ptr + at, end_im, mask=columns < width)


@triton.jit
def scan_kernel(
    a_re_ptr, a_im_ptr, b_re_ptr, b_im_ptr, x0_re_ptr, x0_im_ptr, enter_re_ptr, enter_im_ptr, x_re_ptr, x_im_ptr,
    steps, width, chunks, tiles,
    ACC: tl.constexpr, TILE_STEPS: tl.constexpr, TILE_COLUMNS: tl.constexpr,
):  # fmt: skip
    """Writes the states of a chunk."""
    sequence, chunk, columns, base = _place(chunks, steps, width, TILE_COLUMNS)
    carry_re = _entering(enter_re_ptr, x0_re_ptr, sequence, chunk, chunks, width, columns, ACC)
    carry_im = _entering(enter_im_ptr, x0_im_ptr, sequence, chunk, chunks, width, columns, ACC)
    for index in range(tiles):
        _, at, inside, p_re, p_im, s_re, s_im = _scan_tile(
            a_re_ptr, a_im_ptr, b_re_ptr, b_im_ptr, base, chunk * tiles + index, steps, width, columns,
            False, ACC, TILE_STEPS,
        )  # fmt: skip
        x_re = p_re * carry_re[None, :] - p_im * carry_im[None, :] + s_re
        x_im = p_re * carry_im[None, :] + p_im * carry_re[None, :] + s_im
        tl.store(x_re_ptr + at, x_re, mask=inside)
        tl.store(x_im_ptr + at, x_im, mask=inside)
        carry_re = _last(x_re, TILE_STEPS)
        carry_im = _last(x_im, TILE_STEPS)


@triton.jit
def gradient_kernel(
    a_re_ptr, a_im_ptr, d_re_ptr, d_im_ptr, x0_re_ptr, x0_im_ptr, enter_re_ptr, enter_im_ptr, x_re_ptr, x_im_ptr,
    grad_a_re_ptr, grad_a_im_ptr, grad_b_re_ptr, grad_b_im_ptr, grad_x0_re_ptr, grad_x0_im_ptr,
    steps, width, chunks, tiles,
    ACC: tl.constexpr, TILE_STEPS: tl.constexpr, TILE_COLUMNS: tl.constexpr,
):  # fmt: skip
    """Walks a chunk from its end with g_k = d_k + conj(a_{k+1}) g_{k+1} and writes the gradients of all inputs."""
    sequence, chunk, columns, base = _place(chunks, steps, width, TILE_COLUMNS)
    # Chunk 0 of this walk holds the last steps, into which no gradient flows from later ones.
    later = columns < tl.where(chunk == 0, 0, width)
    row = sequence * (chunks - 1) + chunk - 1
    carry_re = tl.load(enter_re_ptr + row * width + columns, mask=later, other=0.0).to(ACC)
    carry_im = tl.load(enter_im_ptr + row * width + columns, mask=later, other=0.0).to(ACC)
    for index in range(tiles):
        step, at, inside, p_re, p_im, s_re, s_im = _scan_tile(
            a_re_ptr, a_im_ptr, d_re_ptr, d_im_ptr, base, chunk * tiles + index, steps, width, columns,
            True, ACC, TILE_STEPS,
        )  # fmt: skip
        g_re = p_re * carry_re[None, :] - p_im * carry_im[None, :] + s_re
        g_im = p_re * carry_im[None, :] + p_im * carry_re[None, :] + s_im
        tl.store(grad_b_re_ptr + at, g_re, mask=inside)
        tl.store(grad_b_im_ptr + at, g_im, mask=inside)

        first = inside & (step == 0)[:, None]
        inner = inside & (step > 0)[:, None]
        state = sequence * width + columns[None, :] + step[:, None] * 0
        before_re = tl.load(x_re_ptr + at - width, mask=inner, other=0.0).to(ACC)
        before_im = tl.load(x_im_ptr + at - width, mask=inner, other=0.0).to(ACC)
        before_re += tl.load(x0_re_ptr + state, mask=first, other=0.0).to(ACC)
        before_im += tl.load(x0_im_ptr + state, mask=first, other=0.0).to(ACC)
        tl.store(grad_a_re_ptr + at, g_re * before_re + g_im * before_im, mask=inside)
        tl.store(grad_a_im_ptr + at, g_im * before_re - g_re * before_im, mask=inside)

        a_re = tl.load(a_re_ptr + at, mask=first, other=0.0).to(ACC)
        a_im = tl.load(a_im_ptr + at, mask=first, other=0.0).to(ACC)
        tl.store(grad_x0_re_ptr + state, g_re * a_re + g_im * a_im, mask=first)
        tl.store(grad_x0_im_ptr + state, g_im * a_re - g_re * a_im, mask=first)
        carry_re = _last(g_re, TILE_STEPS)
        carry_im = _last(g_im, TILE_STEPS)
