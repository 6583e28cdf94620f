"""Parity: proof on whole sequences with carried state that an artefact computes what the trained model computes.

Four comparisons, in this order of trust:

    offline   float64 reference session, event by event   against   the network's own forward on the whole stream
    step      artefact, event by event                    against   the float64 reference, readout and every state
    chunk     artefact, bulk pushes of any size (chunks run) against the same
    reset     artefact, reset and replayed                against   its own first run, bit by bit

The bound is fixed per precision, beforehand. Some networks amplify rounding so much that their own torch modules,
run in float32, leave it; no artefact can then be asked for more, so the bound is `SLACK` times that deviation where
this is larger, up to `LOOSEST`. Both figures stand in the report.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import repeat
from typing import Any

import numpy as np
import torch

from neurocompile.program import StreamProgram
from neurocompile.reference import reference_session
from neurocompile.rounding import AUTOCAST, operands, rounded
from runtime.errors import GateError, UserError
from runtime.events.container import Recording
from runtime.front_ends import Window, front_end
from runtime.program import ProgramSpec
from runtime.session import Session
from runtime.trace import Deviation, Trace, compare, push_singly, record, summary, worst

BOUNDS = {"fp32": 1e-4, "bf16": 2**-8, "fp16": 2**-11, "int8": 2**-6, "fp8": 2**-4}
"""Largest relative deviation from the float64 reference, per precision."""

SLACK = 2.0
"""How much further an artefact may deviate than the network itself, in float32 with weights of that precision."""

LOOSEST = 1e-2
"""A bound beyond this would prove nothing in float32; lower precisions have `ROOM` times as much."""

ROOM = {"fp32": 1, "bf16": 5, "fp16": 2, "int8": 10, "fp8": 20}

OFFLINE_BOUND = 1e-9
SHIPPED_EVENTS = 4000
"""Events in the golden trace that a bundle carries."""

WINDOWS = 20
"""Firings that are compared at least where the front end makes windows."""

SHIPPED_WINDOWS = 5

SHIPPED_BYTES = 32 << 20
"""Of states in the golden trace; larger ones are there at fewer marks, at least at one."""


@dataclass(frozen=True)
class Parity:
    """The outcome.

    Attributes:
        report: What the manifest keeps; `status` is `proved`, `failed` or `not run`.
        trace: The golden trace to ship.
    """

    report: dict[str, Any]
    trace: Trace

    def require(self) -> None:
        """Raises `GateError` with the first divergent event and tensor if anything was out of bounds."""
        if self.report["status"] == "failed":
            raise GateError(self.report["failure"])


def marks_for(events: int, period: int) -> np.ndarray:
    """Events after which everything is compared: 1, 2, 17, around the first group, 1000, then evenly, and the end."""
    early = {1, 2, 17, period, period + 1, period + 2, 2 * period + 1, 1000}
    even = set(np.linspace(0, events, 9, dtype=np.int64)[1:].tolist())
    return np.array(sorted(mark for mark in early | even if 0 < mark <= events), np.int64)


def window_ends(spec: ProgramSpec) -> list[int]:
    """Events after which the first `WINDOWS` windows are complete; none for programs whose items are events."""
    front = front_end(spec.front_end)
    if not isinstance(front, Window):
        return []
    return [front.events_at(spec.first_readout - 1 + number) for number in range(WINDOWS)]


def shortest(spec: ProgramSpec) -> int:
    """Events below which a sequence proves nothing.

    Two groups, and where there are chunks, room for two anywhere; or `WINDOWS` windows.
    """
    if ends := window_ends(spec):
        return max(ends[-1], _room(spec))
    groups = 2 * max(spec.period, spec.first_readout) + 2
    return max(groups, 2 * _room(spec) + 1) if spec.chunk else groups


def check_length(recording: Recording, spec: ProgramSpec) -> None:
    """Raises `UserError` if the sequence is shorter than `shortest`."""
    if len(recording.events) < (least := shortest(spec)):
        raise UserError(
            f"{recording.source} has {len(recording.events)} events, and parity of this model takes at least {least}; "
            "give a longer recording, or none to use the shipped ones"
        )


def prove(
    program: StreamProgram,
    open_session: Callable[[float], Session] | None,
    recording: Recording,
    dtype: str,
    *,
    yardstick: StreamProgram | None = None,
    seed: int = 0,
) -> Parity:
    """Runs all comparisons.

    Args:
        program: The model's own program.
        open_session: Opens the artefact for a tick length in microseconds; its bulk pushes may use chunks. `None`
            where nothing here can run it: then only the program itself is compared with the network's own forward.
        recording: The sequence; its sensor fits the model.
        dtype: The artefact's precision.
        yardstick: The reference in that precision; by default the program with rounded weights.
        seed: Of the arbitrary splits.

    Returns:
        The report and the golden trace.

    Raises:
        UserError: If the sequence is shorter than `shortest`.
    """
    tick_us, spec = recording.tick_us, program.spec
    events = recording.events
    check_length(recording, spec)
    marks = np.union1d(marks_for(len(events), spec.period), window_ends(spec)).astype(np.int64)
    reference = reference_session(program, torch.float64, tick_us=tick_us)
    trace = record(reference, events, marks, tick_us=tick_us, source=recording.source)

    def deviations(of: StreamProgram) -> list[Deviation]:
        session = reference_session(of, torch.float32, tick_us=tick_us, use_chunk=True)
        return compare(session, trace, pieces=repeat(len(events)))

    single, overflow = deviations(yardstick or rounded(program, dtype)), False
    if dtype in AUTOCAST and not np.isfinite(worst(single).relative):
        single, overflow = deviations(operands(program, dtype)), True
    bound = max(BOUNDS[dtype], min(SLACK * worst(single).relative, ROOM[dtype] * LOOSEST))
    report: dict[str, Any] = {
        "status": "proved",
        "bound": bound,
        "declared_bound": BOUNDS[dtype],
        "events": len(events),
        "sequence": recording.source,
        "offline": _offline(program, recording, trace),
        "float32_reference": {**summary(single), "overflow": overflow},
    }
    runs = [] if open_session is None else _artefact(open_session(tick_us), recording, trace, spec, seed, report)
    report["failure"] = _failure(report, runs, bound)
    if report["failure"]:
        report["status"] = "failed"
    elif open_session is None:
        report["status"] = "not run"
    return Parity(report, _shorten(trace, spec))


def _artefact(
    artefact: Session, recording: Recording, trace: Trace, spec: ProgramSpec, seed: int, report: dict[str, Any]
) -> list[tuple[str, list[Deviation]]]:
    """Runs the artefact event by event, in bulk and again; fills the report."""
    stepped = compare(artefact, trace)
    end = artefact.readout()
    report["step"] = summary(stepped)
    split = _rescaled(compare(artefact, _sparse(trace, _room(spec)), pieces=_pieces(_room(spec), seed)), trace)
    report["chunk"] = summary(split)
    report["reset"] = {"identical": bool(np.array_equal(_replay(artefact, recording), end))}
    report["label"] = {"reference": int(np.argmax(trace.readouts[-1])), "artefact": int(np.argmax(end))}
    return [("step", stepped), ("chunk", split)]


def _offline(program: StreamProgram, recording: Recording, trace: Trace) -> dict[str, Any]:
    """The reference session's last readout against the network's own forward."""
    if program.offline is None:
        return {"checked": False}
    items = front_end(program.spec.front_end).open(recording.tick_us).push(recording.events)
    answer = program.offline(items)
    difference = float(np.max(np.abs(answer - trace.readouts[-1])) / max(np.max(np.abs(answer)), 1e-30))
    return {"checked": True, "relative": difference, "bound": OFFLINE_BOUND}


def _room(spec: ProgramSpec) -> int:
    """A push of this size holds a whole chunk, wherever it begins."""
    return spec.period + max(spec.chunk.items if spec.chunk else 0, 128)


def _pieces(room: int, seed: int) -> Iterator[int]:
    """Push sizes: by turns one that a chunk fits into, and a random one, so that chunks begin and end anywhere."""
    rng = np.random.default_rng(seed)
    while True:
        yield room
        yield int(rng.integers(1, 2 * room))


def _sparse(trace: Trace, room: int) -> Trace:
    """The trace with so few marks, from its end on, that a chunk fits between any two of them."""
    kept: list[int] = []
    for row in reversed(range(len(trace.marks))):
        if (trace.marks[kept[-1]] if kept else np.inf) - trace.marks[row] >= room <= trace.marks[row]:
            kept.append(row)
    return trace.select(np.array(kept[::-1]))


def _rescaled(deviations: list[Deviation], trace: Trace) -> list[Deviation]:
    """The deviations relative to what each tensor reaches in the whole trace."""
    scales = {name: float(np.abs(values).max()) for name, values in {"readout": trace.readouts, **trace.states}.items()}
    return [replace(d, relative=d.absolute / (scales[d.what] or 1.0)) for d in deviations]


def _replay(session: Session, recording: Recording) -> np.ndarray:
    session.reset()
    push_singly(session, recording.events)
    session.settle()
    return session.readout()


def _failure(report: dict[str, Any], runs: list[tuple[str, list[Deviation]]], bound: float) -> str:
    """The first thing that is wrong, as a sentence; empty if nothing is."""
    offline = report["offline"]
    if offline["checked"] and not offline["relative"] <= OFFLINE_BOUND:
        return (
            f"the stream program differs from the network's own forward by {offline['relative']:.1e} relative "
            f"(bound {OFFLINE_BOUND:.0e}) after {report['events']} events"
        )
    for name, deviations in runs:
        bad = [d for d in deviations if not d.relative <= bound]
        if bad:
            # States are in the order of the stages, and what is wrong upstream is wrong in all that follows.
            first = min((d for d in bad if d.mark == bad[0].mark), key=lambda d: d.what == "readout")
            return (
                f"parity failed ({name}): {first.what} deviates by {first.relative:.1e} relative (bound {bound:.0e}), "
                f"first seen after {first.mark} events"
            )
    if runs and not report["reset"]["identical"]:
        return "parity failed (reset): replaying the sequence after reset gives another answer than the first run"
    # Within the bound another label is a tie; the report shows it.
    return ""


def _shorten(trace: Trace, spec: ProgramSpec) -> Trace:
    """The part of a trace that ships with the bundle."""
    ends = window_ends(spec)
    limit = ends[SHIPPED_WINDOWS - 1] if ends else max(SHIPPED_EVENTS, shortest(spec))
    fitting = trace.states_at[trace.states_at <= limit]
    last = int(fitting[-1] if len(fitting) else trace.states_at[0])
    return replace(trace.select(trace.marks <= last), events=trace.events[:last]).thin(SHIPPED_BYTES)
