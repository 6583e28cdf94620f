"""`--smooth`: work is spread over later events, nothing is computed differently, and answers lag as declared."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from neurocompile.lowering import lower
from neurocompile.lowering.jobs import delay, find_jobs
from neurocompile.lowering.loops import accesses
from neurocompile.targets import TargetSpec, cpu, find_target
from runtime.backends.native import NativeModel, NativeSession
from runtime.errors import UserError
from runtime.events import Events

needs_compiler = pytest.mark.skipif(bool(cpu.availability().build), reason="no C compiler")


def stream(spec, count: int) -> Events:
    rng, front = np.random.default_rng(0), spec.front_end
    t = np.cumsum(rng.choice([0, 1, 17, 250, 1000], count)).astype(np.int64)
    return Events(t, rng.integers(0, front["width"], count), np.zeros(count, np.int64), rng.random(count) < 0.5)


def session_of(graphs, target: TargetSpec, folder, **options) -> NativeSession:
    files = cpu.build(graphs, target).files
    folder.mkdir(exist_ok=True)
    (folder / "libmodel.so").write_bytes(files["libmodel.so"])
    return NativeSession(
        graphs.spec, NativeModel(graphs.spec, folder / "libmodel.so", files["model.weights"]), **options
    )


@pytest.fixture(scope="module", params=["fp32", "int8"])
def pair(request, compiled, tmp_path_factory):
    """(smooth session, plain session) of the same network."""
    graphs, folder = compiled("two_stages"), tmp_path_factory.mktemp("smooth")
    smooth = session_of(graphs, TargetSpec("cpu", request.param, smooth=True), folder / "smooth")
    plain = session_of(graphs, TargetSpec("cpu", request.param), folder / "plain", use_chunk=False)
    return smooth, plain


@pytest.fixture(autouse=True)
def _fresh(request):
    if "pair" in request.fixturenames:
        for session in request.getfixturevalue("pair"):
            session.reset()


def assert_equal(smooth, plain) -> None:
    smooth.settle()
    found = [smooth.readout(), *(smooth.state(state.name) for state in plain.spec.states)]
    wanted = [plain.readout(), *(plain.state(state.name) for state in plain.spec.states)]
    for value, expected in zip(found, wanted, strict=True):
        np.testing.assert_allclose(value, expected, rtol=0, atol=2e-5 * max(np.abs(expected).max(), 1e-3))


@needs_compiler
def test_once_settled_nothing_differs(pair):
    smooth, plain = pair
    events, rng, done = stream(plain.spec, 700), np.random.default_rng(1), 0
    while done < len(events):
        size = int(rng.choice([1, 3, 4, 5, 16, 17, 40, 90]))
        for session in pair:
            session.push(events[done : done + size])
        done += size
        if rng.random() < 0.5:
            assert_equal(smooth, plain)
    assert_equal(smooth, plain)


@needs_compiler
def test_an_answer_lags_by_no_more_than_declared(pair):
    smooth, plain = pair
    events = stream(plain.spec, 150)
    (total,) = (state.name for state in plain.spec.states if state.name == "head.sum")
    now, before = [], []
    for k in range(len(events)):
        for session, sums in zip(pair, (now, before), strict=True):
            session.push(events[k : k + 1])
            sums.append(session.state(total))
    lag = smooth.delay_items
    assert 0 < lag < 100 and plain.delay_items == 0
    for k in range(len(events)):
        recent = before[max(0, k - lag) : k + 1]
        assert min(np.abs(now[k] - one).max() for one in recent) <= 2e-5 * np.abs(before[k]).max(), f"event {k}"
    assert any(np.abs(a - b).max() > 1e-3 for a, b in zip(now, before, strict=True))


@needs_compiler
def test_snapshots_and_bulk_pushes_lose_no_work(pair):
    smooth, plain = pair
    events = stream(plain.spec, 900)
    for begin, end in ((0, 33), (33, 121), (121, 800), (800, 803), (803, 900)):
        taken = smooth.snapshot()
        smooth.reset()
        smooth.restore(taken)
        for session in pair:
            session.push(events[begin:end])
    assert_equal(smooth, plain)


@needs_compiler
def test_the_report_declares_the_delay(compiled):
    graphs = compiled("two_stages")
    jobs = find_jobs(graphs.spec, lower(graphs))
    assert [job.stage.name for job in jobs] == [
        "stage0.first", "stage0.group", "stage1.item", "stage1.first", "stage1.group",
    ]  # fmt: skip
    artefact = cpu.build(graphs, TargetSpec("cpu", "fp32", smooth=True))
    assert artefact.report["delay_items"] == delay(graphs.spec, jobs) == 4 + 4 + 16


def test_it_is_refused_where_it_means_nothing(compiled):
    with pytest.raises(UserError, match=r"--smooth is for the targets cpu-\*"):
        find_target("onnx-fp32", smooth=True)
    graphs = compiled("stride_one")
    with pytest.raises(UserError, match="--smooth spreads stages that fire rarely, and this model has none"):
        find_jobs(graphs.spec, lower(graphs))


def test_a_result_that_others_see_too_early_is_refused(compiled):
    graphs = compiled("two_stages")
    program = lower(graphs)
    readout, group = program.stages["readout"], program.stages["stage0.group"]
    seen = next(s for s in group.statements if any(a.buffer.name == "stage0.layer1.x_re" for a, _, _ in accesses(s)))
    spying = replace(readout, statements=(*readout.statements, seen))
    with pytest.raises(UserError, match=r"--smooth cannot spread stage 'stage0.group', which makes .*readout reads"):
        find_jobs(graphs.spec, replace(program, stages={**program.stages, "readout": spying}))
