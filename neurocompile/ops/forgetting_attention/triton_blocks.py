"""Block sizes of the Triton kernels of `forgetting_attention`, by chip; no launch tries several."""

from __future__ import annotations

from dataclasses import dataclass

SEARCH = 64
"""Blocks whose bounds are looked at together."""

WIDEST = 128
"""Channels of a head at most."""


@dataclass(frozen=True)
class Blocks:
    """How a kernel cuts its problem.

    Attributes:
        queries: Positions of a block of queries.
        keys: Positions of a block of keys.
        warps: Warps of one program.
        stages: Blocks in flight from memory.
    """

    queries: int
    keys: int
    warps: int
    stages: int


@dataclass(frozen=True)
class Plan:
    """Blocks of the kernels that meet pairs of positions.

    Attributes:
        forward: Of `forward_kernel`; queries are a multiple of keys.
        query: Of `query_kernel` and `share_kernel`; queries are a multiple of keys.
        key: Of `key_kernel`.
    """

    forward: Blocks
    query: Blocks
    key: Blocks


# By bytes of an operand and channels of a head at most: what compiles without spilled registers, or with the fewest,
# and fits the shared memory of every chip that takes it. float32 is multiplied in three TF32 products, whose parts
# take many registers; `benchmarks/results/triton_forgetting_attention.json` has the count of each kernel and chip.
_PLANS = {
    (2, 32): Plan(Blocks(128, 64, 4, 3), Blocks(64, 64, 4, 3), Blocks(32, 64, 4, 3)),
    (2, 64): Plan(Blocks(128, 64, 8, 3), Blocks(64, 32, 4, 3), Blocks(32, 64, 4, 3)),
    (2, 128): Plan(Blocks(64, 32, 8, 2), Blocks(64, 32, 8, 2), Blocks(32, 64, 8, 2)),
    (4, 32): Plan(Blocks(64, 32, 4, 2), Blocks(32, 32, 4, 2), Blocks(16, 64, 4, 2)),
    (4, 64): Plan(Blocks(32, 32, 4, 2), Blocks(32, 32, 4, 2), Blocks(16, 32, 4, 2)),
    (4, 128): Plan(Blocks(32, 16, 8, 2), Blocks(32, 16, 8, 2), Blocks(16, 32, 8, 2)),
}

# Server Blackwell keeps sums in a memory of its own; 128 rows read from it need the registers of 8 warps.
_TENSOR_MEMORY = _PLANS | {(2, 32): Plan(Blocks(128, 64, 8, 3), Blocks(64, 64, 4, 3), Blocks(32, 64, 4, 3))}

# On Turing Triton multiplies on the common units, in float32, and has no copies past the registers.
_TURING = {
    (2, 32): Plan(Blocks(32, 32, 4, 2), Blocks(32, 32, 4, 2), Blocks(32, 32, 4, 2)),
    (2, 64): Plan(Blocks(64, 16, 8, 2), Blocks(64, 16, 8, 2), Blocks(64, 16, 8, 2)),
    (2, 128): Plan(Blocks(32, 16, 8, 2), Blocks(32, 16, 8, 2), Blocks(32, 16, 8, 2)),
    (4, 32): Plan(Blocks(32, 32, 4, 2), Blocks(32, 32, 4, 2), Blocks(32, 32, 4, 2)),
    (4, 64): Plan(Blocks(32, 16, 4, 2), Blocks(32, 32, 4, 2), Blocks(32, 16, 4, 2)),
    (4, 128): Plan(Blocks(32, 16, 8, 2), Blocks(32, 16, 8, 2), Blocks(16, 32, 8, 2)),
}


def plan(capability: int, width: int, size: int) -> Plan:
    """The blocks for a chip.

    Args:
        capability: 75 for compute capability 7.5, and so on.
        width: Channels of a head, at most `WIDEST`.
        size: Bytes of an operand, 2 or 4.

    Returns:
        Blocks of all kernels.
    """
    lanes = next(lanes for lanes in (32, 64, WIDEST) if width <= lanes)
    plans = _TURING if capability < 80 else _TENSOR_MEMORY if 100 <= capability < 120 else _PLANS
    return plans[size, lanes]


def span(steps: int, keys: int) -> int:
    """Steps that the kernels of the gates sum at once: a power of two, a multiple of `keys`."""
    span = max(keys, 16)
    while span < min(steps, 1024):
        span *= 2
    return span
