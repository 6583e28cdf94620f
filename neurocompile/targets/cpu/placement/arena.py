"""Memory of a stage whose locals are too large for a thread's stack: places in one block that belongs to the session.

Buffers that are never needed at the same time share their places.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from neurocompile.lowering.loops import Attention, StageLoops, accesses
from neurocompile.targets.cpu.placement.layout import LINE

LARGEST_STACK = 64 << 10
"""Bytes of locals above which a stage works in the session's block."""


@dataclass(frozen=True)
class Arena:
    """Where a stage's locals lie.

    Attributes:
        offsets: Local's name -> byte offset.
        work: Number of a statement -> byte offset of the memory that it needs for itself.
        size: Bytes of everything.
    """

    offsets: dict[str, int]
    work: dict[int, int]
    size: int


def plan(stage: StageLoops, queries: int) -> Arena | None:
    """Finds places for a stage's locals, the largest first, each as low as what is needed at the same time allows.

    Args:
        stage: The stage.
        queries: Queries that an attention takes at once.

    Returns:
        The places, or `None` where all fits on a stack.
    """
    sizes = {buffer.name: np.dtype(buffer.dtype).itemsize * buffer.size for buffer in stage.locals}
    attentions = {k: attention_bytes(s, queries) for k, s in enumerate(stage.statements) if isinstance(s, Attention)}
    if sum(sizes.values()) <= LARGEST_STACK and not attentions:
        return None
    lives: dict[str | int, tuple[int, int]] = {k: (k, k) for k in attentions}
    for number, statement in enumerate(stage.statements):
        for access, _, _ in accesses(statement):
            if access.buffer.name in sizes:
                first, _ = lives.get(access.buffer.name, (number, number))
                lives[access.buffer.name] = (first, number)
    wanted: list[tuple[str | int, int]] = [*sizes.items(), *attentions.items()]
    placed: list[tuple[tuple[int, int], int, int]] = []
    found: dict[str | int, int] = {}
    for key, size in sorted(wanted, key=lambda pair: -pair[1]):
        life = lives.get(key, (0, len(stage.statements)))
        offset = 0
        for other, begin, end in sorted(placed, key=lambda place: place[1]):
            if other[0] <= life[1] and life[0] <= other[1] and offset + size > begin:
                offset = max(offset, end)
        end = offset + -(-size // LINE) * LINE
        found[key] = offset
        placed.append((life, offset, end))
    offsets = {key: place for key, place in found.items() if isinstance(key, str)}
    work = {key: place for key, place in found.items() if isinstance(key, int)}
    return Arena(offsets, work, max((end for _, _, end in placed), default=0))


def attention_bytes(op: Attention, queries: int) -> int:
    """What `nc_attention` needs for itself, see `csrc/attention.c`."""
    marks = op.keys // queries + 2
    return 8 * op.steps + 16 * marks + 4 * 2 * op.width * queries + 6 * LINE
