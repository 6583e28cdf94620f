"""Passes on event-ssm's programs: valid ONNX that computes the same after every single one, alone or in a row."""

from __future__ import annotations

from itertools import repeat

import numpy as np
import onnx
import pytest

from neurocompile.passes import PASSES, run_passes
from neurocompile.reference import reference_session
from runtime.trace import compare, record, summary

CASES = {
    "batch_norm": {"hoist", "fold_batch_norm", "tabulate"},
    "post_norm": {"hoist", "tabulate"},
    "zoh_last": {"hoist", "tabulate"},
}
"""Network -> the passes that find something in it."""


@pytest.fixture(scope="module", params=CASES)
def case(request, program, captured, stream):
    """(name, captured program, float64 trace over steps and two chunks)."""
    made = program(request.param)
    events = stream(made, 2 * made.spec.chunk.items + 3 * made.spec.period, seed=2)
    marks = np.array([2, 17, made.spec.chunk.items + 2, len(events)])
    trace = record(reference_session(made), events, marks, tick_us=1.0, source="made up")
    return request.param, captured(request.param), trace


@pytest.mark.parametrize("passes", [(), *((name,) for name in PASSES), tuple(PASSES), tuple(reversed(PASSES))], ids=str)
def test_after_every_pass(case, open_onnx, passes):
    name, program, trace = case
    rewritten, changes = run_passes(program, passes)
    assert {change.rule for change in changes} == CASES[name] & set(passes)
    assert rewritten.spec is program.spec
    for stage, proto in rewritten.protos().items():
        onnx.checker.check_model(proto, full_check=True)
        before = program.protos()[stage].graph
        assert [value.name for value in proto.graph.output] == [value.name for value in before.output]
        assert [value.name for value in proto.graph.input] == [value.name for value in before.input]
    for use_chunk, pieces in ((False, None), (True, repeat(len(trace.events)))):
        worst = summary(compare(open_onnx(rewritten, use_chunk), trace, pieces=pieces))
        assert worst["worst_relative"] < 1e-4, worst


def test_what_is_left_for_an_event(case):
    """After all passes no product is left in the stage that runs at every event, and nothing is left to do."""
    name, program, _ = case
    rewritten, _ = run_passes(program)
    kinds = {node.op_type for node in rewritten.graphs["stage0.item"].graph}
    assert not kinds & {"MatMul", "Gemm", "LayerNormalization", "BatchNormalization"}
    assert not {n.op_type for m in rewritten.graphs.values() for n in m.graph} & {"BatchNormalization", "Transpose"}
    again, changes = run_passes(rewritten)
    assert changes == [], name
    assert again.serialised() == rewritten.serialised()
