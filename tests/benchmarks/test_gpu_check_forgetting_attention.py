from __future__ import annotations

import time
from types import SimpleNamespace

import pytest
import torch

from benchmarks import gpu_check
from benchmarks.gpu_checks import OPS, forgetting_attention

LATER = float("inf")
SHAPES = [(2, 1, 2, 1, 8), (1, 63, 3, 1, 5), (1, 200, 4, 2, 8)]


@pytest.fixture(autouse=True)
def on_the_processor(monkeypatch):
    """Run on the CPU, where the same op takes another path."""
    monkeypatch.setattr(forgetting_attention, "DEVICE", "cpu")
    monkeypatch.setattr(forgetting_attention, "CHECKED", SHAPES)
    monkeypatch.setattr(forgetting_attention, "TIMED", [(1, 40, 2, 1, 8)])


def test_gpu_check_knows_the_op():
    assert "forgetting_attention" in OPS


def test_the_checks_pass_and_catch_a_wrong_kernel(monkeypatch, capsys):
    rows = gpu_check.run_checks("forgetting_attention", forgetting_attention, LATER)
    assert len(rows) == 3 * (3 * 3 + 1)
    assert [row for row in rows if not row["passed"]] == []

    def off_by_a_gate(q, k, v, log_f, right=forgetting_attention.ours):
        return right(q, k, v, log_f.roll(1, 1))

    monkeypatch.setattr(forgetting_attention, "ours", off_by_a_gate)
    rows = gpu_check.run_checks("forgetting_attention", forgetting_attention, LATER)
    # One position sees itself alone, whatever its gate; and a wrong kernel is at least always equally wrong.
    unmoved = {row["name"] for row in rows if "(2, 1, 2, 1, 8)" in row["name"] or "same bits" in row["name"]}
    assert {row["name"] for row in rows if row["passed"]} == unmoved


def test_a_kernel_that_depends_on_chance_is_caught(monkeypatch, capsys):
    def noisy(*given, right=forgetting_attention.ours):
        return right(*given) * (1 + 1e-5 * torch.rand(()))

    monkeypatch.setattr(forgetting_attention, "ours", noisy)
    rows = gpu_check.run_checks("forgetting_attention", forgetting_attention, LATER)
    assert not any(row["passed"] for row in rows if "same bits" in row["name"])


def test_the_timings_run_or_say_why_not(capsys):
    def wall_clock(call):
        begin = time.perf_counter()
        call()
        return (time.perf_counter() - begin) * 1e3

    module = SimpleNamespace(timings=forgetting_attention.timings)
    rows = gpu_check.run_timings(module, LATER, 1.0, wall_clock)
    assert {row["contender"] for row in rows} == {
        "ours", "flash-linear-attention", "blocked, plain torch", "torch SDPA, bias made", "torch SDPA, bias at hand",
        "reference",
    }  # fmt: skip
    own = [row for row in rows if row["contender"] != "flash-linear-attention"]
    assert [row for row in own if row["ms"] is None] == []
    assert all(row["ms"] or row["reason"] for row in rows)
