"""Event2Vec event by event: windows equal the network on the same events, as modules and as captured graphs."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from models.event2vec import Event2Vec, Event2VecConfig
from networks import scattered
from neurocompile.capture import capture
from neurocompile.graph_program import GraphProgram
from neurocompile.parity import WINDOWS, prove, shortest, window_ends
from neurocompile.passes import run_passes
from neurocompile.program import StreamProgram
from neurocompile.reference import reference_session
from runtime.backends.ort import OrtExecutor
from runtime.errors import UserError
from runtime.events import Events, Recording
from runtime.front_ends import Window
from runtime.session import ScheduledSession

CONFIG = Event2VecConfig(
    polarities=2, height=9, width=13, d_model=16, d_feedforward=24, nheads=4, n_layers=2, num_classes=3
)
FRONT_END = Window(13, 9, 140, 12)


def make_model(**changes) -> Event2Vec:
    return scattered(lambda: Event2Vec(replace(CONFIG, **changes)))


def make_events(count: int, seed: int = 0) -> Events:
    rng = np.random.default_rng(seed)
    t = 1_000_000_000 + np.cumsum(rng.choice([0, 0, 1, 30, 700], count))
    return Events(t, rng.integers(0, 13, count), rng.integers(0, 9, count), rng.integers(0, 2, count))


@pytest.fixture(scope="module", params=[0, 1], ids=["flat", "pooled"])
def program(request) -> StreamProgram:
    return make_model(pool_every_layer=request.param).stream_program(FRONT_END, ("a", "b", "c"))


@pytest.fixture(scope="module")
def captured(program) -> GraphProgram:
    return capture(program)


def open_onnx(graphs: GraphProgram, tick_us: float = 1.0) -> ScheduledSession:
    return ScheduledSession(graphs.spec, OrtExecutor(graphs.spec, graphs.serialised()), tick_us=tick_us)


def network(program: StreamProgram, events: Events) -> np.ndarray:
    """The network's own forward in float64 on some events."""
    model = make_model(pool_every_layer=int("backbone_net.0.norm.weight" in program.modules["window"].state_dict()))
    columns = [torch.from_numpy(np.asarray(getattr(events, name)).astype(np.int64))[None] for name in "pyxt"]
    with torch.inference_mode():
        return model.double()(*columns, torch.ones_like(columns[0], dtype=torch.bool))[0].numpy()


def test_every_firing_equals_the_network_on_that_window(program):
    events, session = make_events(260), reference_session(program)
    bias = session.readout().copy()
    np.testing.assert_array_equal(bias, program.modules["readout"].heads.bias.detach().double())
    answers = []
    for n, row in enumerate(zip(*(getattr(events, name).tolist() for name in "txyp"), strict=True), 1):
        made = session.push_event(*row)
        due = n >= 140 and (n - 140) % 12 == 0
        assert made == due and session.ready == (n >= 140)
        answer = session.readout()
        if due:
            answers.append(answer)
            assert np.abs(answer - network(program, events[n - 140 : n])).max() <= 1e-12
        else:
            np.testing.assert_array_equal(answer, answers[-1] if answers else bias)
    assert len(answers) == session.items == 11


@pytest.mark.parametrize("passes", [(), None], ids=["captured", "after the passes"])
def test_graphs_answer_like_the_network_under_any_split(program, captured, passes):
    graphs = captured if passes == () else run_passes(captured)[0]
    nodes = [node.op_type for node in graphs.graphs["window"].graph]
    assert nodes.count("ForgettingAttention") == 2
    session, reference, events = open_onnx(graphs), reference_session(program), make_events(400)
    rng, done = np.random.default_rng(1), 0
    while done < len(events):
        size = int(rng.integers(1, 90))
        assert session.push(events[done : done + size]) == reference.push(events[done : done + size])
        done += size
        scale = max(np.abs(reference.readout()).max(), 1.0)
        assert np.abs(session.readout() - reference.readout()).max() <= 1e-5 * scale
    snapshot, more = session.snapshot(), make_events(100, seed=2)
    more = Events(more.t + 10**9, more.x, more.y, more.p)
    session.push(more)
    other = open_onnx(graphs)
    other.restore(snapshot)
    other.push(more)
    np.testing.assert_array_equal(session.readout(), other.readout())


def test_parity_over_twenty_windows(program, captured):
    least = shortest(program.spec)
    assert window_ends(program.spec) == [140 + 12 * n for n in range(20)] and least == 140 + 12 * 19
    recording = Recording(make_events(least + 5), 13, 9, 1.0, "made up")
    proof = prove(program, lambda tick: open_onnx(captured, tick), recording, "fp32")
    assert proof.report["status"] == "proved", proof.report["failure"]
    assert proof.report["bound"] == 1e-4 and proof.report["offline"]["relative"] <= 1e-12
    compared = {int(mark) for mark in proof.report["step"]["relative_by_event"]}
    assert set(window_ends(program.spec)) <= compared
    # A bundle carries the first five windows.
    assert proof.trace.marks[-1] == len(proof.trace.events) == window_ends(program.spec)[4]
    short = Recording(make_events(least - 1), 13, 9, 1.0, "short")
    with pytest.raises(UserError, match=f"takes at least {least}"):
        prove(program, lambda tick: open_onnx(captured, tick), short, "fp32")


def test_parity_names_the_window_whose_answer_is_wrong(program, captured):
    class Late(ScheduledSession):
        """Answers wrongly from the twelfth window on."""

        def readout(self):
            return super().readout() + (0.1 if self.items >= 12 else 0)

    def start(tick: float) -> ScheduledSession:
        return Late(captured.spec, OrtExecutor(captured.spec, captured.serialised()), tick_us=tick)

    recording = Recording(make_events(400), 13, 9, 1.0, "made up")
    proof = prove(program, start, recording, "fp32")
    assert proof.report["status"] == "failed"
    assert "readout deviates by" in proof.report["failure"]
    assert f"first seen after {140 + 12 * 11} events" in proof.report["failure"]
    assert WINDOWS > 12


def test_the_published_network_in_windows_of_the_golden_events(shared):
    """The real network and the events of the golden case, 192 of them, through a session of its graphs."""
    from models.checkpoint import open_checkpoint

    checkpoint = open_checkpoint(shared / "golden/event2vec_dvs_gesture.ckpt")
    program = checkpoint.model.stream_program(Window(128, 128, 192, 16), checkpoint.labels)
    session = open_onnx(run_passes(capture(program))[0])
    with np.load(shared / "golden/event2vec_dvs_gesture.npz", allow_pickle=False) as file:
        inside = file["valid_mask_eff"][0]
        events = Events(*(file[name][0] for name in "txyp"))
        logits = file["logits"][0]
    assert inside.all()
    assert session.push(events) == 1
    assert np.abs(session.readout() - logits).max() <= 2e-5
    assert session.spec.labels[2] == "other_gestures"


def test_gates_that_are_nearly_open_or_shut_stay_exact_in_graphs():
    model = make_model()
    for layer in model.backbone_net.layers:
        layer.attention.attention.f_proj.bias.data = torch.tensor([14.0, -120.0, 2.0, 9.0])
    program = model.stream_program(FRONT_END)
    session, reference, events = open_onnx(capture(program)), reference_session(program), make_events(300)
    session.push(events)
    reference.push(events)
    assert np.abs(session.readout() - reference.readout()).max() <= 1e-5


def test_what_cannot_be_streamed_is_refused():
    with pytest.raises(UserError, match="takes clusters with intensities, but its front end single events"):
        make_model(intensity=True).stream_program(FRONT_END)
    with pytest.raises(UserError, match="140 events cannot be halved 3 times.*multiple of 8"):
        make_model(pool_every_layer=1, n_layers=3).stream_program(FRONT_END)
    with pytest.raises(UserError, match="13 x 9 pixels, but its front end has 2 and 20 x 9"):
        make_model().stream_program(Window(20, 9, 140, 12))
