"""Block sizes of the Triton kernel of `gated_linear_attention`, by chip; no launch tries several."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from neurocompile.ops.machine_code import precision

WIDEST = 128
"""Channels of a key at most."""


@dataclass(frozen=True)
class Blocks:
    """How the kernel cuts its problem.

    Attributes:
        steps: Positions that are met at once.
        columns: Values of one program at most.
        warps: Warps of one program.
        stages: Blocks in flight from memory.
    """

    steps: int
    columns: int
    warps: int
    stages: int


# By bytes of an operand and channels of a key at most: what compiles with few spilled registers for every chip and
# needs at most 48 KiB of shared memory, which a plugin may have. float32 is multiplied in three TF32 products, whose
# parts take many registers.
_PLANS = {
    (2, 32): Blocks(64, 32, 4, 2),
    (2, 64): Blocks(32, 32, 4, 2),
    (2, 128): Blocks(32, 32, 8, 2),
    (4, 32): Blocks(32, 16, 4, 2),
    (4, 64): Blocks(16, 32, 4, 2),
    (4, 128): Blocks(16, 16, 8, 2),
}


def plan(capability: int, width: int, size: int) -> Blocks:
    """The blocks for a chip.

    Args:
        capability: 75 for compute capability 7.5, and so on.
        width: Channels of a key, at most `WIDEST`.
        size: Bytes of an operand, 2 or 4.

    Returns:
        Blocks of the kernel.
    """
    lanes = next(lanes for lanes in (32, 64, WIDEST) if width <= lanes)
    # On Turing Triton multiplies on the common units, in float32.
    return _PLANS[4 if capability < 80 else size, lanes]


def constants(
    blocks: Blocks, capability: int, size: int, width: int, out: int, steps: int, backwards: bool = False
) -> dict[str, Any]:
    """The constants of the kernel.

    Args:
        blocks: From `plan`.
        capability: As given there.
        size: As given there.
        width: Channels D of a key.
        out: Channels E of a value.
        steps: Positions of the sequence; short ones get short blocks.
        backwards: Whether to walk from the end.

    Returns:
        Values by name.
    """
    single = precision(capability, size)
    return {
        "SCALE": width**-0.5,
        "WIDTH": width,
        "LANES": max(16, _power(width)),
        "OUT": out,
        "COLUMNS": max(16, min(blocks.columns, _power(out))),
        "STEPS": max(16, min(blocks.steps, _power(steps))),
        "BACKWARDS": backwards,
        "PRECISION": single,
        # Half-precision operands are exact in TF32, which rounds the state to 11 bits and keeps its range.
        "STATE_PRECISION": single if size == 4 or capability < 80 else "tf32",
    }


def _power(number: int) -> int:
    """The smallest power of two that is not less than `number`, at least 1."""
    return 1 << max(number - 1, 0).bit_length()
