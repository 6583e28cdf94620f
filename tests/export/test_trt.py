"""`neurocompile export --target trt-*` on a machine without TensorRT and GPU: all that is possible, and no more."""

from __future__ import annotations

import json
from pathlib import Path

import onnx
import pytest

from export.pipeline import export_model
from models import zoo
from neurocompile.targets.trt import rtx
from runtime.bundle import open_bundle


@pytest.mark.parametrize(
    ("dtype", "low"),
    [
        ("bf16", onnx.TensorProto.BFLOAT16),
        pytest.param("fp16", onnx.TensorProto.FLOAT16, marks=pytest.mark.slow),
    ],
)
def test_export_as_typed(run, refused, checkpoint, recording, tmp_path, dtype, low):
    out = tmp_path / "made.neuro"
    answer = run("export", "--model", checkpoint, "--target", f"trt-{dtype}", "-o", out, "-i", recording(700))
    assert answer.code == 0, answer.err
    table, built = answer.err.index(f"coverage of trt-{dtype} with TensorRT 11"), answer.err.index("prove parity")
    assert table < built
    for line in (
        "parity    proxy: ONNX Runtime ",
        "drift     deviation after so many events: 1: ",
        "remaining no engine was built: on the machine with its GPU and TensorRT 11, run ",
        "parser    ",
        f"; {dtype} torch itself ",
    ):
        assert line in answer.out
    bundle = open_bundle(out)
    bundle.verify_files()
    build, parity = bundle.manifest["build"], bundle.parity
    assert build["engines"] == "none built"
    assert parity["status"].startswith("proxy: ")
    assert 0 < parity["step"]["worst_relative"] <= parity["bound"]
    assert bundle.manifest["target"].items() >= {"backend": "trt", "tensorrt": "11", "capability": None}.items()
    for stage, path in bundle.manifest["graphs"].items():
        row = build["stages"][stage]
        assert row["native"] == row["nodes"] == sum(n for kinds in row["precision"].values() for n in kinds.values())
        assert row["plugins"] == {}
        graph = onnx.load_from_string(bundle.read(path)).graph
        kinds = {value.name: value.type.tensor_type.elem_type for value in (*graph.input, *graph.output)}
        assert low not in kinds.values()
        if not rtx.obstacle():
            assert "parsed and built for sm_86, sm_89, sm_120" in row["checked"][1]
    heavy = build["stages"]["chunk"]["precision"]
    assert {kind: set(heavy[kind]) for kind in ("Gemm", "Exp", "Div")} == {
        "Gemm": {dtype},
        "Exp": {"fp32"},
        "Div": {"fp32"},
    }
    for command in (("info", out),):
        assert run(*command).code == 0
    # What was not proved on its device runs nowhere before it is verified there, and here it cannot be.
    refused(run("verify", out), "runs on TensorRT, whose Python module cannot be imported here")


def test_the_kit_of_another_machine_is_refused_here(run, refused, checkpoint, recording, tmp_path):
    out = tmp_path / "made.neuro"
    typed = ("export", "--model", checkpoint, "--target", "trt-fp32@sm90", "--tensorrt", "10", "--json")
    answer = run(*typed, "-o", out, "-i", recording(700))
    assert (answer.code, answer.err) == (0, "")
    manifest = json.loads(answer.out)
    assert manifest["build"]["tensorrt"] == "10"
    assert "an sm_90 GPU and TensorRT 10" in manifest["build"]["remaining"]
    assert "Gelu" not in {kind for row in manifest["build"]["stages"].values() for kind in row["precision"]}
    listed = json.loads(run("targets", "--json").out)
    assert listed["trt-bf16"]["build"] == "can build"
    assert "tensorrt" in listed["trt-bf16"]["run"]
    old = run("export", "--model", checkpoint, "--target", "trt-fp8@jetson-orin")
    refused(old, "sm_87 cannot compute in fp8, sm_89 was the first; export for trt-int8@jetson-orin")
    given = ("--calibrate", recording(700), "--target", "trt-bf16")
    refused(
        run("export", "--model", checkpoint, *given),
        "--calibrate is for cpu-bf16, cpu-int8, trt-int8, trt-fp8, and 'trt-bf16' is none of them",
    )


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["bf16", "fp16"])
def test_the_shipped_model_does_not_drift_over_100_000_events(dtype, tmp_path):
    model = Path(zoo.__file__).with_name("nmnist_ssm.safetensors")
    parity = export_model(model, f"trt-{dtype}", tmp_path / "full.neuro", full=True).manifest["parity"]
    assert parity["events"] == 100_000
    by_event = {int(mark): value for mark, value in parity["step"]["relative_by_event"].items()}
    early = max(value for mark, value in by_event.items() if mark <= 25_000)
    late = max(value for mark, value in by_event.items() if mark >= 75_000)
    assert late <= 2 * early
    assert parity["labels"]["agreement"] >= 0.98
