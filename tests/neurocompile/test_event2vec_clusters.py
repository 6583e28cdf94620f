"""Networks for clusters of events: intensities go through streams, graphs and compiled code as through the network."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from models.checkpoint import open_checkpoint
from models.event2vec import Event2Vec, Event2VecConfig
from networks import scattered
from neurocompile.capture import capture
from neurocompile.parity import prove, shortest
from neurocompile.passes import run_passes
from neurocompile.reference import reference_session
from neurocompile.sequences import fit_to_sensor, shipped_sequence
from neurocompile.targets import TargetSpec, build, cpu
from runtime.backends.native import NativeModel, NativeSession
from runtime.backends.ort import OrtExecutor
from runtime.errors import UserError
from runtime.events import Events, read_recording, write_recording
from runtime.front_ends import Window
from runtime.session import ScheduledSession
from train.event2vec.cluster import cluster
from train.event2vec.points import Points

CONFIG = Event2VecConfig(
    polarities=2, height=34, width=34, d_model=16, d_feedforward=24, nheads=4, n_layers=2, num_classes=3, intensity=True
)
FRONT_END = Window(34, 34, 60, 12, every=2, intensity=True)
COLUMNS = ("t", "x", "y", "p", "intensity")
compiled_only = pytest.mark.skipif(bool(cpu.availability().build), reason="no C compiler")


def make_model(config: Event2VecConfig = CONFIG) -> Event2Vec:
    return scattered(lambda: Event2Vec(config))


class Sessions:
    """A program on every backend that runs here."""

    def __init__(self, model, front_end, folder):
        self.program = model.stream_program(front_end, ("a", "b", "c"))
        self.graphs = run_passes(capture(self.program))[0]
        files = build(self.graphs, TargetSpec("cpu", "fp32")).files
        (folder / "libmodel.so").write_bytes(files["libmodel.so"])
        self.native = NativeModel(self.program.spec, folder / "libmodel.so", files["model.weights"])
        self.files = files

    def open(self, name, tick_us=1.0):
        if name == "reference":
            return reference_session(self.program, tick_us=tick_us)
        if name == "cpu":
            return NativeSession(self.program.spec, self.native, tick_us=tick_us)
        graphs = self.graphs.serialised()
        return ScheduledSession(self.program.spec, OrtExecutor(self.program.spec, graphs), tick_us=tick_us)


@pytest.fixture(scope="module")
def sessions(tmp_path_factory):
    return Sessions(make_model(), FRONT_END, tmp_path_factory.mktemp("clusters"))


def make_events(count: int, seed: int = 0) -> Events:
    rng = np.random.default_rng(seed)
    columns = (rng.integers(0, high, count) for high in (34, 34, 2))
    return Events(np.cumsum(rng.choice([1, 30, 700], count)), *columns, rng.integers(1, 9, count))


@compiled_only
@pytest.mark.parametrize("name", ["onnx", "cpu"])
def test_artefacts_are_proved_with_intensities(name, sessions):
    recording = fit_to_sensor(shipped_sequence(shortest(sessions.program.spec)), FRONT_END)
    assert set(recording.events.intensity) == set(range(1, 9)) and "made up" in recording.source
    parity = prove(sessions.program, lambda tick_us: sessions.open(name, tick_us), recording, "fp32")
    assert parity.report["status"] == "proved", parity.report["failure"]
    assert parity.trace.events.intensity is not None
    assert type(parity.trace).from_bytes(parity.trace.to_bytes()).events.intensity.tolist() == (
        parity.trace.events.intensity.tolist()
    )


@compiled_only
def test_a_published_network_for_clusters_answers_a_stream_as_offline(golden, tmp_path):
    checkpoint = open_checkpoint(
        golden.folder / "event2vec_tiny_intensity.ckpt",
        config={"P": 2, "H": 16, "W": 16, "intensity": True, "window": 40},
    )
    assert checkpoint.front_end.intensity
    file = golden.arrays("event2vec_tiny_intensity")
    rows = {name: file[name][0] for name in COLUMNS}
    logits = file["logits"][0]
    # Centres of clusters lie between pixels; a file of them is read to the nearest.
    np.savez(tmp_path / "clusters.npz", **rows)
    events = read_recording(tmp_path / "clusters.npz", size=(16, 16)).events
    made = Sessions(checkpoint.model, checkpoint.front_end, tmp_path)
    for name in ("reference", "onnx", "cpu"):
        session = made.open(name)
        assert session.push(events) == 1
        assert np.abs(session.readout() - logits).max() <= 2e-5, name


@compiled_only
def test_snapshots_carry_intensities_from_backend_to_backend(sessions):
    events = make_events(400)
    whole = sessions.open("onnx")
    whole.push(events)
    now = sessions.open("cpu")
    for begin, name in ((0, "onnx"), (131, "cpu"), (200, "onnx"), (337, "cpu")):
        end = {0: 131, 131: 200, 200: 337, 337: 400}[begin]
        for row in zip(*(getattr(events, column)[begin:end].tolist() for column in COLUMNS), strict=True):
            now.push_event(*row)
        then = sessions.open(name)
        then.restore(now.snapshot())
        now = then
    assert np.abs(now.readout() - whole.readout()).max() <= 1e-5
    assert now.items == whole.items > 10


@compiled_only
@pytest.mark.parametrize("name", ["reference", "onnx", "cpu"])
def test_events_without_intensity_count_as_one_and_others_do_not(name, sessions):
    events, one = make_events(200), np.ones(200, np.float32)
    answers = []
    for given in (replace(events, intensity=None), replace(events, intensity=one), events):
        session = sessions.open(name)
        session.push(given)
        answers.append(session.readout())
    assert np.array_equal(answers[0], answers[1])
    assert np.abs(answers[0] - answers[2]).max() > 1e-3


@compiled_only
@pytest.mark.parametrize("name", ["onnx", "cpu"])
def test_impossible_intensities_are_refused_and_change_nothing(name, sessions):
    session, events = sessions.open(name), make_events(150)
    session.push(events)
    before = session.readout()
    with pytest.raises(UserError, match="intensity holds numbers below 0"):
        session.push_event(10**9, 0, 0, True, -1.0)
    with pytest.raises(UserError, match="intensity holds numbers below 0"):
        session.push(Events([10**9], [0], [0], [0], [np.nan]))
    assert np.array_equal(session.readout(), before) and session.snapshot()["front_end"]["events"] == 150


@compiled_only
def test_networks_for_single_events_refuse_clusters(tmp_path):
    config = replace(CONFIG, intensity=False)
    made = Sessions(make_model(config), replace(FRONT_END, intensity=False), tmp_path)
    for name in ("reference", "cpu"):
        session = made.open(name)
        with pytest.raises(UserError, match="these events have intensities.*trained on single events"):
            session.push(make_events(3))
        with pytest.raises(UserError, match="these events have intensities"):
            session.push_event(1, 2, 3, True, 4.0)
    assert "c/clusters.h" not in made.files


@compiled_only
def test_the_header_of_clusters_is_c_that_compiles(sessions, tmp_path):
    for name in ("c/neurocompile.h", "c/clusters.h"):
        (tmp_path / name.removeprefix("c/")).write_bytes(sessions.files[name])
    source = (
        b'#include "clusters.h"\nint main(void) { return nc_push_cluster(0, 0, 0, 0, 0, 1.0f) != NC_ERROR_ARGUMENT; }'
    )
    (tmp_path / "main.c").write_bytes(source)
    cpu.system_compiler().run(
        "-std=c17", "-Wall", "-Werror", str(tmp_path / "main.c"), str(sessions.native.library._name), "-lm",
        f"-Wl,-rpath,{tmp_path}", "-o", str(tmp_path / "main"),
    )  # fmt: skip


def test_prepared_clusters_are_read_as_recordings(tmp_path):
    rng = np.random.default_rng(0)
    t = np.sort(rng.integers(0, 300_000, 900))
    made = cluster(Points(t, rng.integers(0, 34, 900), rng.integers(0, 34, 900), rng.integers(0, 2, 900)), 60, 34, 34)
    np.savez(tmp_path / "a.npy.npz", x=made.x, y=made.y, t=made.t, p=made.p, intensity=made.intensity)
    recording = read_recording(tmp_path / "a.npy.npz", size=(34, 34))
    events = recording.events
    assert events.intensity.sum() == 900 and len(events) == 60
    assert np.array_equal(events.x, np.rint(made.x)) and np.abs(events.t / 1e9 - made.t).max() <= 1e-9
    write_recording(tmp_path / "b.npz", recording)
    again = read_recording(tmp_path / "b.npz")
    assert np.array_equal(again.events.intensity, events.intensity) and np.array_equal(again.events.t, events.t)

    front_end = Window(34, 34, 60, 60, intensity=True)
    session = reference_session(make_model().stream_program(front_end))
    assert session.push(events) == 1
    model, columns = (
        make_model().double(),
        [torch.from_numpy(np.asarray(c, np.float64))[None] for c in (made.p, made.y)],
    )
    columns += [torch.from_numpy(np.asarray(c, np.float64))[None] for c in (made.x, made.t)]
    with torch.inference_mode():
        mask = torch.ones_like(columns[0], dtype=torch.bool)
        want = model(*columns, mask, torch.from_numpy(made.intensity.astype(np.float64))[None])[0].numpy()
    assert np.abs(session.readout() - want).max() <= 1e-5 * np.abs(want).max()
