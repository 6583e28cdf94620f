"""Parity: proof on whole sequences with carried state that an artefact computes what the trained model computes.

Four comparisons, in this order of trust:

    offline   float64 reference session, event by event   against   the network's own forward on the whole stream
    step      artefact, event by event                    against   the float64 reference, readout and every state
    chunk     artefact, bulk pushes under arbitrary splits against   the same
    reset     artefact, reset and replayed                against   its own first run, bit by bit

The bound is fixed per precision, beforehand. Some networks amplify rounding so much that their own torch modules,
run in float32, leave it; no artefact can then be asked for more, so the bound is `SLACK` times that deviation where
this is larger. Both figures stand in the report.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import repeat
from typing import Any

import numpy as np
import torch

from neurocompile.program import StreamProgram
from neurocompile.reference import reference_session
from runtime.errors import GateError
from runtime.events.container import Recording
from runtime.front_ends import front_end
from runtime.session import Session
from runtime.trace import Trace, compare, push_singly, record, summary, worst

BOUNDS = {"fp32": 1e-4}
"""Largest relative deviation from the float64 reference, per precision."""

SLACK = 2.0
"""How much further than the network's own float32 run an artefact may deviate."""

OFFLINE_BOUND = 1e-9
SHIPPED_EVENTS = 4000
"""Events in the golden trace that a bundle carries."""


@dataclass(frozen=True)
class Parity:
    """The outcome.

    Attributes:
        report: What the manifest keeps; `status` is `proved` or `failed`.
        trace: The golden trace to ship.
    """

    report: dict[str, Any]
    trace: Trace

    def require(self) -> None:
        """Raises `GateError` with the first divergent event and tensor if anything was out of bounds."""
        if self.report["status"] != "proved":
            raise GateError(self.report["failure"])


def marks_for(events: int, period: int) -> np.ndarray:
    """Events after which everything is compared: 1, 2, 17, around the first group, 1000, then evenly, and the end."""
    early = {1, 2, 17, period, period + 1, period + 2, 2 * period + 1, 1000}
    even = set(np.linspace(0, events, 9, dtype=np.int64)[1:].tolist())
    return np.array(sorted(mark for mark in early | even if 0 < mark <= events), np.int64)


def prove(
    program: StreamProgram,
    open_session: Callable[[float], Session],
    recording: Recording,
    dtype: str,
    *,
    seed: int = 0,
) -> Parity:
    """Runs all comparisons.

    Args:
        program: The model's own program.
        open_session: Opens the artefact for a tick length in microseconds; its bulk pushes may use chunks.
        recording: The sequence; its sensor fits the model.
        dtype: The artefact's precision.
        seed: Of the arbitrary splits.

    Returns:
        The report and the golden trace.
    """
    tick_us, spec = recording.tick_us, program.spec
    events = recording.events
    marks = marks_for(len(events), spec.period)
    reference = reference_session(program, torch.float64, tick_us=tick_us)
    trace = record(reference, events, marks, tick_us=tick_us, source=recording.source)
    single = compare(
        reference_session(program, torch.float32, tick_us=tick_us, use_chunk=True), trace, pieces=repeat(len(events))
    )
    bound = max(BOUNDS[dtype], SLACK * worst(single).relative)
    report: dict[str, Any] = {
        "status": "proved",
        "bound": bound,
        "declared_bound": BOUNDS[dtype],
        "events": len(events),
        "sequence": recording.source,
        "offline": _offline(program, recording, trace),
        "float32_reference": summary(single),
    }
    artefact = open_session(tick_us)
    stepped = compare(artefact, trace)
    end = artefact.readout()
    report["step"] = summary(stepped)
    split = compare(artefact, trace, pieces=_pieces(spec.period, seed))
    report["chunk"] = summary(split)
    report["reset"] = {"identical": bool(np.array_equal(_replay(artefact, recording), end))}
    report["label"] = {"reference": int(np.argmax(trace.readouts[-1])), "artefact": int(np.argmax(end))}
    report["failure"] = _failure(report, [("step", stepped), ("chunk", split)], bound)
    if report["failure"]:
        report["status"] = "failed"
    return Parity(report, _shorten(trace))


def _offline(program: StreamProgram, recording: Recording, trace: Trace) -> dict[str, Any]:
    """The reference session's last readout against the network's own forward."""
    if program.offline is None:
        return {"checked": False}
    items = front_end(program.spec.front_end).open(recording.tick_us).push(recording.events)
    if len(items["token"]) < program.spec.first_readout:
        return {"checked": False, "why": "the sequence has no complete group"}
    answer = program.offline(items)
    difference = float(np.max(np.abs(answer - trace.readouts[-1])) / max(np.max(np.abs(answer)), 1e-30))
    return {"checked": True, "relative": difference, "bound": OFFLINE_BOUND}


def _pieces(period: int, seed: int) -> Iterator[int]:
    """Random push sizes, so that chunks begin and end anywhere."""
    rng = np.random.default_rng(seed)
    while True:
        yield int(rng.integers(1, 4 * max(period, 128)))


def _replay(session: Session, recording: Recording) -> np.ndarray:
    session.reset()
    push_singly(session, recording.events)
    return session.readout()


def _failure(report: dict[str, Any], runs: list[tuple[str, list[Any]]], bound: float) -> str:
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
            first = worst([d for d in bad if d.mark == bad[0].mark])
            return (
                f"parity failed ({name}): {first.what} deviates by {first.relative:.1e} relative (bound {bound:.0e}), "
                f"first seen after {first.mark} events"
            )
    if not report["reset"]["identical"]:
        return "parity failed (reset): replaying the sequence after reset gives another answer than the first run"
    if report["label"]["reference"] != report["label"]["artefact"]:
        label = report["label"]
        return f"parity failed (label): the artefact answers {label['artefact']}, the reference {label['reference']}"
    return ""


def _shorten(trace: Trace) -> Trace:
    """The part of a trace that ships with the bundle."""
    keep = trace.marks <= max(SHIPPED_EVENTS, int(trace.marks[0]))
    states = {name: values[keep] for name, values in trace.states.items()}
    last = int(trace.marks[keep][-1])
    return Trace(trace.events[:last], trace.tick_us, trace.marks[keep], trace.readouts[keep], states, trace.source)
