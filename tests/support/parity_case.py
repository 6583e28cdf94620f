"""A program, its artefact, and what parity says of them."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import pytest

from neurocompile import parity
from neurocompile.graph_program import GraphProgram
from neurocompile.parity import prove
from neurocompile.program import StreamProgram
from runtime.backends.ort import OrtExecutor
from runtime.errors import GateError
from runtime.events import Recording
from runtime.session import ScheduledSession

NAME = "two_stages"
PERIOD = 16
EVENTS = 700


class Case:
    """The program, its artefact, and what is proved of the artefact."""

    def __init__(self, program: StreamProgram, graphs: GraphProgram, recording: Recording) -> None:
        self.program, self.graphs, self.recording = program, graphs, recording
        assert program.spec.period == PERIOD

    @classmethod
    def made_up(cls, program, compiled, stream) -> Case:
        """Of the fixtures: a network of two stages and random events."""
        recording = Recording(stream(program(NAME), EVENTS), 20, 1, 1.0, "made up")
        return cls(program(NAME), compiled(NAME), recording)

    def prove(self, graphs: GraphProgram | None = None, session: type = ScheduledSession, **changes) -> parity.Parity:
        program = replace(self.program, **changes)
        return prove(program, partial(self.open, graphs or self.graphs, session), self.recording, "fp32")

    def open(self, graphs: GraphProgram, session: type, tick_us: float) -> ScheduledSession:
        return session(graphs.spec, OrtExecutor(graphs.spec, graphs.serialised()), tick_us=tick_us)

    def fails(self, *arguments, **keywords) -> str:
        """The sentence with which a proof fails."""
        proof = self.prove(*arguments, **keywords)
        assert proof.report["status"] == "failed"
        with pytest.raises(GateError) as caught:
            proof.require()
        assert caught.value.exit_code == 1
        assert "\n" not in str(caught.value)
        return str(caught.value)

    def with_stage(self, name: str, **changes) -> GraphProgram:
        """The artefact with another row in its stage table."""
        stages = tuple(replace(s, **changes) if s.name == name else s for s in self.graphs.spec.stages)
        return GraphProgram(replace(self.graphs.spec, stages=stages), self.graphs.graphs)
