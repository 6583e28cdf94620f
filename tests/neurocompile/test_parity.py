"""Parity: it proves what is right, and names event and tensor of whatever was sabotaged."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import replace
from functools import partial

import numpy as np
import onnx_ir as ir
import pytest
from torch import nn

from neurocompile import parity
from neurocompile.graph_program import GraphProgram
from neurocompile.parity import marks_for, prove, shortest
from neurocompile.program import StreamProgram
from neurocompile.rounding import autocast
from runtime.backends.ort import OrtExecutor
from runtime.errors import GateError, UserError
from runtime.events import Events, Recording
from runtime.session import ScheduledSession
from runtime.trace import Deviation, Trace, compare, record, worst

NAME = "two_stages"
PERIOD = 16
EVENTS = 700


@pytest.fixture(scope="module")
def recording(program, stream) -> Recording:
    return Recording(stream(program(NAME), EVENTS), 20, 1, 1.0, "made up")


class Case:
    """The program, its artefact, and what is proved of the artefact."""

    def __init__(self, program: StreamProgram, graphs: GraphProgram, recording: Recording) -> None:
        self.program, self.graphs, self.recording = program, graphs, recording
        assert program.spec.period == PERIOD

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


@pytest.fixture(scope="module")
def case(program, compiled, recording) -> Case:
    return Case(program(NAME), compiled(NAME), recording)


@pytest.fixture(scope="module")
def proof(case) -> parity.Parity:
    return case.prove()


def test_what_is_right_is_proved(proof, case):
    proof.require()
    report = proof.report
    assert report["status"] == "proved"
    assert report["failure"] == ""
    assert report["bound"] == report["declared_bound"] == 1e-4
    assert report["events"] == EVENTS
    assert report["offline"] == {"checked": True, "relative": report["offline"]["relative"], "bound": 1e-9}
    assert report["offline"]["relative"] < 1e-9
    assert report["reset"] == {"identical": True}
    assert report["label"]["reference"] == report["label"]["artefact"]
    for run in ("step", "chunk", "float32_reference"):
        assert 0 < report[run]["worst_relative"] < 1e-5
        assert report[run]["worst_tensor"] in {"readout", *(state.name for state in case.program.spec.states)}
    assert json.loads(json.dumps(report)) == report


class Overflowing(nn.Module):
    """A stage that leaves the range of its numbers."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, *inputs):
        results = self.module(*inputs)
        return tuple(r * float("nan") if r.is_floating_point() else r for r in results)


def test_a_yardstick_that_overflows_gives_way_to_rounded_operands(case):
    broken = replace(case.program, modules={name: Overflowing(m) for name, m in case.program.modules.items()})

    def start(tick_us: float) -> ScheduledSession:
        return ScheduledSession(
            case.graphs.spec, OrtExecutor(case.graphs.spec, case.graphs.serialised()), tick_us=tick_us
        )

    report = prove(case.program, start, case.recording, "fp16", yardstick=broken).report
    assert report["float32_reference"]["overflow"]
    # Operands of 11 bits.
    assert 2**-15 < report["float32_reference"]["worst_relative"] < 2**-7
    json.dumps(report, allow_nan=False)
    mixed = autocast(case.program, "fp16")
    assert not prove(case.program, start, case.recording, "fp16", yardstick=mixed).report["float32_reference"][
        "overflow"
    ]


def test_the_trace_is_the_float64_references(proof, case, tmp_path):
    trace = proof.trace
    assert trace.marks.tolist() == marks_for(EVENTS, PERIOD).tolist()
    assert trace.readouts.dtype == np.float64
    items = Events(*(getattr(case.recording.events, name) for name in "txyp"))
    from runtime.front_ends import front_end

    offline = case.program.offline(front_end(case.program.spec.front_end).open().push(items))
    np.testing.assert_allclose(trace.readouts[-1], offline, rtol=1e-9)
    again = Trace.from_bytes(trace.to_bytes())
    assert (again.tick_us, again.source) == (trace.tick_us, trace.source)
    for name in ("marks", "readouts"):
        np.testing.assert_array_equal(getattr(again, name), getattr(trace, name))
    for name in "txyp":
        np.testing.assert_array_equal(getattr(again.events, name), getattr(trace.events, name))
    assert again.states.keys() == trace.states.keys() == {state.name for state in case.program.spec.states}
    for name, values in trace.states.items():
        np.testing.assert_array_equal(again.states[name], values)


@pytest.mark.parametrize("data", [b"", b"no archive", None])
def test_a_damaged_trace_is_refused(proof, data):
    data = proof.trace.to_bytes()[:-100] if data is None else data
    with pytest.raises(UserError, match="golden trace of this bundle cannot be read"):
        Trace.from_bytes(data)


def test_only_what_fits_is_shipped(case, monkeypatch):
    monkeypatch.setattr(parity, "SHIPPED_EVENTS", 600)
    trace = case.prove().trace
    assert trace.marks[-1] == len(trace.events) == 525
    assert len(trace.marks) == len(trace.readouts) == len(trace.states["head.sum"])


def test_large_states_are_recorded_and_shipped_at_fewer_marks(case, monkeypatch):
    each = 8 * sum(int(np.prod(state.shape)) for state in case.program.spec.states)
    monkeypatch.setattr(parity, "record", partial(record, room=6 * each + 1))
    monkeypatch.setattr(parity, "SHIPPED_BYTES", 2 * each + 1)
    proof = case.prove()
    trace = proof.trace
    assert proof.report["status"] == "proved" and len(trace.marks) > 6
    assert trace.states_at.tolist() == [trace.marks[0], trace.marks[-1]]
    assert {len(values) for values in trace.states.values()} == {2}
    again = Trace.from_bytes(trace.to_bytes())
    np.testing.assert_array_equal(again.states_at, trace.states_at)
    found = compare(case.open(case.graphs, ScheduledSession, 1.0), again)
    assert {d.mark for d in found if d.what == "readout"} == set(trace.marks.tolist())
    assert {d.mark for d in found if d.what != "readout"} == set(trace.states_at.tolist())
    # A state that is wrong where it is known still shows.
    spoiled = {name: values + (name == "head.sum") for name, values in trace.states.items()}
    assert (
        worst(compare(case.open(case.graphs, ScheduledSession, 1.0), replace(trace, states=spoiled))).what == "head.sum"
    )


def test_at_least_one_mark_has_states(case, monkeypatch):
    monkeypatch.setattr(parity, "record", partial(record, room=0))
    monkeypatch.setattr(parity, "SHIPPED_BYTES", 0)
    trace = case.prove().trace
    assert trace.states_at.tolist() == [trace.marks[-1]] == [len(trace.events)]


def changed_weight(program: GraphProgram, stage: str, change: Callable[[np.ndarray], np.ndarray]) -> GraphProgram:
    """The program with its largest matrix of one stage changed."""
    program = program.copy()
    constants = program.graphs[stage].graph.initializers.values()
    value = max((v for v in constants if v.dtype == ir.DataType.FLOAT), key=lambda v: v.const_value.size)
    array = change(value.const_value.numpy().copy())
    value.const_value = ir.Tensor(array.astype(np.float32), name=value.name)
    return program


def one_element(array: np.ndarray) -> np.ndarray:
    array.flat[array.size // 2] += 1
    return array


@pytest.mark.parametrize(
    "stage", ["stage0.item", "stage0.first", "stage0.group", "stage1.item", "stage1.group", "readout"]
)
def test_one_changed_weight_in_any_stage(case, stage):
    # Every row of the table matters only to one token, so all of it is changed there.
    change = (lambda array: array * 1.02) if stage == "stage0.item" else one_element
    sentence = case.fails(changed_weight(case.graphs, stage, change))
    found = re.fullmatch(
        r"parity failed \(step\): (\S+) deviates by \S+ relative \(bound 1e-04\), first seen after (\d+) events",
        sentence,
    )
    assert found, sentence
    # What the stage itself writes is wrong as soon as the stage has fired, and nothing before it ever is.
    first, tensors = {
        "stage0.item": (2, ("stage0.layer0",)),
        "stage0.first": (2, ("stage0.y",)),
        "stage0.group": (5, ("stage0.layer1", "stage1")),
        "stage1.item": (5, ("stage1.layer0",)),
        "stage1.group": (17, ("stage1.layer1", "head", "readout")),
        "readout": (1, ("readout",)),
    }[stage]
    assert first <= int(found[2]) <= 33
    assert found[1].startswith(tensors)


def test_the_tensor_furthest_upstream_is_named_at_the_first_mark():
    """Not the one that is furthest off, which may be anywhere behind it."""
    report = {"offline": {"checked": False}, "reset": {"identical": True}}
    rows = [
        (1, "readout", 1e-6),
        (1, "stage0.x", 1e-6),
        (17, "readout", 0.9),
        (17, "stage0.x", 2e-4),
        (17, "stage1.x", 0.5),
    ]
    run = [Deviation(mark, what, error, error) for mark, what, error in (*rows, (33, "stage0.a", 0.9))]
    sentence = parity._failure(report, [("step", run)], 1e-4)
    assert sentence == (
        "parity failed (step): stage0.x deviates by 2.0e-04 relative (bound 1e-04), first seen after 17 events"
    )
    assert parity._failure(report, [("step", run[:2])], 1e-4) == ""


def test_a_changed_weight_of_the_chunk(case):
    """Steps are right, so only bulk pushes tell."""
    sentence = case.fails(changed_weight(case.graphs, "chunk", lambda array: array * 1.02))
    assert re.match(r"parity failed \(chunk\): \S+ deviates by", sentence), sentence


@pytest.mark.parametrize("state", ["stage0.layer0.x_re", "stage1.layer1.x_im", "head.sum", "head.groups"])
def test_a_chunk_that_forgets_a_state(case, state):
    chunk = case.graphs.spec.chunk
    forgetful = replace(chunk, writes=tuple(name for name in chunk.writes if name != state))
    graphs = GraphProgram(replace(case.graphs.spec, chunk=forgetful), case.graphs.graphs)
    sentence = case.fails(graphs)
    # The parts of a complex number mix at the next step.
    assert re.match(rf"parity failed \(chunk\): ({re.escape(state[:-2])}\S\S|readout) deviates", sentence), sentence


def test_a_pool_that_is_not_reset(case):
    group = case.graphs.spec.stage("stage0.group")
    kept = tuple(name for name in group.resets if name != "stage0.pool_e")
    sentence = case.fails(case.with_stage("stage0.group", resets=kept))
    assert "stage0.pool_e deviates" in sentence
    # The first group is complete after 4 items, which take 5 events; the mark after that is 16.
    assert sentence.endswith("first seen after 16 events")


def test_a_state_that_begins_elsewhere(case):
    states = tuple(replace(s, initial=0.5) if s.name == "stage1.layer0.x_re" else s for s in case.graphs.spec.states)
    sentence = case.fails(GraphProgram(replace(case.graphs.spec, states=states), case.graphs.graphs))
    assert "stage1.layer0.x_re deviates" in sentence
    assert sentence.endswith("first seen after 1 events")


def test_stages_that_changed_places(case):
    graphs = dict(case.graphs.graphs)
    first, second = (graphs[name].clone() for name in ("stage0.first", "stage1.first"))
    for model, new in ((first, "stage1"), (second, "stage0")):
        for value in (*model.graph.inputs, *model.graph.outputs):
            value.name = new + value.name[6:]
    sentence = case.fails(GraphProgram(case.graphs.spec, graphs | {"stage0.first": second, "stage1.first": first}))
    assert "stage0.y deviates" in sentence


def test_a_trigger_of_another_phase(case):
    trigger = case.graphs.spec.stage("stage0.first").trigger
    sentence = case.fails(case.with_stage("stage0.first", trigger=replace(trigger, phase=1)))
    assert "stage0.y deviates" in sentence
    assert sentence.endswith("first seen after 2 events")


class Sticky(ScheduledSession):
    """Its reset leaves one state as it is; the first run is right."""

    def reset(self) -> None:
        kept = self._executor.get_state("head.sum")
        super().reset()
        self._executor.set_state("head.sum", kept)


def test_a_reset_that_keeps_something(case):
    assert case.fails(session=Sticky).startswith("parity failed (chunk): ")


class Drifting(ScheduledSession):
    """Answers a little more at every reset."""

    resets = 0

    def reset(self) -> None:
        super().reset()
        self.resets += 1

    def readout(self) -> np.ndarray:
        return super().readout() * np.float32(1 + 1e-6 * self.resets)


def test_a_replay_must_be_the_same_to_the_last_bit(case):
    assert case.fails(session=Drifting).startswith("parity failed (reset): ")


class Late(ScheduledSession):
    """Wrong only from event 302 on, and then it is no number."""

    def readout(self) -> np.ndarray:
        return super().readout() * (np.nan if self.items > 300 else 1)


def test_not_a_number_after_a_while(case):
    sentence = case.fails(session=Late)
    assert "(step): readout deviates by nan" in sentence
    mark = int(re.search(r"after (\d+) events", sentence)[1])
    assert mark == min(m for m in marks_for(EVENTS, PERIOD) if m > 301)


def test_a_program_that_is_not_its_network(case):
    sentence = case.fails(offline=lambda items: case.program.offline(items) * (1 + 1e-8))
    assert sentence.startswith("the stream program differs from the network's own forward by 1.0e-08 relative")
    assert "after 700 events" in sentence


def test_without_an_offline_form_the_report_says_so(case):
    assert case.prove(offline=None).report["offline"] == {"checked": False}


def test_no_bound_is_looser_than_that(case, monkeypatch):
    """Not even where the network's own float32 run is no better."""
    honest = parity.worst
    monkeypatch.setattr(
        parity, "worst", lambda deviations, what=None: replace(honest(deviations, what), relative=np.inf)
    )
    report = case.prove(changed_weight(case.graphs, "readout", lambda array: array * 1.5)).report
    assert report["bound"] == 1e-2
    assert report["status"] == "failed"


def test_marks():
    assert marks_for(1, 256).tolist() == [1]
    assert marks_for(4000, 16).tolist() == [1, 2, 16, 17, 18, 33, 500, 1000, 1500, 2000, 2500, 3000, 3500, 4000]
    for events, period in ((100_000, 256), (700, 1), (40_000, 16_384)):
        marks = marks_for(events, period)
        assert marks[-1] == events
        assert (np.diff(marks) > 0).all()
        assert {1, 2, 17, period + 1} <= set(marks.tolist())


@pytest.mark.parametrize("name", [NAME, "zoh_last", "stride_one"])
def test_a_sequence_too_short_to_prove_anything(program, name):
    """A chunk must fit between two marks, and two groups into the sequence."""
    spec = program(name).spec
    least = shortest(spec)
    assert least > spec.chunk.items + spec.period
    assert shortest(replace(spec, chunk=None)) == 2 * spec.period + 2
    zeros = np.zeros(least - 1)
    short = Recording(Events(zeros, zeros, zeros, zeros), source="short.bin")
    with pytest.raises(
        UserError, match=rf"short.bin has {least - 1} events, and parity of this model takes at least {least}"
    ):
        prove(program(name), lambda tick_us: None, short, "fp32")
