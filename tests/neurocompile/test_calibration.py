"""Calibration: what it keeps of products' inputs, over carried state; and rounding that makes use of it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx_ir as ir
import pytest

from neurocompile.calibration import Calibration, Inputs, Source, _cut, calibrate, shipped_source
from neurocompile.compensated import compensated, loss, nearest_fp8, nearest_int8, scales_int8
from neurocompile.passes.compensate import compensate
from neurocompile.products import canonical, find_products, restored
from neurocompile.reference import reference_session
from neurocompile.targets.cpu.placement.formats import grid_of, quantise
from runtime.errors import UserError
from runtime.events import Recording
from runtime.front_ends import TokenDt, Window
from runtime.session import ScheduledSession
from runtime.trace import push_singly

NAME = "two_stages"


@pytest.fixture(scope="module")
def source(captured, stream) -> Source:
    recordings = (Recording(stream(captured(NAME), 500, seed), 20, 1, 1.0, f"made up {seed}") for seed in (1, 2))
    return Source(tuple(recordings), given=True)


@pytest.fixture(scope="module")
def seen(compiled, source) -> Calibration:
    program = compiled(NAME)
    return calibrate(program.spec, program.graphs, source)


def test_products_in_every_layout(graph):
    rng = np.random.default_rng(0)
    w = rng.normal(size=(5, 3)).astype(np.float32)
    model = graph(
        """stage (float[2,5] x, float[1,2,7] s)
          => (float[2,3] a, float[2,3] b, float[3,2] c, float[1,3,7] d, float[2,2] e) {
            a = MatMul (x, w)
            b = Gemm <transB = 1> (x, turned)
            t = Transpose <perm = [1, 0]> (x)
            c = MatMul (turned, t)
            d = Conv <kernel_shape = [3], pads = [1, 1]> (s, taps)
            e = MatMul (x, t)
        }""",
        w=w,
        turned=np.ascontiguousarray(w.T),
        taps=rng.normal(size=(3, 2, 3)).astype(np.float32),
    )
    products = find_products("stage", model)
    assert [product.node.op_type for product in products] == ["MatMul", "Gemm", "MatMul", "Conv"]
    assert len({product.key for product in products[:3]}) == 1
    for product in products[:3]:
        np.testing.assert_array_equal(product.matrix, w)
    assert products[2].inputs_axis == -2
    taps = products[3].weight.const_value.numpy()
    np.testing.assert_array_equal(products[3].matrix[:, 1], taps[1].ravel())
    for product in products:
        array = product.weight.const_value.numpy()
        made = restored(canonical(array, product.outputs_axis), array.shape, product.outputs_axis)
        np.testing.assert_array_equal(made, array)


def test_what_is_kept_of_inputs():
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(63, 5)) * [1, 2, 3, 0, 5]
    kept = Inputs(np.zeros(5), np.zeros((5, 5)))
    for begin in (0, 10, 40):
        kept.add(rows[begin : {0: 10, 10: 40, 40: 63}[begin]])
    assert kept.rows == 63
    assert kept.informative
    np.testing.assert_array_equal(kept.largest, np.abs(rows).max(0))
    np.testing.assert_allclose(kept.moments, rows.T @ rows, atol=1e-12)
    assert not Inputs(np.zeros(5), np.zeros((5, 5)), rows=19).informative


def test_the_inputs_of_a_running_program(compiled, source, seen, program):
    """Every input of one product, collected by hand from the float program, step by step with carried state."""
    stages = compiled(NAME)
    product = next(p for stage, model in stages.graphs.items() for p in find_products(stage, model))
    assert product.stage == "stage0.first"  # x_re and x_im of the first layer, read before the group is complete
    states = [name for name in next(s for s in stages.spec.stages if s.name == product.stage).reads if "x_" in name]
    rows = []
    for recording in source.recordings:
        session = reference_session(program(NAME))
        for number in range(len(recording.events)):
            push_singly(session, recording.events[number : number + 1])
            if session.items and (session.items - 1) % 4 == 0:
                rows.append(np.concatenate([session.state(name) for name in states]))
    found = seen.inputs[product.key]
    assert abs(found.rows - len(rows)) <= 2  # an item is complete with the event after it
    kept = np.array(rows)
    np.testing.assert_allclose(found.largest, np.abs(kept).max(0), rtol=0.02)
    np.testing.assert_allclose(np.diag(found.moments), np.square(kept).sum(0), rtol=0.02)


def test_it_is_deterministic_and_says_what_it_saw(compiled, source, seen):
    program = compiled(NAME)
    again = calibrate(program.spec, program.graphs, source)
    assert again.report == seen.report
    assert seen.report["events"] == 1000
    assert seen.report["source"] == ["made up 1", "made up 2"]
    for key, inputs in seen.inputs.items():
        assert np.array_equal(inputs.moments, again.inputs[key].moments)
        assert np.array_equal(inputs.largest, again.inputs[key].largest)
    keys = {p.key for stage, model in program.graphs.items() for p in find_products(stage, model)}
    assert set(seen.inputs) == keys
    chunk = program.spec.chunk.name
    stages = {p.key for stage, model in program.graphs.items() if stage != chunk for p in find_products(stage, model)}
    assert stages == keys  # the chunk has the same weights, in another layout


def test_stages_alone_are_looked_at_in_bulk_and_see_the_same(compiled, source, seen):
    program = compiled(NAME)
    found = calibrate(program.spec, program.graphs, source, stages_only=True)
    stages = [p for s in program.spec.stages for p in find_products(s.name, program.graphs[s.name])]
    assert set(found.inputs) == {product.key for product in stages}
    assert found.left_out(program.spec, program.graphs)
    for product in stages:
        one, other = found.inputs[product.key], seen.inputs[product.key]
        # The readout is asked for once in so many events; all else fires as often as event by event.
        assert one.rows == other.rows
        np.testing.assert_allclose(one.moments, other.moments, rtol=1e-3, atol=1e-4 * np.abs(other.moments).max())


def test_too_short_a_recording_is_refused(compiled, stream):
    program = compiled(NAME)
    short = Source((Recording(stream(program, 3), 20, 1, 1.0, "short"),), given=True)
    with pytest.raises(UserError, match=r"over 3 events never reached the product .*--calibrate"):
        calibrate(program.spec, program.graphs, short)
    with pytest.raises(UserError, match="not a single event"):
        calibrate(program.spec, program.graphs, Source((Recording(short.recordings[0].events[:0], 20, 1),), given=True))


def test_what_shipped_recordings_never_reach_may_be_left_out(compiled, stream):
    program = compiled(NAME)
    short = Source((Recording(stream(program, 3), 20, 1, 1.0, "short"),), given=False)
    with pytest.raises(UserError, match="never reached"):
        calibrate(program.spec, program.graphs, short)
    found = calibrate(program.spec, program.graphs, short, stages_only=True)
    left_out = found.left_out(program.spec, program.graphs)
    products = [p for s in program.spec.stages for p in find_products(s.name, program.graphs[s.name])]
    assert len(left_out) == len(products)
    assert any(line.endswith(": seen 0 times, 32 are needed for 8 channels") for line in left_out)
    assert not compensate(program, found)[1]


def test_windows_of_every_kth_event_are_reached(compiled, stream):
    """As many events are taken as whole windows need, also where a window skips events."""
    spec = replace(compiled(NAME).spec, front_end=Window(20, 1, 16, 4, every=3).to_json())
    events = stream(compiled(NAME), 3000)
    kept = _cut(spec, [Recording(events, 20, 1, 1.0, "long")] * 2)
    assert [len(recording.events) for recording in kept] == [3 * (16 + 7 * 4)] * 2


def test_shipped_recordings_fit_any_sensor():
    small = shipped_source(TokenDt("linear", 34, 34, "previous", 2312))
    assert len(small.recordings) == 10
    assert all("/train/" in recording.source and "mapped" not in recording.source for recording in small.recordings)
    large = shipped_source(TokenDt("linear", 128, 128, "previous", 32768))
    assert all("mapped from 34 x 34 to 128 x 128" in recording.source for recording in large.recordings)


def correlated(rows: int, channels: int, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.normal(size=(rows, channels // 3)) @ rng.normal(size=(channels // 3, channels))


@pytest.mark.parametrize("nearest", [nearest_int8, nearest_fp8])
def test_compensated_rounding_loses_less_on_other_inputs_too(nearest):
    rng = np.random.default_rng(0)
    x = correlated(4000, 63)
    matrix, moments = rng.normal(size=(63, 17)), x[:3000].T @ x[:3000]
    scales = scales_int8(matrix) if nearest is nearest_int8 else np.full(17, np.abs(matrix).max() / 448)
    numbers = compensated(matrix, moments, scales, nearest)
    plain = nearest(matrix / scales)
    assert np.array_equal(numbers, nearest(numbers))
    assert (loss(matrix, numbers * scales, moments) <= loss(matrix, plain * scales, moments)).all()
    others = x[3000:].T @ x[3000:]
    before, after = (np.sqrt(loss(matrix, n * scales, others).sum()) for n in (plain, numbers))
    assert 2 * after < before


def test_inputs_that_say_nothing_leave_the_nearest_numbers():
    matrix = np.random.default_rng(0).normal(size=(9, 4))
    scales = scales_int8(matrix)
    for moments in (np.zeros((9, 9)), np.eye(9)):
        assert np.array_equal(compensated(matrix, moments, scales, nearest_int8), nearest_int8(matrix / scales))


def test_nearest_fp8():
    wanted = [0.0, 448.0, -448.0, 448.0, 1.125, 2.0**-9, 0.0]
    assert nearest_fp8(np.array([0.0, 448, -1e9, 463, 1.1, 2.0**-9, 2.0**-11])).tolist() == wanted


def test_compensated_weights_survive_in_the_8_bit_format(compiled, seen, open_onnx, stream):
    """The grid is found again exactly, and the program comes out nearer to itself than with the nearest numbers."""
    program = compiled(NAME)
    rounded, changes = compensate(program, seen)
    chunk = program.spec.chunk.name
    products = [p for stage, model in rounded.graphs.items() for p in find_products(stage, model)]
    fits = [p for stage, model in program.graphs.items() for p in find_products(stage, model)]
    informative = [seen.inputs[p.key].informative for p in fits]
    assert len(changes) == sum(ok for ok, p in zip(informative, fits, strict=True) if p.stage != chunk) > 5
    for product, ok in zip(products, informative, strict=True):
        if ok:
            assert (grid_of(product.matrix) > 0).all()
            numbers, scales = quantise(product.matrix)
            np.testing.assert_allclose(numbers * scales, product.matrix, rtol=1e-6, atol=0)
    nearest = program.copy()
    for product, ok in zip(
        [p for stage, model in nearest.graphs.items() for p in find_products(stage, model)], informative, strict=True
    ):
        if ok:
            numbers, scales = quantise(product.matrix)
            array = restored(numbers * scales, tuple(product.weight.shape), product.outputs_axis)
            product.weight.const_value = ir.Tensor(array.astype(np.float32), name=product.weight.name)
    events = stream(program, 700, 9)
    deviation = {}
    exact = _states(open_onnx(program), events)
    for name, made in (("nearest", nearest), ("compensated", rounded)):
        found = _states(open_onnx(made), events)
        deviation[name] = np.mean([np.abs(found[key] - exact[key]).max() / np.abs(exact[key]).max() for key in exact])
    assert deviation["compensated"] < deviation["nearest"]


def _states(session: ScheduledSession, events) -> dict[str, np.ndarray]:
    push_singly(session, events)
    states = {state.name: session.state(state.name) for state in session.spec.states}
    return {name: value for name, value in states.items() if value.dtype == np.float32 and np.abs(value).max() > 1e-3}


def test_a_matrix_off_any_grid_has_none():
    rng = np.random.default_rng(0)
    matrix = rng.normal(size=(40, 6)).astype(np.float32)
    matrix[:, 2] = 0
    assert not grid_of(matrix).any()
    on = (rng.integers(-100, 101, (40, 6)) * np.float32(0.0137)).astype(np.float32)
    on[0] = 100 * np.float32(0.0137)
    np.testing.assert_allclose(grid_of(on), 0.0137, rtol=1e-6)
