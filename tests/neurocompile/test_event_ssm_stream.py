"""The stream program of event-ssm, in float64: event by event it computes what the trained network computes offline."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from models.event_ssm import EventSSM
from neurocompile.program import StreamProgram
from neurocompile.reference import reference_session
from runtime.events import Events
from runtime.front_ends import TokenDt, front_end

TINY = [f"tiny_{rule}_{pool}" for rule in ("zoh", "dirac", "async") for pool in ("last", "avgpool", "timepool")]
OURS = ["two_stages", "batch_norm", "zoh_last", "post_norm", "stride_one"]
ALL = ["dvs_tiny", "shd_tiny", "ssc_small", *TINY, "tiny_batch_one", "tiny_three_stages", *OURS]
PREFIXES = ["dvs_small", "dvs_tiny", "shd_tiny", "ssc_small"]


def relative(actual: np.ndarray, wanted: np.ndarray) -> float:
    """Largest difference relative to the largest wanted value."""
    assert actual.shape == wanted.shape
    return float(np.abs(actual - wanted).max() / np.abs(wanted).max())


def golden_events(case) -> Events:
    """The recorded events of sample 0."""
    x, t = case.arrays["events/0/x"], case.arrays["events/0/t"]
    y, p = (case.arrays.get(f"events/0/{name}", np.zeros(len(x), np.int64)) for name in "yp")
    return Events(t, x, y, p)


def golden_program(case) -> StreamProgram:
    """The program with the token rule of the case's sensor."""
    width, height = (*case.table["data"]["resolution"], 1)[:2]
    rule, rows = ("product" if height > 1 else "channel"), case.config.num_embeddings
    return case.model().stream_program(TokenDt(rule, width, height, "next", rows))


def small_chunks(program: StreamProgram) -> StreamProgram:
    """The same program with chunks of one period, so that a short stream holds many."""
    spec = program.spec
    return replace(program, spec=replace(spec, chunk=replace(spec.chunk, items=spec.period)))


@pytest.fixture(scope="module", params=PREFIXES)
def golden_case(request, event_ssm_case):
    case = event_ssm_case(request.param)
    return case, golden_program(case)


@pytest.mark.parametrize("use_chunk", [False, True])
def test_published_prefixes(golden_case, use_chunk):
    """After n + 1 events the readout is what the published network says of the first n pairs."""
    case, program = golden_case
    session, events, done = reference_session(program, use_chunk=use_chunk), golden_events(case), 0
    for n, logits in zip(case.arrays["prefix/n"].tolist(), case.arrays["prefix/logits_f64"], strict=True):
        session.push(events[done : n + 1])
        done = n + 1
        assert session.items == n
        assert session.ready == (n >= case.config.total_downsampling)
        wanted = logits if session.ready else case.flat["params/decoder/bias"].astype(np.float64)
        assert relative(session.readout(), wanted) < 1e-9, n


def lengths(program: StreamProgram) -> list[int]:
    """Around the first group, around the first chunk, and odd."""
    period, items = program.spec.period, program.spec.chunk.items
    return sorted({1, 2, period - 1, period, period + 1, 2 * period - 1, items + period // 2 + 1, 2 * items + 37} - {0})


@pytest.mark.parametrize("dt", ["next", "previous"])
@pytest.mark.parametrize("name", ALL)
def test_every_variant_against_its_own_forward(program, stream, name, dt):
    program = program(name, dt)
    events = stream(program, max(lengths(program)) + 1, seed=len(name))
    items = front_end(program.spec.front_end).open().push(events)
    session, done = reference_session(program), 0
    for count in lengths(program):
        # With dt `next` an item is complete only when the next event is there.
        upto = count + (dt == "next")
        session.push(events[done:upto])
        done = upto
        assert session.items == count
        wanted = program.offline({key: value[:count] for key, value in items.items()})
        assert np.isfinite(wanted).all()
        assert relative(session.readout(), wanted) < 1e-9, count


@pytest.mark.parametrize("name", ALL)
def test_chunks_leave_what_steps_leave(program, stream, name):
    """Chunks of one period and of the declared size, and steps between them: the same readout and the same states."""
    program = program(name)
    events = stream(program, 2 * program.spec.chunk.items + 3 * program.spec.period + 1, seed=5)
    steps = reference_session(program)
    chunks = [reference_session(which, use_chunk=True) for which in (program, small_chunks(program))]
    done, rng = 0, np.random.default_rng(3)
    while done < len(events):
        size = int(rng.integers(1, len(events)))
        for session in (steps, *chunks):
            session.push(events[done : done + size])
        done += size
        for session in chunks:
            assert relative(session.readout(), steps.readout()) < 1e-9
            for state in program.spec.states:
                wanted = steps.state(state.name)
                np.testing.assert_allclose(session.state(state.name), wanted, atol=1e-9 * max(1, abs(wanted).max()))


def silent(program: StreamProgram, count: int) -> Events:
    """Events that all carry one time stamp."""
    tokens = np.random.default_rng(1).integers(0, program.spec.front_end["width"], count)
    return Events(np.full(count, 5), tokens, np.zeros(count), np.zeros(count))


@pytest.mark.parametrize("name", ["shd_tiny", "dvs_tiny", "tiny_async_timepool", "stride_one"])
@pytest.mark.parametrize("use_chunk", [False, True])
def test_without_any_elapsed_time_the_groups_count_alike(program, event_ssm_case, name, use_chunk):
    """Published `timepool` divides by zero there; the plain mean over groups takes its place."""
    program = program(name)
    period = program.spec.period
    events = silent(program, 2 * program.spec.chunk.items + period + period // 2 + 1)
    session = reference_session(program, use_chunk=use_chunk)
    session.push(events)
    readout = session.readout()
    assert np.isfinite(readout).all()
    items = front_end(program.spec.front_end).open().push(events)
    assert relative(readout, program.offline(items)) < 1e-9
    if name == "stride_one":
        return
    model: EventSSM = event_ssm_case(name).model(torch.float64)
    complete = len(items["token"]) // period * period
    with torch.no_grad():
        x = model.embed(torch.from_numpy(items["token"][None, :complete]))
        dt = torch.zeros(1, complete, dtype=torch.float64)
        for layer in model.layers():
            x, dt = layer(x, dt)
        mean = model.decoder(x.mean(1))[0].numpy()
    if model.config.classification_mode != "last":
        assert relative(readout, mean) < 1e-9


@pytest.mark.parametrize("name", ALL)
def test_before_the_first_group_the_answer_is_the_decoders_bias(program, name):
    program = program(name)
    bias = program.modules["readout"].decoder.bias.detach().double().numpy()
    session = reference_session(program)
    assert not session.ready
    np.testing.assert_array_equal(session.readout(), bias)
    period = program.spec.period
    session.push(silent(program, period))  # One pair short of a group.
    assert session.items == period - 1
    assert not session.ready
    np.testing.assert_array_equal(session.readout(), bias)
    items = front_end(program.spec.front_end).open().push(silent(program, period))
    np.testing.assert_allclose(program.offline(items), bias, rtol=1e-12)
    session.push(Events([5], [0], [0], [0]))
    assert session.ready
    assert not np.array_equal(session.readout(), bias)
