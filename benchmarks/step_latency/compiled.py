"""Our contestants: the compiled library in each precision, timed in C through its interface."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.step_latency.figures import row
from benchmarks.step_latency.floor import Core, Work, work
from benchmarks.step_latency.gather import gather_ns
from benchmarks.step_latency.loop import Loop, Recording, Spent
from benchmarks.step_latency.python_loop import rate_of
from benchmarks.step_latency.stages import instrumented, stage_times
from benchmarks.step_latency.subject import Subject
from neurocompile.lowering import lower
from neurocompile.targets import TargetSpec, cpu
from neurocompile.targets.cpu.toolchains.devices import format_of, toolchain
from runtime.backends.native import NativeModel, NativeSession
from runtime.front_ends import front_end
from runtime.schedule import firings

LIBRARY = f"libmodel.{cpu.SUFFIX}"


@dataclass(eq=False)
class Compiled:
    """The library of one precision on the subject.

    Attributes:
        subject: The network and the recording.
        dtype: `fp32`, `bf16` or `int8`.
        folder: Where the library lies; it does not exist yet.
        loop: The timing loop.
        recording: The events.
        smooth: Whether rare stages are spread over the events that follow.
        session: An open session that has passed the gate.
        error: Its deviation from the reference.
    """

    subject: Subject
    dtype: str
    folder: Path
    loop: Loop
    recording: Recording
    smooth: bool = False
    single: list[Spent] = field(default_factory=list)
    bulk: list[Spent] = field(default_factory=list)
    samples: np.ndarray | None = None
    blocks: np.ndarray | None = None

    def __post_init__(self) -> None:
        spec = self.subject.spec
        artefact = cpu.build(self.subject.graphs, TargetSpec("cpu", self.dtype, smooth=self.smooth))
        files, self._delay = artefact.files, artefact.report.get("delay_items", 0)
        self.folder.mkdir(parents=True)
        (self.folder / LIBRARY).write_bytes(files[LIBRARY])
        self._weights, self._source = files["model.weights"], files["c/model.c"].decode()
        self.model = NativeModel(spec, self.folder / LIBRARY, self._weights)
        self.session = NativeSession(spec, self.model)
        self.error = self.subject.gate(self.session, self.dtype)
        self.kinds, self.starts = kinds_of(self.subject)

    @property
    def name(self) -> str:
        """Of the target."""
        return f"cpu-{self.dtype}{' --smooth' if self.smooth else ''}"

    def works(self) -> dict[str, Work]:
        """What each stage cannot do without."""
        loops = lower(self.subject.graphs)
        distinct = len(np.unique(self.tokens()))
        tools = toolchain("native")
        form = format_of(self.dtype, tools.compiler.macros(tools.flags))
        return work(self.subject.spec, loops, form, distinct)

    def tokens(self) -> np.ndarray:
        """Of the recording's items."""
        return front_end(self.subject.spec.front_end).open(1.0).push(self.subject.events)["token"]

    def round(self) -> None:
        """One pass without clock reads, one in bulk, one with a clock around every event, one around every block."""
        self.single.append(self.loop.single([self.session], self.recording))
        self.bulk.append(self.loop.bulk(self.session, self.recording))
        every = np.arange(self.recording.count + 1)
        samples = self.loop.blocks(self.session, self.recording, every)
        if self.samples is None or samples.sum() < self.samples.sum():
            self.samples = samples
        if self.smooth:  # what an event fires is not what it does
            return
        blocks = self.loop.blocks(self.session, self.recording, self.starts)
        self.blocks = blocks if self.blocks is None else np.minimum(blocks, self.blocks)

    def kinds_ns(self) -> dict[str, dict[str, float]]:
        """Per kind of event (the stages that it fires): how many, and the mean nanoseconds of one."""
        assert self.blocks is not None
        spent, sizes = self.loop.ns(self.blocks), np.diff(self.starts)
        result: dict[str, dict[str, float]] = {}
        for kind in dict.fromkeys(self.kinds):
            chosen = np.array([other == kind for other in self.kinds])
            result[kind] = {"events": int(sizes[chosen].sum()), "ns": float(spent[chosen].sum() / sizes[chosen].sum())}
        return result

    def report(self, core: Core, rounds: int) -> dict[str, Any]:
        """The row of the table, and where the time goes."""
        assert self.samples is not None
        count = self.recording.count
        processor = min(spent.processor for spent in self.single) / count * 1e9
        wall = min(spent.wall for spent in self.single) / count * 1e9
        more = {
            "language": "C",
            "error": self.error,
            "delay_items": self._delay,
            "bulk_events_per_second": count / min(spent.processor for spent in self.bulk),
            "python_events_per_second": rate_of(self.session, self.subject.events[:4096]),
            "session_bytes": int(self.model.info.session_bytes),
            "weights_bytes": int(self.model.info.weights_bytes),
        }
        if not self.smooth:
            more |= self._anatomy(core, rounds, processor)
        return row(self.name, self.loop.ns(self.samples), processor, wall, **more)

    def _anatomy(self, core: Core, rounds: int, processor: float) -> dict[str, Any]:
        """Floors, kinds of events and stages."""
        works = self.works()
        kinds, times = self.kinds_ns(), self._stage_times(rounds)
        ordinary = max(kinds, key=lambda kind: kinds[kind]["events"])
        for kind, figures in kinds.items():
            fired = [works[name] for name in kind.split(" + ") if name in works]
            figures["floor_ns"] = sum(core.floor_ns(stage) for stage in fired)
            figures["floor_warm_ns"] = sum(core.floor_ns(stage, warm=True) for stage in fired)
        stages = {
            name: {
                **vars(stage),
                **vars(times[name]),
                "floor_ns": core.floor_ns(stage),
                "per_event_ns": times[name].ns / stage.every,
            }
            for name, stage in works.items()
            if name in times
        }
        return {
            "floor_ns": core.mean_ns(works),
            "over_floor": processor / core.mean_ns(works),
            "ordinary": ordinary,
            "ordinary_ns": kinds[ordinary]["ns"],
            "gather_ns": self._gather(works, ordinary),
            "ordinary_over_floor": kinds[ordinary]["ns"] / kinds[ordinary]["floor_ns"],
            "kinds": kinds,
            "stages": stages,
        }

    def _gather(self, works: dict[str, Work], ordinary: str) -> float:
        if ordinary not in works:
            return 0.0
        vocabulary = int(self.subject.spec.front_end["vocabulary"])
        return gather_ns(works, ordinary, self.tokens(), vocabulary, self.folder)

    def _stage_times(self, rounds: int) -> dict[str, Any]:
        spec, folder = self.subject.spec, self.folder / "stages"
        folder.mkdir()
        source = instrumented(spec, self._source)
        library = folder / LIBRARY
        tools = toolchain("native")
        library.write_bytes(cpu.compile_library(source, tools.compiler, tools.flags))
        session = NativeSession(spec, NativeModel(spec, library, self._weights))
        self.subject.gate(session, self.dtype)
        return stage_times(self.loop, spec, session, library, self.recording, rounds)


def kinds_of(subject: Subject) -> tuple[list[str], np.ndarray]:
    """Cuts the recording into blocks of neighbouring events that fire the same stages.

    Returns:
        Per block, the stages' names joined by ` + ` (empty where no item becomes complete); (M + 1,) the blocks' first
        events and the end.
    """
    table, names = firings(subject.spec), [stage.name for stage in subject.spec.stages]
    late = int(subject.spec.front_end["dt"] == "next")
    kinds: list[str] = [""] * late
    texts = {fired: " + ".join(names[stage] for stage in fired) for fired in set(table)}
    kinds += [texts[table[item % len(table)]] for item in range(len(subject.events) - late)]
    starts = [0, *(k for k in range(1, len(kinds)) if kinds[k] != kinds[k - 1])]
    return [kinds[k] for k in starts], np.array([*starts, len(kinds)])
