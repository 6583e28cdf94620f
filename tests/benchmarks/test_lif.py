"""The benchmark of spiking neurons prints a row per shape and reset, and times nothing that is wrong."""

from __future__ import annotations

import pytest

from benchmarks import lif as benchmark


@pytest.fixture(autouse=True)
def small(monkeypatch):
    monkeypatch.setattr(benchmark, "SHAPES", [(5, 63)])
    monkeypatch.setattr(benchmark, "milliseconds", lambda call: (call(), 1.0)[1])


def test_the_table_has_a_row_per_shape_and_reset(capsys):
    assert benchmark.main(["--threads", "1"]) == 0
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("(")]
    assert [line.split()[2] for line in lines] == ["soft", "hard"]
    assert [line.count("1.00") for line in lines] == [4, 4]


@pytest.mark.parametrize("wrong", [lambda op: lambda x, *rest: op(x + 0.01, *rest), lambda op: reset_elsewhere(op)])
def test_an_op_that_is_wrong_is_not_timed(wrong, monkeypatch, capsys):
    monkeypatch.setattr(benchmark, "lif", wrong(benchmark.lif))
    assert benchmark.main(["--threads", "1"]) == 1
    captured = capsys.readouterr()
    assert "lif is wrong" in captured.err
    assert "(5, 63)" not in captured.out


def reset_elsewhere(op):
    """Right forward, another gradient."""

    def changed(x, decay, v, neuron):
        return op(x, decay, v, benchmark.Neuron(v_reset=neuron.v_reset, alpha=3.0))

    return changed
