"""`neurocompile export` for 8 bits and `cpu-bf16`: calibrated on given or shipped recordings, and said so."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

from export.pipeline import export_model
from models.checkpoint import Checkpoint, save_checkpoint
from models.event_ssm import EventSSM
from neurocompile.targets.trt import rtx
from runtime.bundle import open_bundle
from runtime.front_ends import TokenDt
from tests.export.conftest import CONFIG, SIDE

STORED = {"int8": onnx.TensorProto.INT8, "fp8": onnx.TensorProto.FLOAT8E4M3FN}


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory) -> Path:
    """A network just wide enough for products of 8 bits."""
    config = replace(CONFIG, d_model=16, d_ssm=16)
    with torch.random.fork_rng():
        torch.manual_seed(4)
        model = EventSSM(config).eval()
    front_end = TokenDt("linear", SIDE, SIDE, "previous", config.num_embeddings)
    path = tmp_path_factory.mktemp("models") / "narrow.safetensors"
    save_checkpoint(path, Checkpoint("event_ssm", model, config, front_end, ("a", "b", "c")))
    return path


@pytest.mark.parametrize("dtype", ["int8", pytest.param("fp8", marks=pytest.mark.slow)])
def test_tensorrt(run, checkpoint, recording, tmp_path, dtype):
    out = tmp_path / "made.neuro"
    given = [recording(900, name=f"{name}.npz") for name in "ab"]
    more = [text for path in given for text in ("--calibrate", path)]
    answer = run("export", "--model", checkpoint, "--target", f"trt-{dtype}", "-o", out, "-i", recording(700), *more)
    assert answer.code == 0, answer.err
    assert "calibrated on 1800 events of 2 given recordings (a.npz, ...)" in answer.err
    assert f"weighted products take operands in {dtype}; not:\n" in answer.err
    assert "  readout: decoder/MatMul: 16 inputs and 3 outputs are fewer than 16\n" in answer.err
    assert f"; {dtype} torch itself " in answer.out
    assert "drift     deviation after so many events: 1: " in answer.out
    bundle = open_bundle(out)
    bundle.verify_files()
    build, parity = bundle.manifest["build"], bundle.parity
    assert parity["status"].startswith("proxy: ONNX Runtime")
    assert 0 < parity["step"]["worst_relative"] <= parity["bound"]
    assert build["calibration"]["source"] == ["a.npz", "b.npz"]
    assert any(f"in {dtype}" in line and "error on the recording" in line for line in build["typed"])
    assert bundle.manifest["target"]["least_capability"] == (89 if dtype == "fp8" else 80)
    precisions = build["stages"]["stage0.first"]["precision"]
    assert precisions["MatMul"] == precisions["QuantizeLinear"] == {dtype: 1}
    assert set(build["stages"]["chunk"]["precision"]["Exp"]) == {"fp32"}
    graphs = {stage: onnx.load_from_string(bundle.read(path)) for stage, path in bundle.manifest["graphs"].items()}
    for stage in ("stage0.first", "chunk"):
        kinds = [tensor.data_type for tensor in graphs[stage].graph.initializer if len(tensor.dims) == 2]
        assert kinds.count(STORED[dtype]) >= 1
    if not rtx.obstacle():
        where = "sm_89, sm_120" if dtype == "fp8" else "sm_86, sm_89, sm_120"
        assert all(f"parsed and built for {where}" in row["checked"][1] for row in build["stages"].values())


@pytest.mark.parametrize("dtype", ["bf16", "int8"])
def test_c_library(run, checkpoint, recording, tmp_path, dtype):
    out = tmp_path / "made.neuro"
    arguments = ("export", "--model", checkpoint, "--target", f"cpu-{dtype}", "-o", out, "-i", recording(700))
    answer = run(*arguments, "--json")
    assert answer.code == 0, answer.err
    calibration = json.loads(answer.out)["build"]["calibration"]
    assert calibration["given"] is False
    assert calibration["recordings"] == 20
    assert 40_000 < calibration["events"] <= 80_000
    assert len(calibration["rounded"]) == 3
    assert calibration["nearest"] == []
    for line in calibration["rounded"]:
        before, after = (float(number) for number in line.rpartition("recording ")[2].split(" -> "))
        assert after < before
    assert np.isfinite(json.loads(answer.out)["parity"]["step"]["worst_relative"])


@pytest.mark.slow
@pytest.mark.parametrize(("target", "worst"), [("cpu-bf16", 7e-3), ("trt-fp16", 1e-3)])
def test_the_network_of_the_pytorch_derivative(golden, tmp_path, target, worst):
    """Each weight rounded to the nearest bfloat16 and the table too, C deviates by 1.3e-2 and leaves the bound."""
    model = golden.folder / "event_ssm_port_tiny_model.pt"
    config = Path(shutil.copy(golden.folder / "event_ssm_port_tiny_config.json", tmp_path))
    manifest = export_model(model, target, tmp_path / "made.neuro", config=config).manifest
    parity = manifest["parity"]
    assert parity["status"].startswith("proxy: ONNX Runtime" if target == "trt-fp16" else "proved")
    assert 0 < parity["step"]["worst_relative"] <= min(worst, parity["bound"])


def test_recordings_of_another_sensor_are_refused(run, refused, checkpoint, recording, tmp_path):
    wide = recording(700, side=64, name="wide.npz")
    arguments = ("export", "--model", checkpoint, "--target", "cpu-int8", "-o", tmp_path / "x.neuro", "--json")
    refused(run(*arguments, "--calibrate", wide), "64 x 64", "34 x 34")
    refused(run(*arguments, "--calibrate", tmp_path / "gone.npz"), "gone.npz")
    assert not (tmp_path / "x.neuro").exists()
