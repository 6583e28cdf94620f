"""Many streams at once, and one stream for a long time: what a session costs, and whether an event's cost stays."""

from __future__ import annotations

import ctypes
from itertools import pairwise
from typing import Any

import numpy as np

from benchmarks.step_latency.compiled import Compiled
from benchmarks.step_latency.loop import Recording
from neurocompile.sequences import fit_to_sensor, shipped_sequence
from runtime.backends.native import NativeSession
from runtime.events.container import Events

COUNTS = (1, 16, 256)
FIRST = 4096
"""Events of the first stretch of a long stream."""
NAMES = ["arena", "ordblks", "smblks", "hblks", "hblkhd", "usmblks", "fsmblks", "uordblks", "fordblks", "keepcost"]
"""Fields of glibc's `struct mallinfo2`."""
MEMORY = 2048
"""Sessions opened to see what one costs."""


def interleaved(ours: Compiled, rounds: int) -> list[dict[str, Any]]:
    """Time per event with 1, 16 and 256 sessions taking turns, each on its own stretch of the recording.

    Sessions begin at different places of the program's period, so that they do not fire the same stage one after the
    other with its weights still in the cache.

    Args:
        ours: The contestant.
        rounds: Passes; the fastest counts.
    """
    period = ours.subject.spec.period
    rows = []
    for count in COUNTS:
        sessions = [NativeSession(ours.subject.spec, ours.model) for _ in range(count)]
        # Whole periods, so that every number of sessions has the same share of events that fire much.
        each = max(ours.recording.count // count // period, 1) * period
        events = _longer(ours, each * count)
        recording, best = Recording(events), np.inf
        for _ in range(rounds + 1):
            for number, session in enumerate(sessions):
                _stagger(session, events, number * each, number * period // count)
            best = min(best, ours.loop.single(sessions, recording, reset=False).processor / (each * count) * 1e9)
        rows.append({"sessions": count, "events_each": each, "processor_ns": best, "events_per_second": 1e9 / best})
    return rows


def _stagger(session: NativeSession, events: Events, begin: int, times: int) -> None:
    """Resets a session and pushes the event it begins with some more times."""
    session.reset()
    if times:
        session.push(Events(*(getattr(events, name)[begin : begin + 1].repeat(times) for name in "txyp")))


def memory(ours: Compiled, count: int = MEMORY) -> dict[str, float | None]:
    """Bytes of a further session: what the library says, and what the allocator handed out on average.

    The latter is `None` where the C library does not tell.
    """
    library, handles = ours.model.library, [ctypes.c_void_p() for _ in range(count)]
    before = _allocated()
    for handle in handles:
        ours.model.check(library.nc_session_open(ours.model.handle, 1.0, ctypes.byref(handle)), "session")
    after = _allocated()
    for handle in handles:
        library.nc_session_close(handle)
    grown = None if before is None or after is None else (after - before) / count
    return {"session_bytes": float(ours.model.info.session_bytes), "allocated_bytes": grown, "sessions": count}


def by_length(ours: Compiled, events: int, rounds: int) -> list[dict[str, float]]:
    """Processor time per event in each doubling of a long stream.

    Args:
        ours: The contestant.
        events: Length of the stream.
        rounds: Passes; of every stretch the fastest counts.
    """
    whole = _longer(ours, events)
    edges = [0, *(FIRST << k for k in range(64) if FIRST << k < events), events]
    stretches = [Recording(whole[begin:end]) for begin, end in pairwise(edges)]
    best = [np.inf] * len(stretches)
    for _ in range(rounds):
        ours.session.reset()
        for number, stretch in enumerate(stretches):
            spent = ours.loop.single([ours.session], stretch, reset=False).processor
            best[number] = min(best[number], spent / stretch.count * 1e9)
    return [
        {"from_event": begin, "to_event": end, "processor_ns": ns}
        for (begin, end), ns in zip(pairwise(edges), best, strict=True)
    ]


def _longer(ours: Compiled, events: int) -> Events:
    if events <= len(ours.subject.events):
        return ours.subject.events[:events]
    return fit_to_sensor(shipped_sequence(events), ours.subject.checkpoint.front_end).events


class _Mallinfo(ctypes.Structure):
    _fields_ = tuple((name, ctypes.c_size_t) for name in NAMES)


def _allocated() -> int | None:
    """Bytes that the C library's allocator has handed out, or `None` where it does not tell."""
    tell = getattr(ctypes.CDLL(None), "mallinfo2", None)
    if tell is None:
        return None
    tell.restype = _Mallinfo
    info = tell()
    return info.uordblks + info.hblkhd
