from __future__ import annotations

import time
from types import SimpleNamespace

import pytest
import torch

from benchmarks import gpu_check
from benchmarks.gpu_checks import OPS, gated_linear_attention

LATER = float("inf")
SHAPES = [(1, 130, 4, 2, 8, 8), (1, 63, 3, 1, 5, 6), (2, 1, 2, 1, 8, 8)]


@pytest.fixture(autouse=True)
def on_the_processor(monkeypatch):
    """Run on the CPU, where the same op takes another path."""
    monkeypatch.setattr(gated_linear_attention, "DEVICE", "cpu")
    monkeypatch.setattr(gated_linear_attention, "CHECKED", SHAPES)
    monkeypatch.setattr(gated_linear_attention, "TIMED", [(1, 40, 2, 1, 8, 8)])


def run(capsys):
    rows = gpu_check.run_checks("gated_linear_attention", gated_linear_attention, LATER)
    assert len(rows) == 3 * (3 * 3 + 2)
    return rows


def test_gpu_check_knows_the_op():
    assert "gated_linear_attention" in OPS


def test_the_checks_pass_and_catch_a_wrong_kernel(monkeypatch, capsys):
    assert [row for row in run(capsys) if not row["passed"]] == []

    def off_by_a_gate(q, k, v, log_f, state, right=gated_linear_attention.ours):
        return right(q, k, v, log_f.roll(1, 1), 1.5 * state)

    monkeypatch.setattr(gated_linear_attention, "ours", off_by_a_gate)
    # A wrong kernel is at least always equally wrong.
    assert all(row["passed"] == ("same bits" in row["name"]) for row in run(capsys))


def test_a_kernel_that_forgets_the_state_or_depends_on_chance_is_caught(monkeypatch, capsys):
    right = gated_linear_attention.ours
    monkeypatch.setattr(gated_linear_attention, "ours", lambda *given: right(*given[:4], 0 * given[4]))
    assert not any(row["passed"] for row in run(capsys) if "same bits" not in row["name"])
    monkeypatch.setattr(
        gated_linear_attention, "ours", lambda *given: [r * (1 + 1e-5 * torch.rand(())) for r in right(*given)]
    )
    assert not any(row["passed"] for row in run(capsys) if "same bits" in row["name"])


def test_the_timings_run_or_say_why_not(capsys):
    def wall_clock(call):
        begin = time.perf_counter()
        call()
        return (time.perf_counter() - begin) * 1e3

    module = SimpleNamespace(timings=gated_linear_attention.timings)
    rows = gpu_check.run_timings(module, LATER, 1.0, wall_clock)
    assert {row["contender"] for row in rows} == {
        "ours", "flash-linear-attention", "flash, recurrent", "blocked, plain torch"
    }  # fmt: skip
    own = [row for row in rows if not row["contender"].startswith("flash")]
    assert [row for row in own if row["ms"] is None] == []
    assert all(row["ms"] or row["reason"] for row in rows)
