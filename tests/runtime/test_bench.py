from __future__ import annotations

import json
from itertools import count

import numpy as np
import pytest

from runtime.bench import __main__ as command
from runtime.bench import figures, loops
from runtime.bench.measure import Plan, measure
from runtime.bench.workload import Workload, arrivals, of_recording, shipped
from runtime.bundle import TRACE
from runtime.errors import UserError
from runtime.events import Events, Recording, write_recording
from runtime.open import open_session
from runtime.trace import Trace

pytest.importorskip("onnxruntime")
STEP = 100


@pytest.fixture
def ticking(monkeypatch):
    """A clock that moves on by `STEP` nanoseconds with every read."""
    reads = count()
    monkeypatch.setattr(loops, "clock", lambda: STEP * next(reads))


@pytest.fixture
def workload(make_events) -> Workload:
    return Workload(make_events(300), 1.0, "made up")


def bench_json(capsys, *arguments) -> dict:
    assert command.main([*map(str, arguments), "--events", "200", "--warmup", "50", "--json", "-"]) == 0
    return json.loads(capsys.readouterr().out)


def test_percentiles_are_nearest_ranks():
    taken = np.random.default_rng(0).permutation(np.arange(1, 100_001)) * 1000
    found = figures.latency(taken)
    assert found == {
        "events": 100_000,
        "p50_us": 50_000,
        "p90_us": 90_000,
        "p99_us": 99_000,
        "p99.9_us": 99_900,
        "max_us": 100_000,
        "mean_us": 50_000.5,
    }


@pytest.mark.parametrize(("samples", "known"), [(1, 1), (99, 1), (100, 2), (999, 2), (1000, 3), (9999, 3), (10_000, 4)])
def test_a_percentile_needs_samples_beyond_it(samples, known):
    found = figures.latency(np.arange(samples))
    assert [found[name] is not None for name in figures.QUANTILES] == [k < known for k in range(4)]


def test_no_samples():
    assert figures.latency(np.empty(0, np.int64))["max_us"] is None


def test_depth_keeps_the_kinds_apart(toy):
    items = np.array([-1, *range(24)])
    last = np.array([0, *[(1000 if k % 8 == 7 else 100 if k % 4 == 3 else 1) for k in range(24)]]) * 1000
    rows = figures.by_depth(loops.Timed(last, items), toy.spec)
    assert [(row["fires"], row["events"], row["max_us"]) for row in rows] == [
        (["item"], 18, 1.0),
        (["item", "group"], 3, 100.0),
        (["item", "group", "deep"], 3, 1000.0),
        ([], 1, 0.0),
    ]
    assert sum(row["share_of_time"] for row in rows) == pytest.approx(1)


def test_the_closed_loop_times_every_event_and_nothing_else(toy, toy_bundle, workload, ticking):
    sessions = [open_session(toy_bundle, use_chunk=False) for _ in range(2)]
    timed = loops.closed_loop(sessions, loops.rows_of(workload.events), 50, readout_every=3)
    late = int(toy.dt == "next")
    assert timed.taken.tolist() == [STEP] * 500
    assert timed.items.tolist() == [k - late for k in range(50, 300) for _ in sessions]
    for session in sessions:
        np.testing.assert_allclose(session.readout(), toy.simulate(workload.events)["readout"][-1], atol=1e-3)


def test_the_open_loop_counts_from_the_scheduled_arrival(toy_bundle, workload, ticking):
    """Each event takes two reads (200 ns) from its turn; arriving every 150 ns, each waits 50 ns more than the last."""
    due = np.arange(250) * 150
    timed = loops.open_loop(open_session(toy_bundle), loops.rows_of(workload.events), 50, due)
    first = timed.taken[0]
    np.testing.assert_array_equal(timed.taken - first, 50 * np.arange(250))
    np.testing.assert_array_equal(timed.taken - timed.waited, np.full(250, STEP))
    found = figures.queue(timed, due)
    assert found["largest_backlog_events"] >= 250 * 50 // 200 - 2
    assert found["offered_events_per_s"] == pytest.approx(1e9 / 150)


def test_an_open_loop_with_time_to_spare_waits_for_nothing(toy_bundle, workload, ticking):
    due = np.arange(250) * 10_000
    timed = loops.open_loop(open_session(toy_bundle), loops.rows_of(workload.events), 50, due)
    assert (timed.waited < STEP).all() and (timed.taken < 3 * STEP).all()
    assert figures.queue(timed, due)["largest_backlog_events"] == 0


def test_stages_are_counted_without_the_warm_up(toy, toy_bundle, workload):
    session = open_session(toy_bundle, use_chunk=False)
    taken, total = loops.by_stage(session, loops.rows_of(workload.events), 53, readout_every=10)
    late = int(toy.dt == "next")
    fired = {stage: len(spans) for stage, spans in taken.items()}
    groups = (300 - late) // 4 - (53 - late) // 4
    assert fired == {0: 247, 1: groups, 2: (300 - late) // 8 - (53 - late) // 8, 3: 24}
    rows = figures.by_stage(taken, toy.spec, 247, total)
    assert sum(row["share_of_time"] for row in rows["stages"]) + rows["outside_stages_share"] == pytest.approx(1)
    np.testing.assert_allclose(session.readout(), toy.simulate(workload.events)["readout"][-1], atol=1e-3)


def test_all_passes_of_a_benchmark(toy_bundle, workload):
    result = measure(toy_bundle, workload, Plan(50, batch=2, readout_every=5, rate=1e6))
    assert list(result.modes) == [
        "event by event",
        "event, answer every 5",
        "open loop, from scheduled arrival to answer",
        "bulk push, single steps",
        "bulk push, chunk form",
    ]
    assert len(result.raw["event by event"]) == 500 and len(result.raw["open loop"]) == 250
    assert result.stages and [row["stage"] for row in result.stages["stages"]] == ["item", "group", "deep", "answer"]
    json.dumps(result.to_json())


def test_workloads_have_the_asked_length_and_go_forward(make_events):
    short = Recording(make_events(70), 8, 8, source="short")
    made = of_recording(short, 200)
    assert len(made.events) == 200 and made.source == "short, 3 times over"
    assert (np.diff(made.events.t) >= 0).all()
    np.testing.assert_array_equal(made.events.x[70:140], short.events.x)
    assert of_recording(short, 70).source == "short"
    with pytest.raises(UserError, match="no events"):
        of_recording(Recording(Events.empty(), 8, 8), 10)


def test_the_shipped_workload_fits_any_sensor():
    own = shipped(500, {"width": 34, "height": 34})
    assert len(own.events) == 500 and "scaled" not in own.source
    small = shipped(500, {"width": 8, "height": 4})
    assert small.events.x.max() < 8 and small.events.y.max() < 4 and "scaled from 34 x 34 to 8 x 4" in small.source
    np.testing.assert_array_equal(own.events.t, small.events.t)


def test_arrivals(make_events):
    made = Workload(make_events(20), 0.5, "made up")
    np.testing.assert_array_equal(arrivals(made, 1e6, 5), np.arange(15) * 1000)
    np.testing.assert_array_equal(arrivals(made, "recorded", 5), (made.events.t[5:] - made.events.t[5]) * 500)


def test_the_command_reports_everything(toy_folder, capsys):
    report = bench_json(capsys, toy_folder, "--rate", "100000", "--batch", "1")
    assert report["setting"]["events"] == 200 and report["parity_here"] == "5 checks passed"
    assert "shipped N-MNIST" in report["input"] and report["machine"]["versions"]["onnxruntime"]
    assert report["clock_read_ns"] > 0 and report["queue"]["offered_events_per_s"] == pytest.approx(1e5, rel=1e-2)
    assert {tuple(row["fires"]) for row in report["modes"]["event by event"]["by_depth"]} >= {("item",)}


def test_files_beside_the_table(toy_folder, tmp_path, capsys):
    out, picture = tmp_path / "out.json", tmp_path / "out.png"
    arguments = [str(toy_folder), "--events", "200", "--warmup", "10", "--json", str(out), "--raw"]
    arguments += ["--plot", str(picture)] if pytest.importorskip("matplotlib") else []
    assert command.main(arguments) == 0
    printed = capsys.readouterr().out
    assert "p99.9" in printed and "clock read" in printed and "bulk push, chunk form" in printed
    report = json.loads(out.read_text())
    with np.load(tmp_path / "out.npz") as raw:
        taken = raw["event by event"]
    assert len(taken) == 200 and report["modes"]["event by event"]["max_us"] == taken.max() / 1000
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_a_recording_of_ones_own(toy_folder, make_events, tmp_path, capsys):
    write_recording(tmp_path / "own.npz", Recording(make_events(90), 8, 8))
    assert "own.npz, 3 times over" in bench_json(capsys, toy_folder, "-i", tmp_path / "own.npz")["input"]


def test_red_parity_means_no_figures(toy, tmp_path, make_events, capsys, monkeypatch):
    trace = toy.trace(make_events(200))
    wrong = Trace(trace.events, 1.0, trace.marks, trace.readouts + 1, trace.states, "wrong", trace.states_at)
    folder = toy.write(tmp_path / "toy.neuro", trace=wrong)
    monkeypatch.setattr(command, "measure", lambda *_: pytest.fail("timed a bundle whose parity is red"))
    out = tmp_path / "out.json"
    assert command.main([str(folder), "--json", str(out)]) == 1
    captured = capsys.readouterr()
    assert captured.out == "" and "does not compute here what was trained" in captured.err
    assert not out.exists()
    (folder / TRACE).unlink()
    assert command.main([str(folder)]) == 1


def test_usage(toy_folder, tmp_path, capsys):
    assert command.main([str(tmp_path / "none.neuro")]) == 2
    assert command.main([str(toy_folder), "--raw"]) == 2
    assert command.main([str(toy_folder), "--pin", "100000"]) == 2
    assert command.main([str(toy_folder), "--events", "10", "--json", str(tmp_path / "no" / "out.json")]) == 2
    for bad in (["--rate", "0"], ["--rate", "fast"], ["--batch", "0"], ["--events", "-1"], ["--warmup", "x"]):
        with pytest.raises(SystemExit) as caught:
            command.main([str(toy_folder), *bad])
        assert caught.value.code == 2
