"""Published checkpoints open as the models they are, in every format and by every way of naming them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from models.checkpoint import Checkpoint, describe_checkpoint, open_checkpoint
from models.event_ssm import EventSSM
from models.event_ssm.flax import flax_from_state_dict
from models.event_ssm.port import EventSSMPort
from models.event_ssm.presets import PRESETS
from models.formats import read
from runtime.errors import UserError
from runtime.front_ends import TokenDt

CASES = [
    ("event_ssm_dvs_tiny", "ckpt", "Orbax aggregate directory"),
    ("event_ssm_shd_tiny", "ckpt", "Orbax aggregate directory"),
    ("event_ssm_ssc_small", "ckpt", "Orbax aggregate directory"),
    ("event_ssm_shd_tiny", "ckpt_ocdbt", "Orbax OCDBT directory"),
]


def needs(kind: str) -> None:
    if kind == "ckpt_ocdbt":
        pytest.importorskip("tensorstore")


def same_weights(checkpoint: Checkpoint, weights: dict[str, np.ndarray]) -> None:
    flat = flax_from_state_dict(checkpoint.model.state_dict(), checkpoint.config)
    assert set(flat) == set(weights)
    for name, array in weights.items():
        assert flat[name].dtype == array.dtype
        np.testing.assert_array_equal(flat[name], array, err_msg=name)


@pytest.mark.parametrize(("name", "kind", "words"), CASES)
def test_weights_and_logits_are_the_published_ones(golden, name, kind, words):
    needs(kind)
    checkpoint = open_checkpoint(golden.folder / f"{name}_{kind}", config=golden.folder / f"{name}_config.json")
    assert checkpoint.family == "event_ssm" and isinstance(checkpoint.model, EventSSM) and not checkpoint.model.training
    same_weights(checkpoint, golden.arrays(f"{name}_weights"))
    arrays = golden.arrays(name)
    tokens, dt, lengths = (torch.from_numpy(arrays[key]) for key in ("tokens", "timesteps", "lengths"))
    with torch.no_grad():
        logits = checkpoint.model(tokens.long(), dt, lengths.long()).numpy()
    np.testing.assert_allclose(logits, arrays["logits"], atol=1e-4 * np.abs(arrays["logits"]).max(), rtol=0)
    assert words in checkpoint.metadata["source"] and checkpoint.metadata["step"] == (0 if "ocdbt" in kind else 1)


@pytest.mark.parametrize(("name", "kind", "words"), CASES)
def test_describe_knows_as_much_without_a_model(golden, name, kind, words):
    needs(kind)
    path, config = golden.folder / f"{name}_{kind}", golden.folder / f"{name}_config.json"
    about, opened = describe_checkpoint(path, config=config), open_checkpoint(path, config=config)
    weights = golden.arrays(f"{name}_weights")
    assert (about["format"], about["family"], about["tensors"]) == (words, "event_ssm", len(weights))
    assert about["values"] == sum(array.size for array in weights.values()) and about["dtypes"] == ["float32"]
    assert about["config"] == opened.config.to_json() and about["front_end"] == opened.front_end.to_json()
    assert tuple(about["labels"]) == opened.labels and about["notes"] == opened.notes
    json.dumps(about)


def test_every_way_of_naming_an_orbax_checkpoint(golden, tmp_path):
    source = golden.folder / "event_ssm_shd_tiny_ckpt" / "checkpoint_1"
    run = tmp_path / "run"
    for number, content in ((9, b"\x80"), (10, (source / "checkpoint").read_bytes())):
        (run / "checkpoints" / f"checkpoint_{number}").mkdir(parents=True)
        (run / "checkpoints" / f"checkpoint_{number}" / "checkpoint").write_bytes(content)
    (run / "checkpoints" / "checkpoint_11.orbax-checkpoint-tmp-5").mkdir()
    weights = golden.arrays("event_ssm_shd_tiny_weights")
    entry = run / "checkpoints" / "checkpoint_10"
    for path in (run, run / "checkpoints", entry, entry / "checkpoint", str(entry)):
        same_weights(open_checkpoint(path), weights)


def test_a_single_flax_file_is_read_like_the_directory(golden, tmp_path):
    shutil.copy(golden.folder / "event_ssm_ssc_small_ckpt" / "checkpoint_1" / "checkpoint", tmp_path / "checkpoint_3")
    for path in (tmp_path, tmp_path / "checkpoint_3"):
        checkpoint = open_checkpoint(path)
        same_weights(checkpoint, golden.arrays("event_ssm_ssc_small_weights"))
        assert "Flax MessagePack file" in checkpoint.metadata["source"]


def test_shapes_choose_a_preset_and_say_so(golden):
    checkpoint = open_checkpoint(golden.folder / "event_ssm_shd_tiny_ckpt")
    assert checkpoint.config == PRESETS["shd/tiny"].config and checkpoint.labels == PRESETS["shd/tiny"].labels
    assert checkpoint.front_end == TokenDt("channel", 700, 1, "next", 700)
    assert "preset shd/tiny used because the shapes match it" in checkpoint.notes
    named = open_checkpoint(golden.folder / "event_ssm_ssc_small_ckpt", preset="ssc/small")
    assert named.config == PRESETS["ssc/small"].config and named.labels == tuple(map(str, range(35)))


def test_the_dvs_front_end_is_the_published_one(golden):
    folder = golden.folder
    checkpoint = open_checkpoint(folder / "event_ssm_dvs_tiny_ckpt", config=folder / "event_ssm_dvs_tiny_config.json")
    assert checkpoint.front_end == TokenDt("product", 32, 32, "next", 2048)


def test_shapes_of_no_preset_need_the_user(golden):
    with pytest.raises(UserError) as caught:
        open_checkpoint(golden.folder / "event_ssm_dvs_tiny_ckpt")
    message = str(caught.value)
    assert "--config FILE" in message and "--preset NAME" in message and "dvs/small" in message
    # A file that lies beside is offered, not used.
    assert "event_ssm_dvs_tiny_config.json" in message
    about = describe_checkpoint(golden.folder / "event_ssm_dvs_tiny_ckpt")
    assert about["family"] == "event_ssm" and about["config"] is None and "--config FILE" in about["notes"][-1]


def hydra(table: dict) -> str:
    """What Hydra writes: no data section, small numbers with an exponent."""
    model = table["model"]
    lines = ["task:", "  name: test", "optimizer:", "  ssm_base_lr: 1.2e-05", "model:"]
    for part in ("ssm_init", "ssm"):
        lines.append(f"  {part}:")
        lines += [f"    {name}: {json.dumps(value)}" for name, value in model[part].items()]
    return "\n".join(lines).replace("dt_min: 0.004", "dt_min: 4e-3") + "\n"


def test_hydras_yaml_is_completed_from_the_weights(golden, tmp_path):
    pytest.importorskip("yaml")
    wanted = open_checkpoint(
        golden.folder / "event_ssm_shd_tiny_ckpt", config=golden.folder / "event_ssm_shd_tiny_config.json"
    )
    (tmp_path / "config.yaml").write_text(hydra(golden.json("event_ssm_shd_tiny_config")))
    found = open_checkpoint(golden.folder / "event_ssm_shd_tiny_ckpt", config=tmp_path / "config.yaml")
    assert found.config == wanted.config and found.front_end == wanted.front_end
    assert any("sensor of 700 assumed" in note for note in found.notes)
    (tmp_path / "dvs.yaml").write_text(hydra(golden.json("event_ssm_dvs_tiny_config")))
    found = open_checkpoint(golden.folder / "event_ssm_dvs_tiny_ckpt", config=tmp_path / "dvs.yaml")
    assert found.front_end == TokenDt("product", 32, 32, "next", 2048)


def test_a_description_opens_what_it_describes(golden, tmp_path):
    path, config = golden.folder / "event_ssm_dvs_tiny_ckpt", golden.json("event_ssm_dvs_tiny_config")
    config["data"]["labels"] = [f"class {number}" for number in range(11)]
    config["training"] = {"no_time_information": True}
    opened = open_checkpoint(path, config=config)
    assert opened.labels[3] == "class 3" and opened.front_end.fixed_dt_us == 1.0
    (tmp_path / "own.json").write_text(json.dumps(describe_checkpoint(path, config=config)))
    again = open_checkpoint(path, config=tmp_path / "own.json")
    assert (again.config, again.front_end, again.labels) == (opened.config, opened.front_end, opened.labels)


def test_the_pytorch_derivative_opens_with_its_configuration(golden, tmp_path):
    path, config = golden.folder / "event_ssm_port_tiny_model.pt", golden.json("event_ssm_port_tiny_config")
    checkpoint = open_checkpoint(path, config=config)
    assert checkpoint.family == "event_ssm_port" and isinstance(checkpoint.model, EventSSMPort)
    assert checkpoint.front_end == TokenDt("linear", 12, 10, "next", 240)
    published = torch.load(path, weights_only=True)["state_dict"]
    state = checkpoint.model.state_dict()
    assert set(state) == set(published) and all(torch.equal(state[name], published[name]) for name in published)
    shutil.copy(path, tmp_path / "model.pt")
    assert open_checkpoint(tmp_path, config=config).family == "event_ssm_port"
    del config["data"]["num_embeddings"], config["data"]["num_classes"]
    assert open_checkpoint(path, config=config).config == checkpoint.config
    with pytest.raises(UserError, match="--config FILE"):
        open_checkpoint(path)


@pytest.mark.parametrize("wrap", [lambda s: s, lambda s: {"state_dict": s}, lambda s: {"model": s}])
@pytest.mark.parametrize("prefix", ["", "model.", "module."])
def test_plain_torch_weights_of_ours_match_presets_too(golden, tmp_path, wrap, prefix):
    source = open_checkpoint(golden.folder / "event_ssm_shd_tiny_ckpt")
    torch.save(wrap({prefix + name: value for name, value in source.model.state_dict().items()}), tmp_path / "w.pt")
    same_weights(open_checkpoint(tmp_path / "w.pt"), golden.arrays("event_ssm_shd_tiny_weights"))


def test_another_number_of_classes_still_matches(golden, tmp_path):
    state = dict(open_checkpoint(golden.folder / "event_ssm_shd_tiny_ckpt").model.state_dict())
    state["decoder.weight"], state["decoder.bias"] = (
        state["decoder.weight"][:2].clone(),
        state["decoder.bias"][:2].clone(),
    )
    torch.save(state, tmp_path / "two.pt")
    for preset in (None, "shd/tiny"):
        checkpoint = open_checkpoint(tmp_path / "two.pt", preset=preset)
        assert checkpoint.config.num_classes == 2 and checkpoint.labels == ("0", "1")
        assert any("2 classes as in the weights" in note for note in checkpoint.notes)


def test_opening_leaves_random_numbers_alone(golden):
    torch.manual_seed(7)
    wanted = torch.rand(3)
    torch.manual_seed(7)
    open_checkpoint(golden.folder / "event_ssm_shd_tiny_ckpt")
    assert torch.equal(torch.rand(3), wanted)


def test_reading_does_not_decode_the_optimiser(golden):
    names = read(golden.folder / "event_ssm_dvs_tiny_ckpt").tensors
    assert {Path(name).parts[0] for name in names} == {"params"}
