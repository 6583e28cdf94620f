"""What is timed: one network, one recording, and the gate that every contestant passes before its clock starts."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from models.checkpoint import Checkpoint, open_checkpoint
from models.event_ssm import EventSSM
from models.event_ssm.presets import PRESETS
from neurocompile.capture import capture
from neurocompile.graph_program import GraphProgram
from neurocompile.passes import run_passes
from neurocompile.program import StreamProgram
from neurocompile.reference import reference_session
from neurocompile.sequences import fit_to_sensor, shipped_sequence
from runtime.errors import GateError, UserError
from runtime.events.container import Events
from runtime.program import ProgramSpec
from runtime.session import Session
from runtime.trace import push_singly

BOUNDS = {"fp32": 1e-4, "bf16": 0.05, "int8": 0.1}
"""Largest deviation from the float64 reference, relative to each tensor's largest value."""


@dataclass(frozen=True, eq=False)
class Subject:
    """One network on one recording.

    Attributes:
        name: Preset or checkpoint.
        checkpoint: The network.
        program: Its stream program, without the chunk form.
        graphs: The stages as graphs, after the passes: what every contestant is given.
        events: The recording.
        source: Where the recording came from.
        proven: Number of events that the gate compares.
        wanted: What the float64 reference says after them: readout and states.
    """

    name: str
    checkpoint: Checkpoint
    program: StreamProgram
    graphs: GraphProgram
    events: Events
    source: str
    proven: int
    wanted: dict[str, np.ndarray]

    @property
    def spec(self) -> ProgramSpec:
        """The program's tables."""
        return self.program.spec

    def gate(self, session: Session, dtype: str = "fp32") -> float:
        """Pushes the gate's events one by one and compares readout and states with the reference.

        Returns:
            The largest deviation, relative to the tensor's largest value.

        Raises:
            GateError: If it exceeds the bound of the precision.
        """
        session.reset()
        push_singly(session, self.events[: self.proven])
        session.settle()
        found = {"readout": session.readout(), **{s.name: session.state(s.name) for s in self.spec.states}}
        return within(BOUNDS[dtype], dtype, ((found[name], value) for name, value in self.wanted.items()))


def within(bound: float, dtype: str, pairs: Iterable[tuple[np.ndarray, np.ndarray]]) -> float:
    """The largest deviation of any array from the one it should be, relative to the latter's largest value.

    Args:
        bound: What it may be.
        dtype: Whose, for the message.
        pairs: (found, wanted).

    Raises:
        GateError: If it exceeds the bound.
    """
    errors = [float(np.abs(found - wanted).max() / max(np.abs(wanted).max(), 1e-6)) for found, wanted in pairs]
    # A NaN is no number below any bound, and max() may overlook it.
    if not all(error <= bound for error in errors):
        worst = max(errors, key=lambda error: np.inf if np.isnan(error) else error)
        raise GateError(f"a session in {dtype} is off by {worst:.1e}, more than {bound:.0e}; no speed is reported")
    return max(errors)


def open_subject(model: Path | None, preset: str, events: int) -> Subject:
    """Loads the network, captures it and reads the recording.

    Args:
        model: A checkpoint; `None` stands for random weights of the preset.
        preset: A published configuration.
        events: Length of the recording.

    Raises:
        UserError: If the checkpoint is of another family, or the recording too short for the gate.
    """
    if model:
        checkpoint, name = open_checkpoint(model), model.name
        if checkpoint.family != "event_ssm":
            raise UserError(f"{model} is of family {checkpoint.family}; this benchmark times event_ssm")
    else:
        chosen, name = PRESETS[preset], preset
        torch.manual_seed(0)
        network = EventSSM(chosen.config).eval()
        checkpoint = Checkpoint("event_ssm", network, chosen.config, chosen.front_end, chosen.labels)
    program = _stepping(checkpoint.model.stream_program(checkpoint.front_end, checkpoint.labels))
    recording = fit_to_sensor(shipped_sequence(events), checkpoint.front_end)
    proven = 2 * program.spec.period + 40
    if len(recording.events) < proven:
        raise UserError(f"{events} events are too few for the correctness gate; give --events {proven} or more")
    reference = reference_session(program, torch.float64)
    reference.push(recording.events[:proven])
    wanted = {"readout": reference.readout(), **{s.name: reference.state(s.name) for s in program.spec.states}}
    graphs = run_passes(capture(program))[0]
    return Subject(name, checkpoint, program, graphs, recording.events, recording.source, proven, wanted)


def _stepping(program: StreamProgram) -> StreamProgram:
    """Without the chunk form, which no measurement here uses."""
    modules = {name: module for name, module in program.modules.items() if name != "chunk"}
    return StreamProgram(replace(program.spec, chunk=None), modules)
