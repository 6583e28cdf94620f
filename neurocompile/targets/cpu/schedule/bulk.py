"""C of the bulk form: firings that may be put off are collected, and up to `SLOTS` of them run together.

What a collected firing reads is copied into its slot when it is due. Then the stage runs statement by statement for all
slots: nests one slot after the other, products for all of them at once, so that weights are read once for `SLOTS`
firings. The sums are those of single steps up to the order of additions.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from neurocompile.lowering.clusters import Cluster, find_clusters, writer_of
from neurocompile.lowering.loops import Buffer, LoopProgram, MatVec, Nest, StageLoops, accesses
from neurocompile.targets.cpu.code.nests import nest_code
from neurocompile.targets.cpu.code.products import Shape, product_code
from neurocompile.targets.cpu.placement.formats import Format
from neurocompile.targets.cpu.placement.layout import Weights, identifier
from neurocompile.targets.cpu.placement.memory import TYPES, Memory, field_name
from neurocompile.targets.cpu.schedule.batches import SLOTS, batch_kernel, batch_product, batch_widths
from runtime.program import ITEMS, ProgramSpec, StageSpec

LARGEST_STACK = 256 << 10


@dataclass(frozen=True)
class SlotMemory(Memory):
    """Memory of a stage that runs for several slots; `slot` is a C expression."""

    places: Mapping[Buffer, str] = field(default_factory=dict)
    slot: str = "m"

    def base(self, buffer: Buffer) -> str:
        """See `Memory.base`."""
        if buffer in self.places:
            return slotted(self.places[buffer], buffer, self.slot)
        return super().base(buffer)


def slotted(place: str, buffer: Buffer, slot: str) -> str:
    """A pointer to a slot's share of an array that holds the buffer once per slot."""
    return f"({place} + {slot} * {buffer.size})" if slot != "0" else place


def bulk_clusters(spec: ProgramSpec, program: LoopProgram, form: Format) -> tuple[Cluster, ...]:
    """The clusters that have a bulk form: those from the items down whose memory a thread's stack may hold."""
    found: list[Cluster] = []
    for cluster in find_clusters(spec, program):
        stages = [program.stages[stage.name] for stage in (*cluster.members, *cluster.tails)]
        size = max(sum(4 * SLOTS * b.size for b in (*stage.locals, *_kept(stage))) for stage in stages)
        kinds = {type(statement) for stage in stages for statement in stage.statements}
        if size > LARGEST_STACK or not {MatVec} <= kinds <= {Nest, MatVec}:
            break
        found.append(cluster)
    return tuple(found)


def bulk_items(spec: ProgramSpec, clusters: tuple[Cluster, ...]) -> int:
    """Items from which on the bulk form pays: `SLOTS` periods of the first cluster; 0 without one."""
    if not clusters:
        return 0
    rate = {ITEMS: 1}
    for stage in spec.stages:
        rate[stage.name] = rate.get(stage.trigger.after, 0) * stage.trigger.every
    return SLOTS * rate[clusters[0].source] * clusters[0].every


def stage_parts(
    program: LoopProgram, clusters: tuple[Cluster, ...], weights: Weights, shape: Shape, form: Format
) -> list[str]:
    """The struct of slots, the kernels, and one function per stage of a cluster."""
    lines = ["/* The bulk form: what firings that are put off read and make. */", "typedef struct {"]
    for k, cluster in enumerate(clusters):
        lines.append(f"    int open_{k}, slots_{k};")
        for stage in cluster.members:
            lines += [_array(b, _captured(stage, b)) for b in cluster.captures[stage.name]]
        lines += [_array(b, f"o_{identifier(b.name)}") for b in cluster.results]
        lines += [_array(b, f"y_{identifier(b.name)}") for b in cluster.versions]
    lines += ["} nc_bulk;", ""]
    stages = [program.stages[s.name] for cluster in clusters for s in (*cluster.members, *cluster.tails)]
    products = [s for stage in stages for s in stage.statements if isinstance(s, MatVec)]
    for width, columns in batch_widths(products, shape, form):
        lines += [*batch_kernel(width, columns, shape, form), ""]
    for cluster in clusters:
        results = {b: f"b->o_{identifier(b.name)}" for b in cluster.results}
        for stage in cluster.members:
            captures = {b: f"b->{_captured(stage, b)}" for b in cluster.captures[stage.name]}
            lines += _batch(program.stages[stage.name], {**results, **captures}, (), weights, shape, form)
        for stage in cluster.tails:
            lines += _batch(program.stages[stage.name], results, cluster.versions, weights, shape, form)
    return lines


def _batch(
    stage: StageLoops,
    places: dict[Buffer, str],
    versions: tuple[Buffer, ...],
    weights: Weights,
    shape: Shape,
    form: Format,
) -> list[str]:
    """A function that runs a stage for `count` slots from `begin` on."""
    name = identifier(stage.name)
    lines = [f"static void nc_batch_{name}(nc_stream *s, const unsigned char *w, nc_bulk *b, int begin, int count) {{"]
    lines += ["    (void)s;", "    (void)w;", "    (void)b;"]
    arrays = {local: identifier(local.name) for local in stage.locals}
    kept = {state: f"b->y_{identifier(state.name)}" for state in versions}
    for state in _kept(stage):
        if state not in kept:
            kept[state] = f"kept_{identifier(state.name)}"
            lines.append("    " + _array(state, kept[state]).strip())
    for local, array in arrays.items():
        lines.append("    " + _array(local, array).strip())
    known = {**places, **arrays}
    writers = {state: writer_of(stage, state) for state in kept}
    for number, statement in enumerate(stage.statements):
        after = {state: place for state, place in kept.items() if number > (writers[state] or 0)}
        memory = SlotMemory(weights, {**known, **after})
        saved = [
            f"memcpy({slotted(place, state, 'm')}, s->{field_name(state)}, sizeof s->{field_name(state)});"
            for state, place in kept.items()
            if writers[state] == number
        ]
        if isinstance(statement, MatVec):
            body = product_code(statement, memory, shape, form)
            many = [SlotMemory(weights, {**known, **after}, str(slot)) for slot in range(SLOTS)]
            code = [f"if (count == {SLOTS}) {{", *(f"    {x}" for x in batch_product(statement, many, shape, form))]
            code += ["} else for (int m = begin; m < begin + count; m++) {", *(f"    {x}" for x in body), "}"]
            if saved:
                code += ["for (int m = begin; m < begin + count; m++) {", *(f"    {x}" for x in saved), "}"]
        else:
            assert isinstance(statement, Nest)
            body = [*nest_code(statement, memory), *saved]
            code = ["for (int m = begin; m < begin + count; m++) {", *(f"    {x}" for x in body), "}"]
        lines += [f"    {line}" for line in code]
    return [*lines, "}", ""]


def _kept(stage: StageLoops) -> list[Buffer]:
    """States that statements after the one that writes them read."""
    found = []
    for state in dict.fromkeys(a.buffer for s in stage.statements for a, _, w in accesses(s) if w):
        if state.kind != "state" or (writer := writer_of(stage, state)) is None:
            continue
        later = stage.statements[writer + 1 :]
        if any(a.buffer == state for s in later for a, _, _ in accesses(s)):
            found.append(state)
    return found


def _array(buffer: Buffer, name: str) -> str:
    return f"    _Alignas(64) {TYPES[buffer.dtype]} {name}[{SLOTS * buffer.size}];"


def _captured(stage: StageSpec, buffer: Buffer) -> str:
    return f"c_{identifier(stage.name)}_{identifier(buffer.name)}"


def capture(stage: StageSpec, cluster: Cluster, memory: Memory, slot: str) -> list[str]:
    """Copies what a member reads into a slot; `memory` knows where that lies now."""
    lines = []
    for buffer in cluster.captures[stage.name]:
        target = slotted(f"b->{_captured(stage, buffer)}", buffer, slot)
        lines.append(f"memcpy({target}, {memory.base(buffer)}, {buffer.size} * sizeof({TYPES[buffer.dtype]}));")
    return lines
