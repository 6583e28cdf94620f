"""The scan benchmark prints a row per shape, and times nothing that is wrong."""

from __future__ import annotations

import pytest
import torch

from benchmarks import diagonal_scan as benchmark


@pytest.fixture(autouse=True)
def small(monkeypatch):
    monkeypatch.setattr(benchmark, "TORCH_SHAPES", [(2, 63, 5)])
    monkeypatch.setattr(benchmark, "ONNX_SHAPES", [(1, 11, 3)])
    monkeypatch.setattr(benchmark, "milliseconds", lambda call: (call(), 1.0)[1])


def test_both_tables_have_a_row_per_shape(capsys):
    assert benchmark.main(["--threads", "1"]) == 0
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("(")]
    assert [line.split(")")[0] for line in lines] == ["(2, 63, 5", "(1, 11, 3"]
    assert [line.count("1.0") for line in lines] == [4, 2]


def test_an_op_that_is_wrong_is_not_timed(monkeypatch, capsys):
    monkeypatch.setattr(benchmark, "diagonal_scan", lambda *given: benchmark.reference(*(1.001 * x for x in given)))
    assert benchmark.main(["--threads", "1"]) == 1
    captured = capsys.readouterr()
    assert "diagonal_scan is wrong" in captured.err and "(2, 63, 5)" not in captured.out


def test_a_nan_is_wrong():
    given = benchmark.inputs(1, 7, 3)
    states = [x.numpy() for x in benchmark.reference(*given)]
    benchmark.prove("the reference", states, given)
    states[1][0, 4, 1] = torch.nan
    with pytest.raises(benchmark.GateError, match="is wrong by nan"):
        benchmark.prove("a state", states, given)
