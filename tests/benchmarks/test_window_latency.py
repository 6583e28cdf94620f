"""The benchmark of one window: its references are the op, clock and memory count what they say, it runs as typed."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from benchmarks.window_latency import command, hops, reference
from benchmarks.window_latency.memory import peak_bytes
from benchmarks.window_latency.table import markdown
from models.event2vec import attention
from neurocompile.ops.forgetting_attention.reference import forgetting_attention
from neurocompile.targets import cpu


@pytest.mark.parametrize("attend", [reference.materialised, reference.fused, reference.written_out])
@pytest.mark.parametrize(("heads", "keys"), [(2, 1), (4, 2), (1, 1)])
def test_what_we_are_compared_with_is_the_op(attend, heads, keys):
    draw = torch.Generator().manual_seed(0)
    shapes = [(2, 37, heads, 8), *[(2, 37, keys, 8)] * 2, (2, 37, heads)]
    q, k, v, gates = (torch.randn(shape, generator=draw) for shape in shapes)
    inputs = (q, k, v, torch.nn.functional.logsigmoid(gates + 2))
    wanted = forgetting_attention(*(value.double() for value in inputs))
    assert (attend(*inputs) - wanted).abs().max() <= 2e-6


def test_the_attention_is_put_back_even_after_an_error():
    before = attention.forgetting_attention
    with pytest.raises(RuntimeError, match="stop"), reference.attention_is(reference.fused):
        assert attention.forgetting_attention is reference.fused
        raise RuntimeError("stop")
    assert attention.forgetting_attention is before


def test_peak_memory_counts_what_a_call_touches():
    found = peak_bytes(lambda: np.ones(64 << 20, np.uint8).sum())
    if found is None:
        pytest.skip("this system does not tell")
    assert 60 << 20 <= found <= 100 << 20
    assert (peak_bytes(lambda: None) or 0) < 8 << 20


def test_gates_can_be_left_open():
    open_gates = command.network("asl_dvs", lambda bias: torch.full_like(bias, command.OPEN))
    usual = command.network("asl_dvs")
    for model, low, high in ((open_gates, 12, 12), (usual, -3, 7)):
        bias = model.backbone_net.layers[0].attention.attention.f_proj.bias
        assert low <= bias.min() and bias.max() <= high


@pytest.mark.slow
@pytest.mark.skipif(bool(cpu.availability().build), reason="no C compiler")
def test_it_runs_as_typed_and_writes_what_it_prints(tmp_path, capsys):
    arguments = ["--preset", "asl_dvs", "--events", "96", "--quick", "-o", str(tmp_path)]
    assert command.main(arguments) == 0
    report = json.loads((tmp_path / "window_latency.json").read_text())
    rows = report["lengths"][0]["rows"]
    assert {"cpu-fp32", "cpu-bf16", "ONNX Runtime", "eager, SDPA with mask"} <= rows.keys()
    assert all(row["error"] <= 3e-2 and len(row["seconds"]) == 2 for row in rows.values())
    text = (tmp_path / "window_latency.md").read_text()
    assert text == markdown(report) and text in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.skipif(bool(cpu.availability().build), reason="no C compiler")
def test_hops_are_timed_and_told(tmp_path, capsys):
    options = ["--windows", "64", "--hops", "4", "--rounds", "2", "--preset", "asl_dvs", "-o", str(tmp_path)]
    assert hops.main(options) == 0
    report = json.loads((tmp_path / "window_hops.json").read_text())
    (case,) = report["cases"]
    assert case["window"] == 64 and case["hop"] == 16 and set(case["rows"]) == set(hops.GATES)
    for row in case["rows"].values():
        assert all(len(row[name]["seconds"]) == 2 for name in hops.SCALES)
        work = [sum(row[name]["multiply_adds"].values()) for name in hops.SCALES]
        assert work[1] < work[0]
    assert "| 64 | 16 | ms, nothing forgotten |" in capsys.readouterr().out
