"""Where the time goes: the generated library once more, with a clock around every stage."""

from __future__ import annotations

import ctypes
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.step_latency.loop import Loop, Recording
from neurocompile.targets.cpu.placement.layout import identifier
from runtime.backends.native import NativeSession
from runtime.errors import InternalError
from runtime.program import ProgramSpec

CALL = re.compile(r"^(?P<indent> +)(?P<call>nc_stage_(?P<name>\w+)\([^;{]*\);)", re.MULTILINE)

CLOCK = """
#include <time.h>
struct nl_stage { int64_t firings, room, *ticks; };
__attribute__((visibility("default"))) struct nl_stage nl_stages[%d];
static inline void nl_note(struct nl_stage *stage, int64_t ticks) {
    if (stage->firings < stage->room) stage->ticks[stage->firings] = ticks;
    stage->firings++;
}
static inline int64_t nl_tick(void) {
#if defined(__x86_64__)
    __builtin_ia32_lfence();
    int64_t now = (int64_t)__builtin_ia32_rdtsc();
    __builtin_ia32_lfence();
    return now;
#else
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
#endif
}
"""


class _Stage(ctypes.Structure):
    _fields_ = (("firings", ctypes.c_int64), ("room", ctypes.c_int64), ("ticks", ctypes.c_void_p))


@dataclass(frozen=True)
class StageTime:
    """What one firing of a stage took.

    Attributes:
        firings: Firings timed.
        ns: Mean nanoseconds, less the cost of the clock.
        ticks: The same in ticks of the clock: reference cycles on x86-64, nanoseconds elsewhere.
    """

    firings: int
    ns: float
    ticks: float


def instrumented(spec: ProgramSpec, source: str) -> str:
    """The library's C source with a clock around every stage that it fires.

    Raises:
        InternalError: If the source does not fire a stage of the program.
    """
    numbers = {identifier(stage.name): number for number, stage in enumerate(spec.stages)}
    found = {match["name"] for match in CALL.finditer(source)}
    if missing := sorted(set(numbers) - found):
        raise InternalError(f"the generated source does not call the stages {missing}; they cannot be timed")

    def timed(match: re.Match[str]) -> str:
        note = f"nl_note(&nl_stages[{numbers[match['name']]}], nl_tick() - nl_before);"
        return f"{match['indent']}{{ int64_t nl_before = nl_tick(); {match['call']} {note} }}"

    # The definitions come after the headers, and a feature macro may have to come before them.
    anchor = source.index("static const unsigned char nc_program_id")
    return source[:anchor] + CLOCK % len(numbers) + CALL.sub(timed, source[anchor:])


def stage_times(
    loop: Loop, spec: ProgramSpec, session: NativeSession, library: Path, recording: Recording, rounds: int
) -> dict[str, StageTime]:
    """Times every stage of an instrumented library.

    Args:
        loop: The timing loop.
        spec: The tables.
        session: A session of the instrumented library.
        library: Its path.
        recording: The events.
        rounds: Passes; of every single firing the fastest counts.

    Returns:
        Stage name -> time, of the stages that fired.
    """
    found = ctypes.CDLL(str(library.resolve()))
    counters = (_Stage * len(spec.stages)).in_dll(found, "nl_stages")
    ticks = [np.full(recording.count, np.iinfo(np.int64).max) for _ in spec.stages]
    for _ in range(rounds + 1):
        now = [np.zeros(recording.count, np.int64) for _ in spec.stages]
        for counter, column in zip(counters, now, strict=True):
            counter.firings, counter.room, counter.ticks = 0, recording.count, column.ctypes.data
        loop.single([session], recording)
        ticks = [np.minimum(column, fresh) for column, fresh in zip(ticks, now, strict=True)]
    result = {}
    for stage, counter, column in zip(spec.stages, counters, ticks, strict=True):
        if counter.firings:
            mean = max(float(column[: counter.firings].mean()) - loop.clock_ticks, 0.0)
            result[stage.name] = StageTime(int(counter.firings), mean / loop.ticks_per_second * 1e9, mean)
        counter.room = 0
    return result
