"""The latency benchmark runs, reports every row it promises, and reports nothing for a session that is wrong."""

from __future__ import annotations

import json

import pytest

from benchmarks import step_latency
from neurocompile.targets import cpu

pytestmark = pytest.mark.skipif(bool(cpu.availability().build), reason="no C compiler")
SHORT = ["--preset", "shd/tiny", "--events", "600", "--rounds", "1", "--dtypes", "fp32", "int8"]


def test_every_row_has_rates_percentiles_floor_and_error(tmp_path, capsys):
    report = tmp_path / "report.json"
    assert step_latency.main([*SHORT, "-o", str(report)]) == 0
    table = json.loads(report.read_text())
    assert [row["name"] for row in table["rows"]] == ["cpu-fp32", "cpu-int8", "onnxruntime", "torch"]
    for row in table["rows"]:
        assert 0 < row["p50_ns"] <= row["p99_ns"] <= row["max_ns"] and row["events_per_second"] > 0
    compiled = table["rows"][0]
    assert compiled["error"] < 1e-4 and compiled["floor_ns"] > 0
    assert compiled["work"]["stage0.item"] == {"multiply_adds": 0, "bytes": 256, "every": 1.0, "between": 256}
    group = compiled["work"]["stage0.group"]
    assert group["multiply_adds"] == 6656 and group["bytes"] == 4 * 6656 and group["every"] == 32
    assert "cpu-int8" in capsys.readouterr().out


def test_a_session_beyond_its_bound_gets_no_speed(monkeypatch, capsys):
    monkeypatch.setitem(step_latency.BOUNDS, "fp32", 1e-12)
    assert step_latency.main([*SHORT, "--peers"]) == 1
    captured = capsys.readouterr()
    assert "no speed is reported" in captured.err and "cpu-fp32" not in captured.out
