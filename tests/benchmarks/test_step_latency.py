"""The latency benchmark runs, reports every row it promises, and reports nothing for a session that is wrong."""

from __future__ import annotations

import json

import pytest

from benchmarks.step_latency import command, contestants, jax_loop, subject
from benchmarks.step_latency.peers import PEERS, Peer
from neurocompile.targets import cpu

pytestmark = pytest.mark.skipif(bool(cpu.availability().build), reason="no C compiler")
SHORT = ["--preset", "shd/tiny", "--events", "1100", "--rounds", "2", "--quick"]
FAST = ["onnxruntime io-binding", "onnxruntime run", "onnxruntime dense", "torch eager"]


@pytest.fixture(scope="module")
def tiny():
    """A small network on a short recording."""
    return subject.open_subject(None, "shd/tiny", 1100)


@pytest.fixture
def at_once(monkeypatch, tiny):
    """The command finds the network loaded and captured."""
    monkeypatch.setattr(command, "open_subject", lambda *arguments: tiny)


@pytest.fixture
def peers(monkeypatch):
    """One more peer, which is installed nowhere, and one that cannot run anything."""
    odd = [
        Peer("nobody", "no_such_package", "no-such-package", "ort_peers"),
        Peer("broken", "numpy", "numpy", "nothing"),
    ]
    monkeypatch.setattr(contestants, "PEERS", PEERS | {peer.name: peer for peer in odd})
    monkeypatch.setattr(command, "NAMES", (*command.NAMES, "nobody", "broken"))


def test_every_row_has_rates_percentiles_floor_and_error(at_once, peers, tmp_path, capsys):
    chosen = [*FAST, "AOTInductor", "nobody", "broken"]
    assert command.main([*SHORT, "--dtypes", "fp32", "--peers", *chosen, "-o", str(tmp_path)]) == 0
    report = json.loads((tmp_path / "step_latency.json").read_text())
    rows = {row["name"]: row for row in report["rows"]}
    assert list(rows) == ["cpu-fp32", "cpu-fp32 --smooth", *FAST]
    for row in rows.values():
        assert 0 < row["p50_ns"] <= row["p99_ns"] <= row["max_ns"] and row["events_per_second"] > 0
        assert sum(row["histogram"]["count"]) == 1100 and row["error"] < 0.1
    assert rows["onnxruntime dense"]["error"] < 1e-4
    assert rows["cpu-fp32 --smooth"]["delay_items"] > 0 and "stages" not in rows["cpu-fp32 --smooth"]
    assert report["absent"]["AOTInductor"].startswith("left out by --quick")
    assert report["absent"]["nobody"] == "not installed; pip install no-such-package"
    assert report["absent"]["broken"].startswith("cannot run the graphs: ModuleNotFoundError")

    ours = rows["cpu-fp32"]
    assert ours["error"] < 1e-4 and ours["floor_ns"] > 0 and ours["over_floor"] > 0
    item, group = ours["stages"]["stage0.item"], ours["stages"]["stage0.group"]
    # A row of 4 x 16 floats; five more layers of 16 x (32 + 32 + 16) multiply-adds, and the rest of the first.
    assert item["rows"] == 256 and item["every"] == 1 and item["firings"] == 1099
    assert group["multiply_adds"] > 6656 and group["fixed"] > 4 * 6656 and group["every"] == 32
    assert sum(kind["events"] for kind in ours["kinds"].values()) == 1100
    assert ours["ordinary"] == "stage0.item" and ours["kinds"]["stage0.item"]["events"] > 1000
    assert 0 < ours["gather_ns"] < 1e4

    assert [entry["sessions"] for entry in report["sessions"]["cpu-fp32"]] == [1, 16, 256]
    memory = report["session_memory"]
    assert memory["allocated_bytes"] is None or memory["allocated_bytes"] >= memory["session_bytes"]
    asked = {line["what"]: line["met"] for line in report["acceptance"]}
    assert asked["cpu-fp32 over onnxruntime on the same schedule"] is True
    text = (tmp_path / "step_latency.md").read_text()
    assert "rows of `stage0.item` by themselves" in text
    assert text.strip() in capsys.readouterr().out and "| nobody | not timed: not installed" in text
    assert (tmp_path / "step_latency.svg").stat().st_size > 10_000


def test_a_session_of_ours_beyond_its_bound_gets_no_speed(at_once, monkeypatch, capsys):
    monkeypatch.setitem(subject.BOUNDS, "fp32", 1e-12)
    assert command.main([*SHORT, "--dtypes", "fp32", "--smooth", "--peers"]) == 1
    captured = capsys.readouterr()
    assert "no speed is reported" in captured.err and "cpu-fp32" not in captured.out


def test_a_peer_beyond_its_bound_is_named_and_not_timed(tiny, monkeypatch, tmp_path):
    monkeypatch.setitem(subject.BOUNDS, "fp32", 1e-12)
    found, absent = contestants.open_peers(tiny, tmp_path, ["torch eager"], quick=False)
    assert not found and absent["torch eager"].startswith("fails the gate: a session in fp32 is off by")


def test_a_nan_passes_no_gate():
    import numpy as np

    good, bad = np.array([1.0, 2.0]), np.array([1.0, np.nan])
    assert subject.within(1e-6, "fp32", [(good, good)]) == 0
    with pytest.raises(subject.GateError, match="off by nan"):
        subject.within(1e-6, "fp32", [(good, good), (bad, good), (good, good)])


def test_too_short_a_recording_is_refused(capsys):
    assert command.main([*SHORT, "--events", "50", "--peers"]) == 2
    assert "give --events 104 or more" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["OpenVINO", "XLA (jax.jit)", "TVM"])
def test_other_stacks_pass_the_gate(name, tiny, tmp_path):
    if why := PEERS[name].missing():
        pytest.skip(why)
    found, absent = contestants.open_peers(tiny, tmp_path, [name], quick=True)
    assert not absent and [peer.name for peer in found] == [name]


def test_the_published_loop_is_the_network_on_every_chunk(tiny):
    if why := jax_loop.obstacle(tiny.checkpoint.model.config):
        pytest.skip(why)
    loop = jax_loop.JaxLoop(tiny)
    assert loop.error < 1e-4 and loop.tokens.shape == (4, 256)
    loop.round()
    calls, scan = loop.rows()
    assert calls["events_per_call"] == 256 and scan["events_per_call"] == 1024
    wrong = jax_loop.JaxLoop.__new__(jax_loop.JaxLoop)
    wrong.__dict__.update(loop.__dict__, dt=loop.dt * 1.01, _chunk=lambda w, t, d: loop._chunk(w, t, d / 1.01))
    with pytest.raises(subject.GateError, match="JAX online loop"):
        wrong._gate(tiny.checkpoint.model)
