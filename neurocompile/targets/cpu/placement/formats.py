"""How the numbers of a matrix are kept, and how they are packed.

    fp32   one float per weight
    bf16   two weights per 32-bit word, for the inputs 2j (low half) and 2j + 1. The second one is used as the whole
           word: the low half is then part of its mantissa, and its high half is chosen so that the word is nearest to
           the weight. So it costs no instruction to unpack, and no precision.
    int8   two weights per 16 bits, one scale per output. The input is rounded to 16 bits for each product, with a scale
           of its own, and sums are exact in 32 bits; so only the weights lose precision. Processors with an
           instruction for dot products of four bytes get four weights per 32 bits (`QUADS`, `EXCESS_QUADS`); the
           input's upper and lower byte are then summed apart, which gives the same numbers.

A panel holds its outputs' weights for input after input (pair after pair), so that a step is one contiguous load. Every
piece of the input begins a new step.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

LARGEST_WEIGHT = 127
LARGEST_INPUT = 32767


@dataclass(frozen=True)
class Format:
    """One way to keep a matrix.

    Attributes:
        name: `fp32`, `bf16` or `int8`.
        group: Inputs per step.
        step_bytes: Bytes per output and step.
        table: How rows of large tables are kept: `float32` or `bf16`; see `layout.table_storage`.
        words: (K, N) matrix of `group` inputs per step, N padded -> bytes of one panel's piece.
        sums: Sums per output.
        largest_input: What the largest input is rounded to, for whole numbers.
        excess: Added to every 8-bit weight, for instructions that want one factor without sign.
    """

    name: str
    group: int
    step_bytes: int
    table: str
    words: Callable[[np.ndarray], np.ndarray]
    sums: int = 1
    largest_input: int = LARGEST_INPUT
    excess: int = 0

    def steps(self, pieces: Sequence[int]) -> int:
        """Steps of a product whose input comes in pieces of these lengths."""
        return sum(-(-length // self.group) for length in pieces)

    def pack(self, block: np.ndarray, pieces: Sequence[int]) -> bytes:
        """The bytes of one panel: a (K, width) matrix in the format's own numbers."""
        parts, begin = [], 0
        for length in pieces:
            padded = np.zeros((-(-length // self.group) * self.group, block.shape[1]), block.dtype)
            padded[:length] = block[begin : begin + length]
            parts.append(self.words(padded).tobytes())
            begin += length
        return b"".join(parts)


def to_bf16(values: np.ndarray) -> np.ndarray:
    """The nearest bfloat16 of finite float32 numbers, as uint16; ties to even."""
    bits = np.ascontiguousarray(values, np.float32).view(np.uint32).astype(np.uint64)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)


def pair_words(block: np.ndarray) -> np.ndarray:
    """(K, N) float32 -> (K/2, N) words: the low half is the even row; as floats they are nearest to the odd row."""
    low = to_bf16(block[0::2]).astype(np.int64)
    bits = np.ascontiguousarray(block[1::2], np.float32).view(np.uint32).astype(np.int64)
    high = np.maximum(((bits & 0x7FFFFFFF) - low + 0x8000) >> 16, 0)
    # A word below the smallest normal number would make the multiply-add slow.
    high = np.where((high < 0x80) & (low != 0), 0x80, high)
    return ((bits & 0x80000000) | high << 16 | low).astype(np.uint32)


def quantise(matrix: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rounds a matrix to 8 bits with one scale per output.

    Args:
        matrix: (K, N) float32.

    Returns:
        (K, N) int8 and (N,) float32 scales, chosen among 24 clippings for the least squared error; an output whose
        weights lie on a grid already (pass *compensate*) keeps it.
    """
    largest = np.maximum(np.abs(matrix).max(0), np.finfo(np.float32).tiny)
    best, error = largest, np.full(matrix.shape[1], np.inf)
    for share in np.linspace(0.7, 1, 24):
        scale = largest * share / LARGEST_WEIGHT
        rounded = np.clip(np.round(matrix / scale), -LARGEST_WEIGHT, LARGEST_WEIGHT) * scale
        now = np.square(rounded - matrix).sum(0)
        best, error = np.where(now < error, scale, best), np.minimum(now, error)
    given = grid_of(matrix)
    best = np.where(given > 0, given, best)
    numbers = np.clip(np.round(matrix / best), -LARGEST_WEIGHT, LARGEST_WEIGHT)
    return numbers.astype(np.int8), best.astype(np.float32)


def grid_of(matrix: np.ndarray) -> np.ndarray:
    """(N,) float64 step of the 8-bit grid that an output's weights lie on, 0 where they lie on none.

    The largest weight is a whole number of steps, at most 127; fewer than `COARSEST` would be no grid of 8 bits.
    """
    wide = matrix.astype(np.float64)
    largest, found = np.abs(wide).max(0), np.zeros(matrix.shape[1])
    for steps in range(COARSEST, LARGEST_WEIGHT + 1):
        step = largest / steps
        multiple = wide / np.where(step > 0, step, 1)
        fits = (np.abs(multiple - np.round(multiple)) < ON_GRID).all(0) & (step > 0)
        found = np.where(fits, step, found)
    return found


COARSEST = 64
ON_GRID = 1e-4
"""Steps by which a float32 multiple of a step may be off."""


def _byte_pairs(block: np.ndarray) -> np.ndarray:
    """(K, N) int8 -> (K/2, N, 2)."""
    return np.ascontiguousarray(block.reshape(-1, 2, block.shape[1]).transpose(0, 2, 1))


def _byte_quads(block: np.ndarray) -> np.ndarray:
    """(K, N) int8 -> (K/4, N, 4)."""
    return np.ascontiguousarray(block.reshape(-1, 4, block.shape[1]).transpose(0, 2, 1))


def _excess_quads(block: np.ndarray) -> np.ndarray:
    """(K, N) int8 -> (K/4, N, 4), each plus 128, as bytes without sign."""
    return _byte_quads((block.astype(np.int16) + EXCESS).astype(np.uint8))


FORMATS = {
    "fp32": Format("fp32", 1, 4, "float32", np.ascontiguousarray),
    "bf16": Format("bf16", 2, 4, "bf16", pair_words),
    "int8": Format("int8", 2, 2, "bf16", _byte_pairs),
}

# 127 * 256 + 127: the largest number whose two bytes are both in -127..127 after rounding to the nearest.
QUADS = Format("int8", 4, 4, "bf16", _byte_quads, sums=2, largest_input=32639)
"""`int8` in fours."""

EXCESS = 128
EXCESS_QUADS = Format("int8", 4, 4, "bf16", _excess_quads, sums=2, largest_input=32639, excess=EXCESS)
"""`int8` in fours for x86-64, whose dot products want one factor without sign; Σ x times the excess is taken off."""
