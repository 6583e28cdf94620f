"""The compiled backend on the toy program: the same session as every other, the same sentences, safe at its edges."""

from __future__ import annotations

import ctypes
from itertools import pairwise

import numpy as np
import pytest

from runtime.backends.native import NativeModel, NativeSession
from runtime.errors import UserError
from runtime.events import Events
from runtime.session import ScheduledSession
from toy_sessions import STATES, assert_refuses_snapshots_of_other_programs, assert_same, everything, push_singly

pytest.importorskip("onnx_ir")
COUNT = 1500


@pytest.fixture(scope="module")
def build(tmp_path_factory):
    """Compiles a toy; the folder of its library and weights."""
    import onnx
    import onnx_ir as ir

    from neurocompile.graph_program import GraphProgram
    from neurocompile.targets import TargetSpec, cpu

    if cpu.availability().build:
        pytest.skip(cpu.availability().build)

    def make(toy, dtype: str = "fp32"):
        graphs = {name: ir.from_proto(onnx.load_from_string(graph)) for name, graph in toy.graphs().items()}
        artefact = cpu.build(GraphProgram(toy.spec, graphs), TargetSpec("cpu", dtype))
        folder = tmp_path_factory.mktemp("native")
        for name, data in artefact.files.items():
            (folder / name).parent.mkdir(exist_ok=True)
            (folder / name).write_bytes(data)
        return folder

    return make


@pytest.fixture(scope="module")
def folder(toy, build):
    return build(toy)


@pytest.fixture(scope="module")
def model(toy, folder) -> NativeModel:
    return NativeModel(toy.spec, folder / "libmodel.so", (folder / "model.weights").read_bytes())


@pytest.fixture
def session(toy, model) -> NativeSession:
    return NativeSession(toy.spec, model)


@pytest.fixture(scope="module")
def events(make_events) -> Events:
    return make_events(COUNT)


@pytest.fixture(scope="module")
def expected(toy, events):
    return toy.simulate(events)


def assert_close(session, expected, row: int) -> None:
    for name, value in everything(session).items():
        scale = np.abs(expected[name]).max()
        np.testing.assert_allclose(value / scale, expected[name][row] / scale, atol=3e-6, err_msg=f"{name} at {row}")


def test_every_event_equals_the_simulation(session, events, expected):
    for k in range(COUNT):
        push_singly(session, events[k : k + 1])
        if k < 60 or k % 41 == 0 or k == COUNT - 1:
            assert_close(session, expected, k)


def test_any_split_equals_single_pushes_to_the_last_bit(toy, model, session, events):
    push_singly(session, events)
    other, rng = NativeSession(toy.spec, model), np.random.default_rng(0)
    edges = [0, *sorted(rng.integers(0, COUNT, 30).tolist()), COUNT]
    made = sum(other.push(events[a:b]) for a, b in pairwise(edges))
    assert made == other.items == session.items
    assert_same(session, other)


def test_reset_forgets_everything(toy, model, session, events):
    session.push(events)
    session.reset()
    assert session.items == 0
    assert_same(session, NativeSession(toy.spec, model))
    np.testing.assert_array_equal(session.state("peak"), np.full(4, -1, np.float32))


def test_snapshots_travel_between_backends(toy, model, session, events):
    ort = pytest.importorskip("onnxruntime")
    from runtime.backends.ort import OrtExecutor

    assert ort
    stock = ScheduledSession(toy.spec, OrtExecutor(toy.spec, toy.graphs()), use_chunk=False)
    session.push(events[:203])
    stock.restore(session.snapshot())
    for one in (session, stock):
        one.push(events[203:420])
    for name, value in everything(stock).items():
        np.testing.assert_allclose(value, everything(session)[name], rtol=1e-5, atol=1e-5, err_msg=name)
    third = NativeSession(toy.spec, model)
    third.restore(stock.snapshot())
    third.push(events[420:800])
    session.push(events[420:800])
    assert third.items == session.items
    for name, value in everything(third).items():
        np.testing.assert_allclose(value, everything(session)[name], rtol=1e-4, atol=1e-5, err_msg=name)


def test_a_snapshot_of_another_program_is_refused(session, events):
    session.push(events[:21])
    assert_refuses_snapshots_of_other_programs(
        session,
        lambda s: s["items"].update(token=np.int64(1 << 40)),
        lambda s: s["front_end"].update(pending=-1),
    )


@pytest.mark.parametrize(
    "bad", ["earlier", "outside x", "outside y", "negative", "huge", "too late", "hidden in a batch"]
)
def test_a_refused_event_says_the_front_ends_sentence_and_changes_nothing(toy, model, session, events, bad):
    untouched, words = NativeSession(toy.spec, model), toy.front.open()
    for one in (session, untouched, words):
        one.push(events[:101])
    t = int(events.t[100])
    rows = {
        "earlier": (t - 1, 0, 0, True),
        "outside x": (t, 8, 0, True),
        "outside y": (t, 0, 8, False),
        "negative": (t, -1, 0, False),
        "huge": (t, (1 << 32) + 1, 0, False),
        "too late": ((1 << 62) + 1, 0, 0, False),
    }
    if row := rows.get(bad):
        with pytest.raises(UserError) as found:
            session.push_event(*row)
        with pytest.raises(UserError) as wanted:
            words.push_event(*row)
    else:
        x = events.x[101:140].copy()
        x[20] = 9
        batch = Events(events.t[101:140], x, events.y[101:140], events.p[101:140])
        with pytest.raises(UserError) as found:
            session.push(batch)
        with pytest.raises(UserError) as wanted:
            words.push(batch)
    assert str(found.value) == str(wanted.value)
    assert_same(session, untouched)
    for one in (session, untouched):
        one.push(events[101:130])
    assert_same(session, untouched)


def test_sessions_share_weights_and_not_state(toy, model, make_events):
    streams = [make_events(200, seed) for seed in (1, 2, 3)]
    together, alone = [NativeSession(toy.spec, model) for _ in streams], NativeSession(toy.spec, model)
    for k in range(0, 200, 5):
        for one, stream in zip(together, streams, strict=True):
            push_singly(one, stream[k : k + 5])
    for one, stream in zip(together, streams, strict=True):
        alone.reset()
        push_singly(alone, stream)
        assert_same(one, alone)


def test_ticks_of_another_length(toy, model, events, expected):
    session = NativeSession(toy.spec, model, tick_us=0.5)
    session.push(Events(events.t * 2, events.x, events.y, events.p)[:200])
    assert_close(session, expected, 199)


def test_numpy_scalars_are_events_too(session, events):
    for k in range(3):
        session.push_event(events.t[k], events.x[k], events.y[k], events.p[k])
    assert session.snapshot()["front_end"]["events"] == 3


def test_weights_that_do_not_belong_are_refused(toy, folder, build):
    library, weights = folder / "libmodel.so", bytearray((folder / "model.weights").read_bytes())
    for damaged in (weights[:-1], b"", b"x" + weights[1:], weights[:10] + b"?" + weights[11:]):
        with pytest.raises(UserError, match="weights are damaged or belong to another library"):
            NativeModel(toy.spec, library, bytes(damaged))
    with pytest.raises(UserError, match="cannot be loaded"):
        NativeModel(toy.spec, folder / "c" / "model.c", bytes(weights))


def test_a_manifest_of_another_program_is_refused(toy, folder):
    from dataclasses import replace

    spec = replace(toy.spec, states=(replace(toy.spec.states[0], shape=(5,)), *toy.spec.states[1:]))
    with pytest.raises(UserError, match="another program than the manifest's"):
        NativeModel(spec, folder / "libmodel.so", (folder / "model.weights").read_bytes())


def test_every_function_refuses_nonsense_without_dying(model, session):
    library, handle = model.library, session._handle
    none, number = ctypes.c_void_p(), ctypes.c_uint32
    buffer = (ctypes.c_char * 4096)()
    argument, size, snapshot = -1, -5, -9
    assert library.nc_query(None, 0) == argument
    assert library.nc_describe_state(99, None) == argument
    assert library.nc_push(none, 0, 0, 0, 0) == argument
    assert library.nc_push_many(handle, 1, None, None, None, None) == argument
    assert library.nc_push_many(handle, 0, None, None, None, None) == 0
    assert library.nc_readout(handle, buffer, 2) == size
    assert library.nc_get_state(handle, 0, buffer, 15) == size
    assert library.nc_set_state(handle, 99, buffer, 16) == argument
    assert library.nc_snapshot(handle, buffer, ctypes.c_size_t(7)) == size
    full = int(model.info.snapshot_bytes)
    room = (ctypes.c_char * full)()
    assert library.nc_restore(handle, room, ctypes.c_size_t(full)) == snapshot
    assert library.nc_snapshot(handle, room, ctypes.c_size_t(full)) == 0
    assert library.nc_restore(handle, room, ctypes.c_size_t(full)) == 0
    place = ctypes.c_void_p()
    assert library.nc_session_open(model.handle, ctypes.c_double(float("nan")), ctypes.byref(place)) == argument
    assert library.nc_session_open(model.handle, ctypes.c_double(-1), ctypes.byref(place)) == argument
    assert library.nc_message(-12345) == b"unknown error"
    assert number(model.info.states).value == len(STATES)


def test_bfloat16_and_8_bits_stay_near(toy, build, events, expected):
    for dtype, tolerance in (("bf16", 0.02), ("int8", 0.02)):
        folder = build(toy, dtype)
        model = NativeModel(toy.spec, folder / "libmodel.so", (folder / "model.weights").read_bytes())
        session = NativeSession(toy.spec, model)
        session.push(events[:400])
        for name, value in everything(session).items():
            scale = np.abs(expected[name]).max()
            np.testing.assert_allclose(value / scale, expected[name][399] / scale, atol=tolerance, err_msg=name)
