"""What table rows cost by themselves: beside the floor, which reads them as fast as a sequential read."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from benchmarks.step_latency.floor import Work
from neurocompile.targets.cpu.toolchains.compiler import find_compiler

SOURCE = Path(__file__).with_suffix(".c")


def gather_ns(works: Mapping[str, Work], ordinary: str, tokens: np.ndarray, vocabulary: int, folder: Path) -> float:
    """Nanoseconds per row of the recording's rows in their order, one event ahead, without arithmetic.

    Not a floor of the definition: it is what this core's memory gives for rows at these places while the other stages
    keep their weights in the caches.

    Args:
        works: The work of every stage.
        ordinary: The stage whose rows are read.
        tokens: Of the recording.
        vocabulary: Rows of the table.
        folder: Where the compiled measurement goes.

    Returns:
        The time, or 0 where the stage reads no rows or no other stage fires regularly.
    """
    others = [work for name, work in works.items() if name != ordinary and work.every > 1]
    if not works[ordinary].rows or not others:
        return 0.0
    period = min(work.every for work in others)
    often = sum(work.fixed for work in others if work.every < 2 * period)
    rare = [work for work in others if work.every >= 2 * period]
    every = round(min(work.every for work in rare) / period) if rare else 1
    program, file = folder / "gather", folder / "tokens"
    find_compiler().run("-O3", "-std=c17", "-march=native", str(SOURCE), "-o", str(program))
    file.write_bytes(np.ascontiguousarray(tokens, np.int64).tobytes())
    numbers = (works[ordinary].rows, vocabulary, max(round(period) - 2, 1), often, every, sum(w.fixed for w in rare))
    done = subprocess.run([program, file, *map(str, numbers)], capture_output=True, text=True, check=True)
    return float(done.stdout)
