"""Window programs compiled to C, and their loops in NumPy, against the float64 network and ONNX Runtime."""

from __future__ import annotations

import ctypes
import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from models.event2vec import Event2Vec, Event2VecConfig
from models.event2vec.presets import PRESETS
from networks import scattered
from neurocompile.capture import capture
from neurocompile.graph_program import GraphProgram
from neurocompile.lowering import LoopExecutor, lower
from neurocompile.lowering.loops import (
    Attention,
    Rows,
)
from neurocompile.passes import run_passes
from neurocompile.program import StreamProgram
from neurocompile.reference import reference_session
from neurocompile.targets import TargetSpec, cpu
from neurocompile.targets.cpu.placement.arena import plan
from neurocompile.targets.cpu.toolchains.compiler import find_compiler
from runtime.backends.native import NativeModel, NativeSession
from runtime.backends.ort import OrtExecutor
from runtime.errors import UserError
from runtime.events import Events
from runtime.front_ends import Window
from runtime.session import ScheduledSession

pytestmark = pytest.mark.skipif(bool(cpu.availability().build), reason="no C compiler")
CONFIG = Event2VecConfig(
    polarities=2, height=9, width=13, d_model=16, d_feedforward=24, nheads=4, n_layers=2, num_classes=3
)
CASES = {"flat": (111, 7, {}), "pooled": (140, 12, {"pool_every_layer": 1})}


def make_model(config: Event2VecConfig = CONFIG, **changes) -> Event2Vec:
    return scattered(lambda: Event2Vec(replace(config, **changes)))


def make_events(count: int, seed: int = 0, width: int = 13, height: int = 9, least: int = 0) -> Events:
    """Events over the whole sensor, pairs of them at the same time."""
    rng = np.random.default_rng(seed)
    gaps = least + rng.choice([0, 0, 1, 30, 700], count)
    gaps[1::2] += 1
    x, y = rng.integers(0, width, count), rng.integers(0, height, count)
    return Events(1_000_000_000 + np.cumsum(gaps), x, y, rng.integers(0, 2, count))


def graphs_of(program: StreamProgram) -> GraphProgram:
    return run_passes(capture(program))[0]


def compiled(graphs: GraphProgram, folder: Path, target: TargetSpec | None = None) -> NativeModel:
    files = cpu.build(graphs, target or TargetSpec("cpu", "fp32")).files
    for name, data in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    return NativeModel(graphs.spec, folder / "libmodel.so", files["model.weights"])


def open_onnx(graphs: GraphProgram) -> ScheduledSession:
    return ScheduledSession(graphs.spec, OrtExecutor(graphs.spec, graphs.serialised()))


@pytest.fixture(scope="module", params=CASES)
def case(request, tmp_path_factory):
    """(program, its graphs, its compiled model)."""
    folder = tmp_path_factory.mktemp(request.param)
    window, hop, changes = CASES[request.param]
    program = make_model(**changes).stream_program(Window(13, 9, window, hop), ("a", "b", "c"))
    graphs = graphs_of(program)
    model = compiled(graphs, folder)
    flags = ["-std=c17", "-Wall", "-Wextra", "-Werror", "-Wno-psabi", "-march=native", "-fsyntax-only", "-O0"]
    find_compiler().run(*flags, str(folder / "c" / "model.c"))  # without a warning
    return program, graphs, model


def assert_near(session, reference, tolerance: float = 2e-5) -> None:
    wanted = reference.readout()
    assert np.abs(session.readout() - wanted).max() <= tolerance * max(np.abs(wanted).max(), 1.0)


def test_any_split_answers_like_the_network_and_onnxruntime(case):
    program, graphs, model = case
    native, loops = (
        NativeSession(graphs.spec, model),
        ScheduledSession(graphs.spec, LoopExecutor(graphs.spec, lower(graphs))),
    )
    others = (reference_session(program), open_onnx(graphs), loops)
    bias = native.readout()
    np.testing.assert_allclose(bias, program.modules["readout"].heads.bias.detach(), atol=1e-6)
    window, hop = program.spec.front_end["window"], program.spec.front_end["hop"]
    events = make_events(window + 12 * hop)
    rng, done = np.random.default_rng(1), 0
    while done < len(events):
        size = int(rng.integers(1, 2 * window // 3 + 2))
        piece = events[done : done + size]
        made = native.push(piece)
        assert [other.push(piece) for other in others] == [made] * 3
        done = min(done + size, len(events))
        assert native.items == max(0, (done - window) // hop + 1) and native.ready == (done >= window)
        if done < window:
            np.testing.assert_array_equal(native.readout(), bias)
        for other in others:
            assert_near(native, other)
    assert native.items == 13


def test_single_events_fire_when_windows_are_complete(case):
    program, graphs, model = case
    single, bulk = NativeSession(graphs.spec, model), NativeSession(graphs.spec, model)
    window, hop = program.spec.front_end["window"], program.spec.front_end["hop"]
    events = make_events(window + 3 * hop + 1)
    for n, row in enumerate(zip(*(getattr(events, name).tolist() for name in "txyp"), strict=True), 1):
        assert single.push_event(*row) == (n >= window and (n - window) % hop == 0)
    bulk.push(events)
    np.testing.assert_array_equal(single.readout(), bulk.readout())
    bulk.reset()
    assert bulk.items == 0 and not bulk.ready
    bulk.push(events)
    np.testing.assert_array_equal(single.readout(), bulk.readout())


@pytest.mark.parametrize("events", [0, 1, 150, 171])
def test_snapshots_go_from_backend_to_backend(case, events):
    _, graphs, model = case
    before, after = make_events(events), make_events(90, seed=2)
    after = Events(after.t + 10**9, after.x, after.y, after.p)
    native, onnx = NativeSession(graphs.spec, model), open_onnx(graphs)
    for session in (native, onnx):
        session.push(before)
    snapshots = native.snapshot(), onnx.snapshot()
    assert snapshots[0].keys() == snapshots[1].keys() and snapshots[0]["counts"] == snapshots[1]["counts"]
    for part in ("front_end", "items"):
        for name, value in snapshots[0][part].items():
            np.testing.assert_array_equal(value, snapshots[1][part][name], err_msg=f"{part} {name}")
    native.push(after)
    for snapshot in snapshots:
        other = NativeSession(graphs.spec, model)
        other.push(make_events(33, seed=5))
        other.restore(snapshot)
        other.push(after)
        assert_near(other, native)
        onnx.restore(snapshot)
        onnx.push(after)
        assert_near(native, onnx)


def test_damaged_snapshots_are_refused_and_change_nothing(case):
    _, graphs, model = case
    session = NativeSession(graphs.spec, model)
    session.push(make_events(180))
    answer, good = session.readout(), session.snapshot()

    def damaged(part: str, **changes) -> dict:
        return {**good, part: {**good[part], **changes}}

    token, time = good["front_end"]["token"], good["front_end"]["time"]
    for bad in (
        damaged("front_end", token=np.full_like(token, 2 * 9 * 13)),
        damaged("front_end", time=time[::-1].copy()),
        damaged("front_end", token=token[1:]),
        damaged("items", token=np.full_like(good["items"]["token"], -1)),
        {**good, "front_end": {"events": 180}},
    ):
        with pytest.raises(UserError, match="another program"):
            session.restore(bad)
        np.testing.assert_array_equal(session.readout(), answer)
    size = model.info.snapshot_bytes
    raw = np.zeros(size, np.uint8)
    library = model.library
    library.nc_snapshot.argtypes = library.nc_restore.argtypes = (ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t)
    assert library.nc_snapshot(session._handle, raw.ctypes.data, size) == 0
    assert library.nc_restore(session._handle, raw.ctypes.data, size) == 0
    words = raw[: 8 * (size // 8)].view(np.int64)
    (at,) = np.flatnonzero(words == token[-1])[:1]
    words[at] = 10**6
    assert library.nc_restore(session._handle, raw.ctypes.data, size) == -9
    np.testing.assert_array_equal(session.readout(), answer)


def test_windows_without_a_time_scale_are_refused_and_not_taken(case):
    program, graphs, model = case
    size = program.spec.front_end["window"]
    still = Events(np.full(size, 7), *(np.zeros(size, np.int64),) * 3)
    session = NativeSession(graphs.spec, model)
    with pytest.raises(UserError, match=f"{size} events in a row have the same time t=7"):
        session.push(still)
    assert session.snapshot()["front_end"]["events"] == 0
    session.push(still[: size - 1])
    with pytest.raises(UserError, match="no time scale"):
        session.push_event(7, 0, 0, False)
    with pytest.raises(UserError, match="outside the model's"):
        session.push_event(8, 13, 0, False)
    with pytest.raises(UserError, match="earlier than the event before"):
        session.push(Events([6], [0], [0], [0]))
    assert session.items == 0 and session.push_event(8, 0, 0, False) == 1


@pytest.mark.parametrize("window", [2, pytest.param(49, marks=pytest.mark.slow)])
def test_windows_of_other_lengths(window, tmp_path):
    program = make_model(n_layers=1).stream_program(Window(13, 9, window, 5))
    graphs = graphs_of(program)
    native, reference = NativeSession(graphs.spec, compiled(graphs, tmp_path)), reference_session(program)
    events = make_events(window + 20, least=1)
    for row in zip(*(getattr(events, name).tolist() for name in "txyp"), strict=True):
        assert native.push_event(*row) == reference.push_event(*row)
        assert_near(native, reference)


@pytest.mark.slow
def test_gates_that_are_nearly_open_or_shut(tmp_path):
    model = make_model()
    for layer in model.backbone_net.layers:
        layer.attention.attention.f_proj.bias.data = torch.tensor([14.0, -120.0, 2.0, 9.0])
    program = model.stream_program(Window(13, 9, 140, 12))
    graphs = graphs_of(program)
    native, reference = NativeSession(graphs.spec, compiled(graphs, tmp_path)), reference_session(program)
    for session in (native, reference):
        session.push(make_events(300))
    assert_near(native, reference)


@pytest.mark.parametrize("case", ["pooled"], indirect=True)
def test_weights_in_bf16_stay_near_and_int8_is_refused(case, tmp_path):
    program, graphs, _ = case
    native = NativeSession(graphs.spec, compiled(graphs, tmp_path, TargetSpec("cpu", "bf16")))
    reference = reference_session(program)
    for session in (native, reference):
        session.push(make_events(200))
    assert_near(native, reference, 0.03)
    with pytest.raises(UserError, match="windows of events are compiled with weights in fp32 or bf16, not int8"):
        cpu.build(graphs, TargetSpec("cpu", "int8"))


def test_directions_are_read_in_place_and_places_are_shared(case):
    _, graphs, _ = case
    stage = lower(graphs).stages["window"]
    attentions = [s for s in stage.statements if isinstance(s, Attention)]
    assert {op.q.strides[0] > 0 for op in attentions} == {True, False}
    assert sum(isinstance(s, Rows) for s in stage.statements) == 1
    arena = plan(stage, 48)
    total = sum(4 * buffer.size for buffer in stage.locals)
    assert arena is not None and arena.size < 0.5 * total + 8 * 64 * len(stage.locals) + 30_000


MAIN = """
#include "neurocompile.h"
#include <stdlib.h>
int main(int argc, char **argv) {
    nc_info info; nc_model *model; nc_session *session;
    if (argc < 2 || nc_query(&info, sizeof info) || nc_model_open(argv[1], &model)) return 1;
    if (nc_session_open(model, 1.0, &session)) return 2;
    float *logits = malloc(4 * info.classes);
    unsigned char *snapshot = malloc(info.snapshot_bytes);
    unsigned seed = 1;
    int64_t t = 0, items = 0;
    for (int k = 0; k < 600; k++) {
        seed = seed * 1664525u + 1013904223u;
        t += seed >> 28;
        int made = nc_push(session, t, (int)((seed >> 8) % info.width), (int)((seed >> 16) % info.height), seed >> 31);
        if (made < 0) return 3;
        items += made;
        if (k == 300 && nc_snapshot(session, snapshot, info.snapshot_bytes)) return 4;
    }
    if (nc_restore(session, snapshot, info.snapshot_bytes)) return 5;
    if (nc_readout(session, logits, info.classes)) return 6;
    free(logits), free(snapshot), nc_session_close(session), nc_model_close(model);
    return items > 10 ? 0 : 7;
}
"""


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
@pytest.mark.parametrize(
    ("window", "time_scale"), [(50, None), (56, 1.5)], ids=["published", "attention taken over from hop to hop"]
)
def test_no_sanitizer_complains(dtype, window, time_scale, tmp_path):
    model = make_model(n_layers=1, pool_every_layer=1, time_scale=time_scale)
    program = model.stream_program(Window(13, 9, window, 7))
    compiled(graphs_of(program), tmp_path, TargetSpec("cpu", dtype))
    (tmp_path / "c" / "main.c").write_text(MAIN)
    flags = ("-O1", "-g", "-march=native", "-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-Wno-psabi")
    sources = [str(tmp_path / "c" / name) for name in ("main.c", "model.c")]
    find_compiler().run("-std=c17", *flags, *sources, "-o", str(tmp_path / "main"), "-lm")
    done = subprocess.run([str(tmp_path / "main"), str(tmp_path)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name, preset in PRESETS.items() if not preset.config.intensity])
def test_every_published_network_that_answers_streams(name, tmp_path):
    """Made-up weights, a shorter window."""
    config = PRESETS[name].config
    program = make_model(config, drop_path=0.0).stream_program(Window(config.width, config.height, 96, 32))
    graphs = graphs_of(program)
    native, reference = NativeSession(graphs.spec, compiled(graphs, tmp_path)), reference_session(program)
    rounded = reference_session(program, torch.float32)
    events = make_events(96 + 64, width=config.width, height=config.height)
    for session in (native, reference, rounded):
        session.push(events)
    wanted = reference.readout()
    own = np.abs(rounded.readout() - wanted).max()
    assert np.abs(native.readout() - wanted).max() <= max(2 * own, 2e-5 * np.abs(wanted).max())
