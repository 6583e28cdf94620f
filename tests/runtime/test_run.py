from __future__ import annotations

import json
import sys
import zipfile

import numpy as np
import pytest

from runtime import inputs, run
from runtime.answers import Interval, answers, parse_interval, suit
from runtime.errors import UserError
from runtime.events import Events, Recording, write_recording
from runtime.open import open_session

pytest.importorskip("onnxruntime")


@pytest.fixture
def recording(make_events) -> Recording:
    return Recording(make_events(300), 8, 8)


@pytest.fixture
def path(recording, tmp_path):
    write_recording(tmp_path / "some.npz", recording)
    return tmp_path / "some.npz"


@pytest.fixture
def labelled(make_events, tmp_path):
    """A folder of recordings under the names of classes, in two splits."""
    for number, place in enumerate(["train/a", "train/b", "test/a", "test/b", "test/c", "test/c"]):
        file = tmp_path / "set" / place / f"{number}.npz"
        file.parent.mkdir(parents=True, exist_ok=True)
        write_recording(file, Recording(make_events(120, number), 8, 8))
    return tmp_path / "set"


def run_json(capsys, *arguments) -> dict:
    assert run.main([*map(str, arguments), "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def expected_label(toy, events) -> str:
    return "abc"[int(toy.simulate(events)["readout"][-1].argmax())]


def test_answers_equal_the_simulation(toy, toy_bundle, recording):
    simulated = toy.simulate(recording.events)["readout"]
    rows = list(answers(open_session(toy_bundle), recording, Interval(7, "events")))
    assert [row.events for row in rows] == [*range(7, 300, 7), 300]
    for row in rows:
        logits = simulated[row.events - 1]
        weights = np.exp(logits - logits.max())
        assert row.label == "abc"[int(logits.argmax())]
        assert row.probability == pytest.approx(weights.max() / weights.sum(), abs=1e-4)
        assert row.margin == pytest.approx(np.diff(np.sort(logits))[-1], abs=1e-3)
        t = recording.events.t
        assert row.time_ms == pytest.approx((t[row.events - 1] - t[0]) / 1000)


def test_time_marks_count_the_events_before_them(toy_bundle):
    t = np.array([5000, 5100, 14_999, 15_000, 15_001, 80_000])
    zeros = np.zeros(6, np.int64)
    stream = Recording(Events(t, zeros, zeros, zeros == 0), 8, 8)
    rows = list(answers(open_session(toy_bundle), stream, Interval(10, "ms")))
    assert [(row.time_ms, row.events) for row in rows] == [(10.0, 3), (20.0, 5), (75.0, 6)]


def test_ticks_scale_time(toy_bundle, recording):
    events = recording.events
    halved = Recording(Events(events.t * 2, events.x, events.y, events.p), 8, 8, tick_us=0.5)
    one = list(answers(open_session(toy_bundle), recording, Interval(10, "ms")))
    two = list(answers(open_session(toy_bundle, tick_us=0.5), halved, Interval(10, "ms")))
    assert [row.to_json() for row in one] == [row.to_json() for row in two]


def test_a_session_begins_anew_with_every_recording(toy_bundle, recording):
    session = open_session(toy_bundle)
    first = [row.to_json() for row in answers(session, recording, None)]
    assert [row.to_json() for row in answers(session, recording, None)] == first


def test_warming_up_is_said(toy, toy_bundle, recording):
    rows = list(answers(open_session(toy_bundle), recording, Interval(1, "events")))
    late = int(toy.dt == "next")
    assert [row.ready for row in rows[:6]] == [row.events - late >= 4 for row in rows[:6]]


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("10ms", Interval(10, "ms")),
        ("0.5s", Interval(500, "ms")),
        ("250us", Interval(0.25, "ms")),
        ("1000", Interval(1000, "events")),
        ("1e3", Interval(1000, "events")),
    ],
)
def test_intervals(text, found):
    parsed = parse_interval(text)
    assert (parsed.size, parsed.unit) == (pytest.approx(found.size), found.unit)


@pytest.mark.parametrize("text", ["", "ms", "0", "-1", "1.5", "10 parsecs", "nan", "infms", "-2ms"])
def test_intervals_that_are_none(text):
    with pytest.raises(UserError, match="neither a time"):
        parse_interval(text)


@pytest.mark.parametrize("span_us", [1, 7, 999, 12_345, 300_000, 13_741_000])
def test_the_chosen_interval_is_round_and_gives_few_rows(toy_bundle, span_us):
    t = np.linspace(0, span_us, 500).astype(np.int64)
    zeros = np.zeros(500, np.int64)
    chosen = suit(Recording(Events(t, zeros, zeros, zeros == 0), 8, 8))
    assert chosen.unit == "ms" and span_us / 1000 / chosen.size <= 20.0001
    assert f"{chosen.size:.0e}"[0] in "125"


def test_one_recording(toy, toy_folder, path, recording, capsys):
    report = run_json(capsys, toy_folder, "-i", path, "--every", "50")
    (only,) = report["recordings"]
    assert only["final"]["label"] == expected_label(toy, recording.events)
    assert [answer["events"] for answer in only["answers"]] == [50, 100, 150, 200, 250, 300]
    assert report["accuracy"] == {}
    assert run.main([str(toy_folder), "-i", str(path)]) == 0
    out = capsys.readouterr().out
    assert "final" in out and "300 events" in out


def test_limit_is_reported(toy, toy_folder, path, recording, capsys):
    (only,) = run_json(capsys, toy_folder, "-i", path, "--limit", 99)["recordings"]
    assert only["final"]["events"] == 99
    assert only["final"]["label"] == expected_label(toy, recording.events[:99])
    assert only["adapters"] == [{"adapter": "limit", "events": 99, "of": 300}]


@pytest.mark.parametrize("packed", [False, True])
def test_accuracy_of_a_labelled_set(toy, toy_folder, labelled, make_events, capsys, packed):
    source = labelled
    if packed:
        source = labelled.with_suffix(".zip")
        with zipfile.ZipFile(source, "w") as archive:
            for file in labelled.rglob("*.npz"):
                archive.write(file, file.relative_to(labelled.parent))
            archive.writestr("set/index.csv", "not a recording")
    right = [expected_label(toy, make_events(120, n)) == label for n, label in enumerate("ababcc")]
    scores = run_json(capsys, toy_folder, "-i", source)["accuracy"]
    assert scores["train"]["correct"] == sum(right[:2]) and scores["train"]["recordings"] == 2
    assert scores["test"]["correct"] == sum(right[2:]) and scores["test"]["recordings"] == 4
    assert list(run_json(capsys, toy_folder, "-i", source, "--split", "test")["accuracy"]) == ["test"]
    assert len(run_json(capsys, toy_folder, "-i", source, "--samples", 3)["recordings"]) == 3
    assert run.main([str(toy_folder), "-i", str(source)]) == 0
    assert f"{sum(right[2:])} of 4 right" in capsys.readouterr().out


def test_another_sensor_is_refused_with_the_remedy(toy_folder, make_events, tmp_path, capsys):
    file = tmp_path / "large.npz"
    events = make_events(50)
    write_recording(file, Recording(Events(events.t, events.x * 20, events.y, events.p), 160, 120))
    assert run.main([str(toy_folder), "-i", str(file)]) == 2
    message = capsys.readouterr().err
    assert "160 x 120" in message and "8 x 8" in message and "--roi" in message and "--resize" in message
    (only,) = run_json(capsys, toy_folder, "-i", file, "--resize", "8x8")["recordings"]
    assert only["adapters"][0]["adapter"] == "resize"


def test_time_that_goes_back_is_refused_or_sorted(toy_folder, make_events, tmp_path, capsys):
    events = make_events(50)
    write_recording(tmp_path / "back.npz", Recording(events[::-1], 8, 8))
    assert run.main([str(toy_folder), "-i", str(tmp_path / "back.npz")]) == 2
    assert "--sort" in capsys.readouterr().err
    assert run.main([str(toy_folder), "-i", str(tmp_path / "back.npz"), "--sort"]) == 0


def test_what_holds_no_recording(toy_folder, tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    assert run.main([str(toy_folder), "-i", str(tmp_path / "empty")]) == 2
    assert "holds no recording" in capsys.readouterr().err
    assert run.main([str(toy_folder), "-i", str(tmp_path / "none.bin")]) == 2
    assert run.main([str(toy_folder), "-i", str(tmp_path / "none.bin"), "--every", "soon"]) == 2


def test_an_unproved_bundle_prints_nothing_but_the_reason(toy, tmp_path, path, capsys):
    folder = toy.write(tmp_path / "toy.neuro", parity={"status": "not run: no device"})
    assert run.main([str(folder), "-i", str(path)]) == 2
    captured = capsys.readouterr()
    assert captured.out == "" and "runtime.verify" in captured.err


def test_a_picture(toy_folder, path, tmp_path, capsys):
    pytest.importorskip("matplotlib")
    picture = tmp_path / "picture.png"
    assert run.main([str(toy_folder), "-i", str(path), "--plot", str(picture)]) == 0
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_a_picture_without_matplotlib(toy_folder, path, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert run.main([str(toy_folder), "-i", str(path), "--plot", str(tmp_path / "picture.png")]) == 2
    captured = capsys.readouterr()
    assert "pip install matplotlib" in captured.err and captured.out == ""


def test_confidence_intervals():
    assert run.interval(0, 10) == (0.0, pytest.approx(0.2775, abs=1e-3))
    assert run.interval(10, 10) == (pytest.approx(0.7225, abs=1e-3), 1.0)
    assert run.interval(76, 80) == (pytest.approx(0.878, abs=1e-3), pytest.approx(0.980, abs=1e-3))


def test_samples_are_spread_evenly():
    samples = [inputs.Sample(str(k)) for k in range(10)]
    assert [sample.path for sample in inputs.spread(samples, 4)] == ["0", "2", "5", "7"]
    assert inputs.spread(samples, None) == inputs.spread(samples, 99) == samples
