"""Which stages may be spread over the following items, so that no single item takes long.

A stage that fires rarely is then a job: when it is due, what it reads is copied; its work is done piece by piece during
the following items; its followers fire when it is complete. Nothing is computed differently, only later: an answer may
lack what the last `delay` items would have brought, and is exact for the items before them.

    due ---- captured ---- piece ---- piece ---- ... ---- piece: complete, followers fire
             item n        n + 1      n + 2               n + spread
"""

from __future__ import annotations

from dataclasses import dataclass

from neurocompile.lowering.clusters import reads_of, writes_of
from neurocompile.lowering.loops import Buffer, LoopProgram, MatVec, accesses
from runtime.errors import UserError
from runtime.program import ITEMS, REQUEST, ProgramSpec, StageSpec


@dataclass(frozen=True, eq=False)
class Job:
    """A stage that is spread.

    Attributes:
        stage: The stage.
        spread: Items that it may take: it is complete before anything reads its results.
        captures: Buffers that it reads and others write.
        sources: Jobs whose results are among them, and that do not trigger it; by name.
    """

    stage: StageSpec
    spread: int
    captures: tuple[Buffer, ...]
    sources: tuple[str, ...]


def rates(spec: ProgramSpec) -> dict[str, int]:
    """Items per firing of each source; stages on request have none."""
    found = {ITEMS: 1}
    for stage in spec.stages:
        if stage.trigger.after in found:
            found[stage.name] = found[stage.trigger.after] * stage.trigger.every
    return found


def find_jobs(spec: ProgramSpec, program: LoopProgram) -> tuple[Job, ...]:
    """The stages that have products and do not fire at every item, in table order.

    Args:
        spec: The tables.
        program: The loops.

    Returns:
        The jobs.

    Raises:
        UserError: If there is none, or something would see a job's results before they are complete.
    """
    rate = rates(spec)
    spread = [s for s in spec.stages if rate.get(s.name, 1) > 1 and _has_product(program, s)]
    if not spread:
        raise UserError("--smooth spreads stages that fire rarely, and this model has none; leave it out")
    names = {stage.name for stage in spread}
    made = {stage.name: writes_of(program.stages[stage.name]) for stage in spread}
    jobs = []
    for stage in spread:
        loops = program.stages[stage.name]
        own = {buffer for buffer in made[stage.name] if buffer.kind == "state"}
        if any(access.row for statement in loops.statements for access, _, _ in accesses(statement)):
            raise _refusal(stage.name, "gathers a table row")
        if own & {buffer for buffer in own if buffer.name in stage.resets}:
            raise _refusal(stage.name, "resets what it writes")
        length = rate[stage.name]
        for reader in spec.stages:
            seen = reads_of(program.stages[reader.name]) & made[stage.name]
            if reader is stage or not seen or _follows(spec, reader, stage.name):
                continue
            phases = reader.trigger.phase - stage.trigger.phase
            if reader.name not in names or reader.trigger.after != stage.trigger.after or phases < 1:
                raise _refusal(stage.name, f"makes {sorted(b.name for b in seen)[0]}, which {reader.name} reads")
            length = min(length, phases * rate[reader.trigger.after])
        outside = reads_of(loops) - own
        sources = [s for s in names - {stage.name} if outside & made[s] and not _follows(spec, stage, s)]
        jobs.append(Job(stage, length, tuple(sorted(outside, key=lambda b: b.name)), tuple(sorted(sources))))
    return tuple(jobs)


def delay(spec: ProgramSpec, jobs: tuple[Job, ...]) -> int:
    """Items by which an answer may lag behind: the longest chain of jobs that trigger each other."""
    spreads = {job.stage.name: job.spread for job in jobs}
    late = {ITEMS: 0}
    for stage in spec.stages:
        if stage.trigger.after in late:
            late[stage.name] = late[stage.trigger.after] + spreads.get(stage.name, 0)
    return max(late.values())


def _has_product(program: LoopProgram, stage: StageSpec) -> bool:
    return any(isinstance(statement, MatVec) for statement in program.stages[stage.name].statements)


def _follows(spec: ProgramSpec, stage: StageSpec, source: str) -> bool:
    """Whether `source` directly or indirectly triggers the stage: it then sees complete results."""
    triggers = {s.name: s.trigger.after for s in spec.stages}
    name = stage.trigger.after
    while name not in (ITEMS, REQUEST):
        if name == source:
            return True
        name = triggers[name]
    return False


def _refusal(stage: str, why: str) -> UserError:
    return UserError(f"--smooth cannot spread stage {stage!r}, which {why}; leave it out")
