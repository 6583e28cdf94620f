"""C that asks for the table rows of a token before they are needed.

With the gap after an event, a token waits for the next event, and the row is fetched while the one before is worked on:
a few cache lines in every iteration of the nest that reads rows, so that neither waits for the other. Otherwise a bulk
push asks for the next token's row all at once.
"""

from __future__ import annotations

from collections.abc import Sequence

from neurocompile.lowering.loops import LoopProgram, Nest, StageLoops, accesses
from neurocompile.targets.cpu.code.nests import takes_ahead
from neurocompile.targets.cpu.placement.layout import ITEM_BYTES, LINE
from neurocompile.targets.cpu.placement.memory import ITEMS, Memory
from runtime.program import ITEMS as FRONT_END
from runtime.program import ProgramSpec

NEXT = "s->position.pending"


def row_bytes(stages: Sequence[StageLoops], memory: Memory) -> dict[str, int]:
    """Table -> bytes of a row, of the tables whose rows tokens choose."""
    return {
        a.buffer.name: memory.row_elements(a) * ITEM_BYTES.get(memory.storage(a.buffer), 8)
        for stage in stages
        for statement in stage.statements
        for a, _, _ in accesses(statement)
        if a.row and ITEMS[a.row] == ITEMS["token"]
    }


def reader(spec: ProgramSpec, program: LoopProgram, memory: Memory, lanes: int) -> Nest | None:
    """The nest along which the next token's rows are fetched, if there is one and the next token is known by then.

    Args:
        spec: The tables.
        program: The loops.
        memory: Where its operands lie.
        lanes: Floats in a vector.

    Returns:
        A nest of a stage that every item fires, which reads rows of all tables.
    """
    wanted = set(row_bytes(list(program.stages.values()), memory))
    if spec.front_end.get("dt") != "next" or not wanted:
        return None
    for stage in spec.stages:
        if (stage.trigger.after, stage.trigger.every) != (FRONT_END, 1):
            continue
        for statement in program.stages[stage.name].statements:
            read = {access.buffer.name for access, _, _ in accesses(statement) if access.row}
            if isinstance(statement, Nest) and wanted <= read and takes_ahead(statement, memory, lanes):
                return statement
    return None


def ahead(nest: Nest, tables: dict[str, int], memory: Memory, lanes: int) -> list[str]:
    """What every iteration `i` of the nest asks for: its share of the next token's rows."""
    lines = []
    for name, stride in tables.items():
        count = -(-stride // LINE)
        share = -(-count // (nest.shape[0] // lanes)) * LINE
        place = f"w + {memory.weights.offsets[name]} + {NEXT} * {stride}"
        lines.append(f"for (ptrdiff_t byte = i / {lanes} * {share}, end = byte + {share}; byte < end; byte += {LINE})")
        lines.append(f"    __builtin_prefetch({place} + (byte < {stride} ? byte : {(count - 1) * LINE}));")
    return lines


def prefetch(tables: dict[str, int], memory: Memory, spread: bool) -> list[str]:
    """`nc_prefetch`, which asks for all rows of a token at once; `NC_SPREAD`: whether a nest does so along the way."""
    lines = [f"#define NC_SPREAD {int(spread)}"]
    lines += ["NC_INLINE void nc_prefetch(const unsigned char *w, int64_t token) {", "    (void)w;", "    (void)token;"]
    for name, stride in tables.items():
        lines.append(f"    for (int byte = 0; byte < {stride}; byte += {LINE})")
        lines.append(f"        __builtin_prefetch(w + {memory.weights.offsets[name]} + token * {stride} + byte);")
    return [*lines, "}", ""]
