from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from types import SimpleNamespace

import pytest
import torch

from benchmarks import gpu_check
from benchmarks.gpu_checks import OPS, Check, Skipped, Timing, diagonal_scan, largest_error, poisoned
from runtime.errors import GateError

LATER = float("inf")


def wall_clock(call):
    begin = time.perf_counter()
    call()
    return (time.perf_counter() - begin) * 1e3


def module_of(checks=(), timings=()):
    return SimpleNamespace(checks=lambda: iter(checks), timings=lambda: iter(timings))


def test_without_a_cuda_device_it_says_so_in_one_line():
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": ""}
    command = [sys.executable, "-m", "benchmarks.gpu_check"]
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 2
    assert done.stderr == "error: gpu_check needs a CUDA device, and torch finds none on this machine\n"
    assert done.stdout == ""


def test_an_unknown_op_is_a_usage_error_that_lists_the_known_ones(capsys):
    with pytest.raises(SystemExit) as stop:
        gpu_check.main(["no_such_op"])
    assert stop.value.code == 2
    assert "no_such_op" in (text := capsys.readouterr().err)
    assert all(op in text for op in OPS)


def crash():
    raise RuntimeError("illegal address\nsecond line")


def test_every_kind_of_failed_comparison_is_a_row(capsys):
    checks = [Check("good", 1e-3, lambda: 1e-4), Check("bad", 1e-3, lambda: 1e-2)]
    checks += [Check("nan", 1e-3, lambda: float("nan")), Check("crash", 1e-3, crash)]
    rows = gpu_check.run_checks("op", module_of(checks), LATER)
    assert [row["passed"] for row in rows] == [True, False, False, False]
    assert not any(row["skipped"] for row in rows)
    assert rows[3]["reason"] == "RuntimeError: illegal address"
    assert "1 of 4 comparisons passed, the closest at 10%" in capsys.readouterr().out


def test_what_does_not_fit_the_time_is_said_and_never_counts_as_passed():
    past = time.perf_counter() - 1
    check, timing = Check("late", 1.0, lambda: 0.0), Timing("p", "c", 1, lambda: lambda: None)
    (row,) = gpu_check.run_checks("op", module_of([check]), past)
    assert (row["passed"], row["reason"]) == (False, "out of time")
    (row,) = gpu_check.run_timings(module_of((), [timing]), past, 1.0, wall_clock)
    assert row["ms"] is None
    assert "out of time" in row["reason"]


@pytest.fixture
def pretended_device(monkeypatch):
    """Lets the command run to its end on a machine without CUDA; returns the modules it will find."""
    modules: dict[str, SimpleNamespace] = {}
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(gpu_check, "_machine", lambda: {"chip": "Test Chip", "torch": "0", "triton": "0"})
    monkeypatch.setattr(gpu_check, "_copy_bandwidth", lambda: 100.0)
    monkeypatch.setattr(gpu_check, "milliseconds", wall_clock)
    monkeypatch.setattr(gpu_check, "import_module", lambda name: modules[name.rpartition(".")[2]])
    return modules


def test_right_ops_are_timed_and_the_report_written(pretended_device, tmp_path, capsys):
    def absent():
        raise ModuleNotFoundError("No module named 'fla'")

    timings = [Timing("p", "ours", 1000, lambda: lambda: time.sleep(0.001)), Timing("p", "peer", 1000, absent)]
    pretended_device["diagonal_scan"] = module_of([Check("good", 1.0, lambda: 0.5)], timings)
    assert gpu_check.main(["diagonal_scan", "-o", str(tmp_path)]) == 0
    (path,) = tmp_path.glob("gpu_check_*_test_chip.json")
    report = json.loads(path.read_text())
    ours, peer = report["ops"]["diagonal_scan"]["timings"]
    assert ours["ms"] >= 1
    assert peer["reason"] == "ModuleNotFoundError: No module named 'fla'"
    assert "not measured: ModuleNotFoundError" in capsys.readouterr().out


def test_a_wrong_op_is_not_timed_and_the_exit_code_is_one(pretended_device, tmp_path, monkeypatch):
    monkeypatch.setenv("OUT", str(tmp_path))
    timing = Timing("p", "ours", 1, lambda: pytest.fail("a wrong op was timed"))
    pretended_device["diagonal_scan"] = module_of([Check("bad", 1e-3, lambda: 1.0)], [timing])
    assert gpu_check.main(["diagonal_scan"]) == GateError.exit_code == 1
    report = json.loads(next(tmp_path.glob("*.json")).read_text())
    assert report["ops"]["diagonal_scan"]["timings"] == []


def test_what_cannot_be_compared_here_is_skipped_with_its_reason_and_not_timed(pretended_device, tmp_path, capsys):
    def lacking():
        raise Skipped("no compiler")

    timing = Timing("p", "ours", 1, lambda: pytest.fail("what was not compared was timed"))
    pretended_device["diagonal_scan"] = module_of([Check("good", 1.0, lambda: 0.5), Check("c", 1.0, lacking)], [timing])
    assert gpu_check.main(["diagonal_scan", "-o", str(tmp_path)]) == 0
    result = json.loads(next(tmp_path.glob("*.json")).read_text())["ops"]["diagonal_scan"]
    assert [(row["passed"], row["skipped"]) for row in result["checks"]] == [(True, False), (False, True)]
    assert result["checks"][1]["reason"] == "no compiler"
    assert result["timings"] == []
    assert "diagonal_scan: 1 of 2 comparisons passed, 1 skipped, the closest at 50%" in capsys.readouterr().out


def test_errors_are_relative_and_what_cannot_be_compared_is_infinite():
    one = torch.tensor([1.0, 4.0], dtype=torch.float64)
    assert largest_error([one.float(), one + 0.4], [one, one]) == pytest.approx(0.1)
    assert largest_error([one * float("nan")], [one]) == float("inf")
    assert largest_error([one[:1]], [one]) == float("inf")
    with poisoned():
        assert torch.empty(3).isnan().all()
    assert torch.empty(0).numel() == 0


def test_the_checks_of_diagonal_scan_catch_a_wrong_kernel(monkeypatch):
    """Run on the CPU, where the same op takes another path: right as it is, red once a state is wrong."""
    monkeypatch.setattr(diagonal_scan, "DEVICE", "cpu")
    monkeypatch.setattr(diagonal_scan, "CHECKED", [(2, 1, 3), (1, 63, 5), (1, 200, 2)])
    rows = gpu_check.run_checks("diagonal_scan", diagonal_scan, LATER)
    assert len(rows) == 3 * 4 * 2
    assert [row for row in rows if not row["passed"]] == []

    def off_by_a_step(*inputs, right=diagonal_scan.diagonal_scan):
        re, im = right(*inputs)
        return re.roll(1, 1), im

    monkeypatch.setattr(diagonal_scan, "diagonal_scan", off_by_a_step)
    rows = gpu_check.run_checks("diagonal_scan", diagonal_scan, LATER)
    assert {row["name"] for row in rows if row["passed"]} == {row["name"] for row in rows if "(2, 1, 3)" in row["name"]}


def test_the_timings_of_diagonal_scan_run_or_say_why_not(monkeypatch):
    monkeypatch.setattr(diagonal_scan, "DEVICE", "cpu")
    monkeypatch.setattr(diagonal_scan, "TIMED", [(2, 40, 4)])
    monkeypatch.setattr(diagonal_scan, "_associative", lambda shape: pytest.skip("compiles for a device"))
    timings = [timing for timing in diagonal_scan.timings() if "associative" not in timing.contender]
    rows = gpu_check.run_timings(module_of((), timings), LATER, 1.0, wall_clock)
    own = [row for row in rows if "flash-linear-attention" not in row["contender"]]
    assert len(own) == 8
    assert all(row["ms"] > 0 for row in own)
    assert all(row["ms"] or row["reason"] for row in rows)
