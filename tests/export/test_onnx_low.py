"""`neurocompile export --target onnx-bf16` and `onnx-fp16`: every family, proved by graphs that the processor runs."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from export.pipeline import export_model
from fake_onnxruntime import Fake
from models import zoo
from neurocompile.passes.stored import stored
from neurocompile.targets.onnx_low import PORTABLE, WIDE
from neurocompile.upcast import upcast
from runtime.backends import ort_device, ort_providers
from runtime.bundle import Bundle, open_bundle

LOW = {"bf16": onnx.TensorProto.BFLOAT16, "fp16": onnx.TensorProto.FLOAT16}


def check(bundle: Bundle, dtype: str) -> None:
    """What every bundle of these targets promises."""
    bundle.verify_files()
    assert bundle.parity["status"] == "proved"
    assert 0 < bundle.parity["step"]["worst_relative"] <= bundle.parity["bound"]
    own, device = bundle.graphs(), bundle.graphs(device=True)
    assert (own != device) == ("device_graphs" in bundle.manifest) == (dtype in PORTABLE)
    assert own.keys() == device.keys() == bundle.manifest["graphs"].keys()
    for stage, data in device.items():
        shipped = onnx.load_from_string(data)
        kinds = {value.type.tensor_type.elem_type for value in (*shipped.graph.input, *shipped.graph.output)}
        assert LOW[dtype] not in kinds
        assert not shipped.functions
        low = low_nodes(shipped, dtype)
        assert not low & WIDE[dtype]
        if dtype in PORTABLE:
            # The second form follows from the first, byte by byte; nothing in it but moves is in low precision.
            derived = upcast(ir.from_proto(shipped))
            stored(derived, dtype)
            assert ir.to_proto(derived).SerializeToString() == own[stage]
            assert low_nodes(onnx.load_from_string(own[stage]), dtype) <= {"Cast"}


def low_nodes(model: onnx.ModelProto, dtype: str) -> set[str]:
    """The operators whose results are in low precision."""
    typed = onnx.shape_inference.infer_shapes(model, strict_mode=True).graph
    kinds = {value.name: value.type.tensor_type.elem_type for value in typed.value_info}
    return {node.op_type for node in model.graph.node if LOW[dtype] in {kinds.get(name) for name in node.output}}


@pytest.mark.parametrize("dtype", ["bf16", pytest.param("fp16", marks=pytest.mark.slow)])
def test_export_as_typed_and_run_here(run, checkpoint, recording, tmp_path, dtype, monkeypatch):
    out, given = tmp_path / "made.neuro", recording(700)
    answer = run("export", "--model", checkpoint, "--target", f"onnx-{dtype}", "-o", out, "-i", given)
    assert answer.code == 0, answer.err
    for line in ("parity    proved over 700 events", "drift     deviation after so many", f"; {dtype} torch itself "):
        assert line in answer.out
    bundle = open_bundle(out)
    check(bundle, dtype)
    shipped = [onnx.load_from_string(data) for data in bundle.graphs(device=True).values()]
    for model in shipped:
        products = {node.op_type for node in model.graph.node} & {"MatMul", "Gemm"}
        assert products <= low_nodes(model, dtype)
    assert any(low_nodes(model, dtype) & {"MatMul", "Gemm"} for model in shipped)
    verdict = json.loads(run("verify", out, "--json").out)
    assert verdict["passed"]
    assert verdict["parity_at_export"] == "proved"
    verify_on_a_device(run, bundle, monkeypatch)


def verify_on_a_device(run, bundle: Bundle, monkeypatch) -> None:
    """On a stand-in of the CUDA provider, which rounds as the typed graphs do."""
    seen = []

    def as_run(graph: bytes) -> bytes:
        seen.append(graph)
        return ir.to_proto(upcast(ir.from_proto(onnx.load_from_string(graph)))).SerializeToString()

    for module in (ort_providers, ort_device):
        monkeypatch.setattr(module, "ort", Fake(as_run=as_run))
    verdict = json.loads(run("verify", bundle.root, "--provider", "cuda", "--json").out)
    assert (verdict["passed"], verdict["provider"]) == (True, "cuda")
    assert set(seen) == set(bundle.graphs(device=True).values())


def test_doctor_names_providers_and_their_limits(run):
    answer = run("doctor")
    assert answer.code == 0
    for words in ("onnxruntime cuda", "onnxruntime tensorrt", "note onnxruntime-gpu 1.31 is built for CUDA 13"):
        assert words in answer.out
    listed = {finding["what"] for finding in json.loads(run("doctor", "--json").out)}
    assert {"onnxruntime cuda", "onnxruntime tensorrt", "note"} <= listed


@pytest.mark.slow
def test_a_weight_beyond_fp16_is_refused_by_name(run, refused, checkpoint, tmp_path):
    from safetensors import safe_open
    from safetensors.numpy import save_file

    with safe_open(checkpoint, "numpy") as file:
        weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 -- no mapping
        header = file.metadata()
    weights["decoder.weight"] = weights["decoder.weight"] * np.float32(1e7)
    huge = tmp_path / "huge.safetensors"
    save_file(weights, huge, header)
    answer = run("export", "--model", huge, "--target", "onnx-fp16", "-o", tmp_path / "no.neuro")
    assert answer.code == 2
    assert "too large for fp16; export this model for bf16 or fp32" in answer.err.splitlines()[-1]
    assert not (tmp_path / "no.neuro").exists()


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["bf16", "fp16"])
@pytest.mark.parametrize("family", ["event_ssm_port", "event2vec", "event2vec_causal", "event_ssm"])
def test_every_family(family, dtype, request, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    options = {}
    shipped = Path(zoo.__file__).parent
    model = {
        "event2vec": shipped / "nmnist_event2vec.safetensors",
        "event2vec_causal": shipped / "nmnist_event2vec_causal.safetensors",
        "event_ssm": shipped / "nmnist_ssm.safetensors",
    }.get(family)
    if model is None:
        golden = request.getfixturevalue("golden")
        model = golden.folder / "event_ssm_port_tiny_model.pt"
        options["config"] = Path(shutil.copy(golden.folder / "event_ssm_port_tiny_config.json", tmp_path))
    made = export_model(model, f"onnx-{dtype}", tmp_path / "made.neuro", **options)
    bundle = open_bundle(made.path)
    assert bundle.program.family == family
    check(bundle, dtype)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["bf16", "fp16"])
def test_the_shipped_model_does_not_drift_over_100_000_events(dtype, tmp_path):
    model = Path(zoo.__file__).with_name("nmnist_ssm.safetensors")
    parity = export_model(model, f"onnx-{dtype}", tmp_path / "full.neuro", full=True).manifest["parity"]
    assert (parity["status"], parity["events"]) == ("proved", 100_000)
    by_event = {int(mark): value for mark, value in parity["step"]["relative_by_event"].items()}
    early = max(value for mark, value in by_event.items() if mark <= 25_000)
    assert max(value for mark, value in by_event.items() if mark >= 75_000) <= 2 * early
    assert parity["labels"]["agreement"] >= 0.98
