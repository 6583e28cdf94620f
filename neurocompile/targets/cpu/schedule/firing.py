"""C of the schedule: which stages an item fires, one by one and in the bulk form."""

from __future__ import annotations

from dataclasses import dataclass, field

from neurocompile.lowering.clusters import Cluster
from neurocompile.lowering.jobs import Job
from neurocompile.lowering.loops import Buffer
from neurocompile.targets.cpu.code.nests import literal
from neurocompile.targets.cpu.placement.layout import Weights, identifier
from neurocompile.targets.cpu.placement.memory import Memory, field_name
from neurocompile.targets.cpu.schedule.batches import SLOTS
from neurocompile.targets.cpu.schedule.bulk import SlotMemory, capture, slotted
from runtime.program import ITEMS, ProgramSpec, StageSpec
from runtime.schedule import sources


def fill(spec: ProgramSpec, name: str) -> list[str]:
    """Sets a state to its initial value."""
    state = spec.state(name)
    place = f"s->x_{identifier(name)}"
    if not state.initial:
        return [f"memset({place}, 0, sizeof {place});"]
    return [f"for (int i = 0; i < {state.size}; i++) {place}[i] = {literal(state.initial, state.dtype)};"]


@dataclass
class Schedule:
    """Writes the functions that take an item through the stages.

    Attributes:
        spec: The tables.
        weights: Their layout.
        clusters: Those with a bulk form.
        jobs: Stages that are spread over the items that follow.
    """

    spec: ProgramSpec
    weights: Weights
    clusters: tuple[Cluster, ...] = ()
    jobs: tuple[Job, ...] = ()
    number: dict[str, int] = field(init=False)

    def __post_init__(self) -> None:
        self.number = sources(self.spec)

    def single(self) -> list[str]:
        """`nc_item`: the item in `position`, through every stage that is due."""
        lines = ["/* Takes the item in `position` through every stage that is due. */"]
        lines += ["static void nc_item(nc_stream *s, const unsigned char *w) {"]
        lines += ["    nc_work(s, w);"] if self.jobs else []
        return [*lines, *(f"    {line}" for line in self._followers(ITEMS)), "}", ""]

    def spreading(self) -> list[str]:
        """`nc_work`: this item's share of every job; `nc_finish`: all that is left. Before `single`."""
        names = [identifier(job.stage.name) for job in self.jobs]
        lines = [f"static void nc_advance_{name}(nc_stream *s, const unsigned char *w, int until);" for name in names]
        for job, name in zip(self.jobs, names, strict=True):
            lines += [
                f"static void nc_advance_{name}(nc_stream *s, const unsigned char *w, int until) {{",
                f"    while (s->piece_{name} && s->piece_{name} <= until) {{",
                f"        nc_piece_{name}(s, w, s->piece_{name} - 1);",
                f"        if (s->piece_{name}++ < NC_PIECES_{name}) continue;",
                f"        s->piece_{name} = 0;",
                *(f"        {line}" for line in self._followers(job.stage.name)),
                "        return;",
                "    }",
                "}",
                "",
            ]
        # A job's followers must find those after them done, so the last ones go first.
        backwards = list(zip(reversed(self.jobs), reversed(names), strict=True))
        lines.append("static void nc_work(nc_stream *s, const unsigned char *w) {")
        for job, name in backwards:
            limit = f"nc_limits_{name}[s->items_{name} < {job.spread} ? s->items_{name} : {job.spread - 1}]"
            lines.append(f"    if (s->piece_{name}) {{")
            lines += [f"        const int until = {limit};", f"        s->items_{name}++;"]
            lines += [f"        nc_advance_{name}(s, w, until);", "    }"]
        lines += ["}", "", "static void nc_finish(nc_stream *s, const unsigned char *w) {"]
        waiting = " || ".join(f"s->piece_{name}" for name in names)
        lines.append(f"    while ({waiting}) {{")
        lines += [f"        nc_advance_{name}(s, w, NC_PIECES_{name});" for _, name in backwards]
        lines += ["    }", "}", "", "/* Drops all work that is left. */", "static void nc_drop(nc_stream *s) {"]
        return [*lines, *(f"    s->piece_{name} = 0;" for name in names), "}", ""]

    def bulk(self) -> list[str]:
        """`nc_bulk_item` and what runs the collected firings."""
        lines: list[str] = []
        for k in reversed(range(len(self.clusters))):
            lines += self._run(k)
        lines.append("static void nc_bulk_item(nc_stream *s, const unsigned char *w, nc_bulk *b) {")
        lines += [f"    {line}" for line in self._followers(ITEMS, bulk=True)]
        lines += ["}", ""]
        lines += ["static void nc_bulk_begin(nc_bulk *b) {"]
        lines += [f"    b->open_{k} = b->slots_{k} = 0;" for k in range(len(self.clusters))]
        lines += ["}", "", "/* Brings everything up to date; an unfinished period goes on item by item. */"]
        lines += ["static void nc_bulk_end(nc_stream *s, const unsigned char *w, nc_bulk *b) {"]
        for k, cluster in enumerate(self.clusters):
            lines += [f"    {line}" for line in self._finish(k, cluster)]
        return [*lines, "}", ""]

    def _count(self, source: str) -> str:
        return f"s->fired[{self.number[source]}]"

    def _followers(self, source: str, bulk: bool = False, versions: dict[Buffer, str] | None = None) -> list[str]:
        """Counts a firing of `source` and fires what waits for it."""
        count = f"n{self.number[source]}"
        lines = [f"const uint64_t {count} = {self._count(source)}++;", f"(void){count};"]
        for stage in (s for s in self.spec.stages if s.trigger.after == source):
            trigger = stage.trigger
            condition = f"if ({count} % {trigger.every} == {trigger.phase}) " if trigger.every > 1 else ""
            level = next((k for k, c in enumerate(self.clusters) if stage in c.members), None) if bulk else None
            body = self._fire(stage, bulk) if level is None else self._collect(level, stage, versions or {})
            lines += [f"{condition}{{", *(f"    {line}" for line in body), "}"]
        return lines

    def _begin(self, job: Job) -> list[str]:
        """A job is due: nothing of its last firing or of what it reads may be left to do."""
        name, memory = identifier(job.stage.name), Memory(self.weights)
        lines = [f"nc_advance_{name}(s, w, NC_PIECES_{name});"]
        for source in map(identifier, job.sources):
            lines.append(f"nc_advance_{source}(s, w, NC_PIECES_{source});")
        for buffer in job.captures:
            target = f"s->j_{name}_{identifier(buffer.name)}"
            lines.append(f"memcpy({target}, {memory.base(buffer)}, sizeof {target});")
        lines += [line for reset in job.stage.resets for line in fill(self.spec, reset)]
        return [*lines, f"s->piece_{name} = 1;", f"s->items_{name} = 0;"]

    def _fire(self, stage: StageSpec, bulk: bool) -> list[str]:
        job = next((job for job in self.jobs if job.stage is stage), None)
        if job and not bulk:
            return self._begin(job)
        lines = [f"nc_stage_{identifier(stage.name)}(s, w);"]
        lines += [line for name in stage.resets for line in fill(self.spec, name)]
        return lines + self._followers(stage.name, bulk)

    def _collect(self, k: int, stage: StageSpec, versions: dict[Buffer, str]) -> list[str]:
        """A member is due: its inputs are copied, unless the period began before the bulk form did."""
        cluster = self.clusters[k]
        memory = SlotMemory(self.weights, versions)
        lines = [f"b->open_{k} = 1;"] if stage is cluster.members[0] else []
        lines.append(f"if (b->open_{k}) {{")
        lines += [f"    {line}" for line in capture(stage, cluster, memory, f"b->slots_{k}")]
        lines += [f"    {line}" for name in stage.resets for line in fill(self.spec, name)]
        if stage is cluster.last:
            lines += [f"    b->open_{k} = 0;", f"    b->slots_{k}++;"]
            lines.append(f"    if ({self._full(k)}) nc_bulk_run_{k}(s, w, b);")
        lines += ["} else {", *(f"    {line}" for line in self._fire(stage, True)), "}"]
        return lines

    def _full(self, k: int) -> str:
        """When the slots of cluster k must run: all are taken, or the next cluster's period ends or began before."""
        full = f"b->slots_{k} == {SLOTS}"
        if k + 1 == len(self.clusters):
            return full
        after = self.clusters[k + 1]
        fired = self._count(after.source)
        ends = f"({fired} + (uint64_t)b->slots_{k}) % {after.every} == 0"
        return f"{full} || {ends} || (!b->open_{k + 1} && {fired} % {after.every})"

    def _run(self, k: int) -> list[str]:
        cluster = self.clusters[k]
        lines = [f"static void nc_bulk_run_{k}(nc_stream *s, const unsigned char *w, nc_bulk *b) {{"]
        lines += [f"    const int count = b->slots_{k};", f"    b->slots_{k} = 0;"]
        for stage in (*cluster.members, *cluster.tails):
            lines.append(f"    nc_batch_{identifier(stage.name)}(s, w, b, 0, count);")
        lines.append("    for (int m = 0; m < count; m++) {")
        for buffer in cluster.results:
            lines.append(f"        {self._publish(buffer, 'm')}")
        if cluster.tails:
            versions = {buffer: f"b->y_{identifier(buffer.name)}" for buffer in cluster.versions}
            (tail,) = cluster.tails
            body = [f"{self._count(cluster.last.name)}++;", *self._followers(tail.name, True, versions)]
        else:
            body = self._followers(cluster.last.name, True)
        return [*lines, *(f"        {line}" for line in body), "    }", "}", ""]

    def _finish(self, k: int, cluster: Cluster) -> list[str]:
        """Runs what was collected; of an unfinished period, the members that were due."""
        lines = [f"const int at_{k} = b->slots_{k};", f"if (at_{k}) nc_bulk_run_{k}(s, w, b);"]
        lines.append(f"if (b->open_{k}) {{")
        for stage in cluster.members[:-1]:
            due = f"{self._count(cluster.source)} % {cluster.every} > {stage.trigger.phase}"
            made = [buffer for buffer in cluster.results if buffer.name in self._made(stage)]
            lines.append(f"    if ({due}) {{")
            lines.append(f"        nc_batch_{identifier(stage.name)}(s, w, b, at_{k}, 1);")
            lines += [f"        {self._publish(buffer, f'at_{k}')}" for buffer in made]
            lines.append("    }")
        return [*lines, "}", f"(void)at_{k};"]

    def _made(self, stage: StageSpec) -> set[str]:
        return {value.name for value in stage.outputs} | set(stage.writes)

    def _publish(self, buffer: Buffer, slot: str) -> str:
        place = f"s->{field_name(buffer)}"
        return f"memcpy({place}, {slotted(f'b->o_{identifier(buffer.name)}', buffer, slot)}, sizeof {place});"
