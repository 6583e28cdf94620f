"""Which firings may be put off and done together, without changing any result.

Event models run most of their products every n events. The stages that wait for the same n firings of a source form a
cluster: `first` at the beginning of a period, `group` at its end. When everything that a cluster reads from outside is
copied at the moment it is due, the cluster itself may run later: several periods at once, so that weights are read once
for all of them (`push_many`), or piece by piece during the next period (`--smooth`).

    item --every 16--> {first, group} --every 1--> tail --every 16--> {first, group} --> ...
                         cluster 0                              cluster 1

Running a stage for m = 0, 1, 2, .. one statement at a time equals running it firing by firing if each of its states is
written by one statement, and none before that one reads it. A cluster that gathers table rows has to run at once.
"""

from __future__ import annotations

from dataclasses import dataclass

from neurocompile.lowering.loops import Buffer, LoopProgram, MatVec, StageLoops, accesses
from runtime.program import REQUEST, ProgramSpec, StageSpec


@dataclass(frozen=True, eq=False)
class Cluster:
    """Stages that wait for the same number of firings of one source.

    Attributes:
        source: What they wait for: the items or a stage.
        every: Firings of the source in a period.
        members: The stages by phase. The last one closes the period; only it has followers.
        captures: Stage name -> buffers that it reads and others write; copied when the stage is due.
        results: What members write and do not read themselves: outputs, and states that hand on to a later member.
        tails: Followers of the last member that run together with the cluster, statement by statement.
        versions: States of the tails that later stages read: kept once per firing.
    """

    source: str
    every: int
    members: tuple[StageSpec, ...]
    captures: dict[str, tuple[Buffer, ...]]
    results: tuple[Buffer, ...]
    tails: tuple[StageSpec, ...]
    versions: tuple[Buffer, ...]

    @property
    def last(self) -> StageSpec:
        """The member that closes the period."""
        return self.members[-1]


def find_clusters(spec: ProgramSpec, program: LoopProgram) -> tuple[Cluster, ...]:
    """The clusters from the items down, as far as putting them off changes nothing.

    Args:
        spec: The tables.
        program: The loops.

    Returns:
        One cluster per level; empty where already the first one has to run at once.
    """
    found: list[Cluster] = []
    source = next((s.trigger.after for s in spec.stages if s.trigger.every > 1), REQUEST)
    while cluster := _cluster(spec, program, source):
        found.append(cluster)
        source = cluster.tails[0].name if cluster.tails else cluster.last.name
    return tuple(found)


def reads_of(stage: StageLoops) -> set[Buffer]:
    """Items, values and states that a stage reads from outside itself."""
    made: set[Buffer] = set()
    found: set[Buffer] = set()
    for statement in stage.statements:
        found |= {a.buffer for a, _, written in accesses(statement) if not written} - made
        if isinstance(statement, MatVec):
            found.discard(statement.weight)
        made |= {a.buffer for a, _, written in accesses(statement) if written and a.buffer.kind == "value"}
    return {buffer for buffer in found if buffer.kind in ("item", "value", "state")}


def writes_of(stage: StageLoops) -> set[Buffer]:
    """Values and states that a stage writes."""
    written = {a.buffer for s in stage.statements for a, _, written in accesses(s) if written}
    return {buffer for buffer in written if buffer.kind in ("value", "state")}


def writer_of(stage: StageLoops, state: Buffer) -> int | None:
    """Number of the only statement that writes a state, if none before it reads it; else `None`."""
    writers = [k for k, s in enumerate(stage.statements) if any(w and a.buffer == state for a, _, w in accesses(s))]
    if len(writers) != 1:
        return None
    before = stage.statements[: writers[0]]
    early = any(a.buffer == state for s in before for a, _, _ in accesses(s))
    return None if early else writers[0]


def _cluster(spec: ProgramSpec, program: LoopProgram, source: str) -> Cluster | None:
    waiting = [s for s in spec.stages if s.trigger.after == source and s.trigger.every > 1]
    if not waiting or len({s.trigger.every for s in waiting}) != 1:
        return None
    members = tuple(sorted(waiting, key=lambda s: s.trigger.phase))
    phases = [s.trigger.phase for s in members]
    if phases != sorted(set(phases)) or any(_followers(spec, s.name) for s in members[:-1]):
        return None
    followers = _followers(spec, members[-1].name)
    tails = tuple(s for s in followers if s.trigger.every == 1 and _has_product(program, s))
    if len(tails) > 1 or (tails and len(followers) > 1):
        return None
    inside = {s.name for s in (*members, *tails)}
    later = _descendants(spec, members[-1].name)
    made = {b for s in members for b in writes_of(program.stages[s.name])}
    own = {s.name: writes_of(program.stages[s.name]) & reads_of(program.stages[s.name]) for s in members}
    results = made - {b for buffers in own.values() for b in buffers}
    tail_states = {b for s in tails for b in writes_of(program.stages[s.name])}
    if any(b.kind != "state" for b in tail_states):
        return None
    if not all(_steps_apart(program.stages[name]) and not _gathers(program.stages[name]) for name in inside):
        return None
    for stage in spec.stages:
        if stage.name in inside or stage.trigger.after == REQUEST:
            continue
        reads, writes = reads_of(program.stages[stage.name]), writes_of(program.stages[stage.name])
        handed_on = {b for b in results if b.kind == "value"} if stage.name in later else set()
        if (reads & made) - handed_on or writes & (made | tail_states):
            return None
        if stage.name not in later and reads & tail_states:
            return None
    captures, before = {}, set[Buffer]()
    for stage in members:
        if any(b.name in stage.resets for b in made | tail_states):
            return None
        outside = reads_of(program.stages[stage.name]) - before - own[stage.name]
        if outside & made:
            return None
        captures[stage.name] = tuple(sorted(outside, key=lambda b: b.name))
        before |= writes_of(program.stages[stage.name]) & results
    read_later = {b for name in later - inside for b in reads_of(program.stages[name])}
    in_order = [tuple(sorted(found, key=lambda b: b.name)) for found in (results, tail_states & read_later)]
    return Cluster(source, members[0].trigger.every, members, captures, in_order[0], tails, in_order[1])


def _gathers(stage: StageLoops) -> bool:
    return any(access.row for statement in stage.statements for access, _, _ in accesses(statement))


def _steps_apart(stage: StageLoops) -> bool:
    return all(writer_of(stage, state) is not None for state in writes_of(stage) if state.kind == "state")


def _has_product(program: LoopProgram, stage: StageSpec) -> bool:
    return any(isinstance(statement, MatVec) for statement in program.stages[stage.name].statements)


def _followers(spec: ProgramSpec, name: str) -> list[StageSpec]:
    return [stage for stage in spec.stages if stage.trigger.after == name]


def _descendants(spec: ProgramSpec, name: str) -> set[str]:
    found: set[str] = set()
    for stage in spec.stages:
        if stage.trigger.after == name or stage.trigger.after in found:
            found.add(stage.name)
    return found
