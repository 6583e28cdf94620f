"""Parity: it proves what is right, and names event and tensor of whatever was sabotaged."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import onnx_ir as ir
import pytest
from torch import nn

from neurocompile import parity
from neurocompile.graph_program import GraphProgram
from neurocompile.parity import marks_for, prove, shortest
from neurocompile.rounding import autocast
from parity_case import EVENTS, NAME, PERIOD, Case
from runtime.backends.ort import OrtExecutor
from runtime.errors import UserError
from runtime.events import Events, Recording
from runtime.session import ScheduledSession
from runtime.trace import Deviation


@pytest.fixture(scope="module")
def case(program, compiled, stream) -> Case:
    return Case.made_up(program, compiled, stream)


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
