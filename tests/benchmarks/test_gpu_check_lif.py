from __future__ import annotations

import time
from types import SimpleNamespace

import pytest
import torch

from benchmarks import gpu_check
from benchmarks.gpu_checks import OPS, lif

LATER = float("inf")
SHAPES = [((1, 5), ()), ((8, 2, 33), (33,)), ((5, 2, 33), (5, 2, 33))]


@pytest.fixture(autouse=True)
def on_the_processor(monkeypatch):
    """Run on the CPU, where the same op takes another path."""
    monkeypatch.setattr(lif, "DEVICE", "cpu")
    monkeypatch.setattr(lif, "CHECKED", SHAPES)
    monkeypatch.setattr(lif, "TIMED", [(3, 100)])


def run():
    rows = gpu_check.run_checks("lif", lif, LATER)
    assert len(rows) == 4 * 3 * 4 * 2
    return rows


def test_gpu_check_knows_the_op():
    assert "lif" in OPS


def test_the_checks_pass_and_catch_a_wrong_kernel(monkeypatch, capsys):
    assert [row for row in run() if not row["passed"]] == []

    def off_by_a_step(x, decay, v, neuron, right=lif.lif):
        return right(x.roll(1, -1) + 0.01, decay, v, neuron)

    monkeypatch.setattr(lif, "lif", off_by_a_step)
    assert [row for row in run() if row["passed"]] == []


def test_a_product_and_a_sum_that_are_rounded_once_are_caught(monkeypatch, capsys):
    """What a fused multiply-add would do to the membranes."""

    def fused(x, decay, v, neuron, right=lif.lif):
        spikes, last = right(x.double(), decay.double(), v.double(), neuron)
        return spikes.to(x), last.to(v)

    monkeypatch.setattr(lif, "lif", fused)
    rows = [row for row in run() if "membranes" in row["name"] and row["name"].startswith("float32 (8, 2, 33)")]
    assert len(rows) == 4
    assert not any(row["passed"] for row in rows)


def test_the_timings_run_or_say_why_not(capsys):
    def wall_clock(call):
        begin = time.perf_counter()
        call()
        return (time.perf_counter() - begin) * 1e3

    rows = gpu_check.run_timings(SimpleNamespace(timings=lif.timings), LATER, 1.0, wall_clock)
    assert {row["contender"] for row in rows} == {
        "ours", "loop in torch", "SpikingJelly, torch", "SpikingJelly, triton", "SpikingJelly, cupy"
    }  # fmt: skip
    own = [row for row in rows if not row["contender"].startswith("SpikingJelly")]
    assert [row for row in own if row["ms"] is None] == []
    assert all(row["ms"] or row["reason"] for row in rows)


def test_a_peer_that_fires_otherwise_is_not_timed():
    given = lif.inputs((3, 50), (), torch.float32)
    with pytest.raises(ArithmeticError, match="other spikes"):
        lif._prove(torch.ones(3, 50), given)
