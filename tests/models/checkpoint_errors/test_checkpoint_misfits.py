"""Weights, configurations and headers that do not belong together are refused in one sentence."""

from __future__ import annotations

import json
import sys

import pytest
import torch
from safetensors.torch import save_file

from models.checkpoint import open_checkpoint, save_checkpoint
from models.config_file import nearby

SHD = "event_ssm_shd_tiny_ckpt"


# Weights against configuration


def test_weights_that_do_not_fit(golden, refusal):
    path = golden.folder / SHD
    refusal(
        path,
        str(path),
        "params/encoder/encoder/embedding is (700, 16) instead of (700, 64)",
        preset="ssc/small",
    )
    config = golden.json("event_ssm_shd_tiny_config")
    config["model"]["ssm"]["d_ssm"] = 32
    refusal(path, "S5SSM_0/Lambda_re is (16,) instead of (32,)", config=config)
    config = golden.json("event_ssm_shd_tiny_config")
    config["data"]["num_classes"] = 10
    refusal(path, "params/decoder/kernel is (16, 20) instead of (16, 10)", config=config)


def test_our_own_names_are_checked_the_same(tmp_path, state, refusal):
    state["stages.0.2.gate.bias"] = torch.ones(3)
    torch.save(state, tmp_path / "m.pt")
    refusal(tmp_path / "m.pt", "stages.0.2.gate.bias is (3,) instead of (16,)", preset="shd/tiny")
    refusal(tmp_path / "m.pt", "shapes of no published preset")


def test_the_derivatives_weights_are_checked(golden, tmp_path, refusal):
    table = torch.load(golden.folder / "event_ssm_port_tiny_model.pt", weights_only=True)
    config = golden.json("event_ssm_port_tiny_config")
    table["state_dict"]["decoder.bias"][2] = torch.nan
    torch.save(table, tmp_path / "m.pt")
    refusal(tmp_path / "m.pt", "decoder.bias in checkpoint", "NaN", config=config)
    del table["state_dict"]["encoder.stages.0.layers.1.gate.bias"]
    table["state_dict"]["decoder.bias"] = torch.zeros(6)
    torch.save(table, tmp_path / "m.pt")
    refusal(tmp_path / "m.pt", "encoder.stages.0.layers.1.gate.bias missing", config=config)
    refusal(tmp_path / "m.pt", "no presets of the PyTorch derivative exist", preset="shd/tiny")


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16, torch.complex64, torch.int32])
def test_wrong_dtypes(tmp_path, state, dtype, refusal):
    state["decoder.bias"] = state["decoder.bias"].to(dtype)
    save_file({k: v.contiguous() for k, v in state.items()}, tmp_path / "m.safetensors")
    name = str(dtype).removeprefix("torch.")
    refusal(tmp_path / "m.safetensors", f"is {name}, but the model holds float32", "decoder.bias")


def test_sparse_weights(tmp_path, state, refusal):
    state["decoder.weight"] = state["decoder.weight"].to_sparse()
    torch.save(state, tmp_path / "m.pt")
    refusal(tmp_path / "m.pt", "decoder.weight", "is sparse or quantised")


# Configurations


def test_configurations_that_cannot_be_used(golden, tmp_path, refusal):
    path = golden.folder / SHD
    refusal(path, "give one of them", preset="shd/tiny", config={})
    refusal(path, "preset 'shd/huge' does not exist; choose one of dvs/small", preset="shd/huge")
    refusal(path, "no.json cannot be read", config=tmp_path / "no.json")
    refusal(path, "cannot be read: Is a directory", config=tmp_path)
    for content, words in (
        (b"{", "is not valid JSON"),
        (b"[1]", "holds a list"),
        (b"\xff\xfe", "is not text"),
        (b"{}", "has no model section"),
        (b'{"model": {"ssm": {}}}', "model.ssm_init is missing"),
        (b'{"model": 3}', "model.ssm_init is missing"),
        (b'{"family": "event_ssm_port", "config": {}}', "is for 'event_ssm_port' but the weights are event_ssm"),
        (b"[" * 100000, "c.json"),
    ):
        (tmp_path / "c.json").write_bytes(content)
        refusal(path, words, config=tmp_path / "c.json")
    table = golden.json("event_ssm_shd_tiny_config")
    for change, words in (
        ({"num_classes": "many"}, "num_classes is 'many'"),
        ({"resolution": [701]}, "makes 701 tokens, but the model has 700"),
        ({"resolution": [20, 20]}, "makes 800 tokens, but the model has 700"),
        ({"resolution": 700}, "it must be [channels] or [width, height]"),
        ({"resolution": [0]}, "it must be [channels] or [width, height]"),
        ({"labels": ["a"]}, "1 class names do not fit 20 classes"),
    ):
        refusal(path, words, config={**table, "data": {**table["data"], **change}})
    refusal(path, "data is 3", config={**table, "data": 3})
    table["data"] = {}
    table["model"]["ssm"]["d_model"] = "16"
    refusal(path, "d_model is '16'", config=table)


def test_an_unknown_sensor_must_be_told(golden, refusal):
    table = golden.json("event_ssm_port_tiny_config")
    del table["data"]["resolution"]
    refusal(golden.folder / "event_ssm_port_tiny_model.pt", "add data.resolution", config=table)


def test_yaml_that_is_none(golden, tmp_path, monkeypatch, refusal):
    (tmp_path / "c.yaml").write_text("a: [1\nb: }")
    refusal(golden.folder / SHD, "is neither JSON nor YAML", config=tmp_path / "c.yaml")
    monkeypatch.setitem(sys.modules, "yaml", None)
    refusal(golden.folder / SHD, "needs the package PyYAML", config=tmp_path / "c.yaml")


def test_our_files_keep_their_own_configuration(golden, tmp_path, refusal):
    save_checkpoint(tmp_path / "m.safetensors", open_checkpoint(golden.folder / SHD))
    refusal(tmp_path / "m.safetensors", "carries its own configuration", preset="shd/tiny")
    refusal(tmp_path / "m.safetensors", "carries its own configuration", config={"model": {}})


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"schema": 2}, "was written by a later version (schema 2"),
        ({"schema": None}, "lacks a valid 'schema'"),
        ({"family": "event_transformer"}, "family 'event_transformer', which this version does not know"),
        ({"labels": 3}, "lacks a valid 'labels'"),
        ({"labels": ["a"]}, "1 class names do not fit 20 classes"),
        ({"labels": list(range(20))}, "20 class names do not fit 20 classes; "),
        ({"front_end": {"kind": "bins"}}, "front end 'bins' is unknown"),
        ({"front_end": {"kind": "token_dt", "rules": 3}}, "front end token_dt cannot be read"),
        ({"config": {"d_model": 3}}, "is missing"),
        ({"config": {"colour": 3}}, "colour is not known"),
    ],
)
def test_headers_that_make_no_sense(golden, tmp_path, state, change, words, refusal):
    table = json.loads(open_checkpoint(golden.folder / SHD).header.to_text())
    save_file(state, tmp_path / "m.safetensors", {"neurocompile": json.dumps({**table, **change})})
    refusal(tmp_path / "m.safetensors", words, "m.safetensors")


def test_headers_that_are_no_json(tmp_path, state, refusal):
    for text in ("{", "[]", "3", "[" * 100000):
        save_file(state, tmp_path / "m.safetensors", {"neurocompile": text})
        refusal(tmp_path / "m.safetensors", "the description inside", "m.safetensors")


def test_a_huge_configuration_is_refused_before_memory_is_taken(golden, tmp_path, state, refusal):
    table = json.loads(open_checkpoint(golden.folder / SHD).header.to_text())
    table["config"]["num_embeddings"] = 10**13
    save_file(state, tmp_path / "m.safetensors", {"neurocompile": json.dumps(table)})
    refusal(tmp_path / "m.safetensors", "embedding.weight is (700, 16) instead of (10000000000000, 16)")


def test_nearby_configurations_rank_by_likeness(tmp_path):
    for name in ("config.json", "abc_config.json", "abd_config.json", "notes.json", "run/.hydra/config.yaml"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("{}")
    assert nearby(tmp_path / "abd.ckpt")[0].name == "abd_config.json"
    assert (tmp_path / "run/.hydra/config.yaml") in nearby(tmp_path / "run" / "checkpoints" / "model.pt")
