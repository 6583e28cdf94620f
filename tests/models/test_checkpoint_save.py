"""Our own files: what is saved comes back bit for bit, and a save is whole or nothing."""

from __future__ import annotations

import errno
import json
import os
import stat

import pytest
import torch
from safetensors import safe_open

from models.checkpoint import Checkpoint, describe_checkpoint, open_checkpoint, save_checkpoint
from models.event_ssm import EventSSM, EventSSMConfig
from models.event_ssm.port import EventSSMPort
from models.event_ssm.port_config import EventSSMPortConfig
from runtime.errors import UserError
from runtime.front_ends import TokenDt

FRONT_END = TokenDt("linear", 5, 4, "previous", 40, fixed_dt_us=2.5)


@pytest.fixture
def checkpoint() -> Checkpoint:
    torch.manual_seed(3)
    config = EventSSMConfig(
        40, 3, 6, 8, 4, 2, 2, conj_sym=True, batchnorm=True, pooling_stride=2, state_expansion_factor=2
    )
    model = EventSSM(config).eval()
    with torch.no_grad():
        for value in model.state_dict().values():
            value.copy_(torch.randn(value.shape) * 10.0 ** torch.randint(-38, 20, value.shape))
    return Checkpoint("event_ssm", model, config, FRONT_END, ("a", "b", "c"), {"epoch": 3, "score": 0.5, "who": "ünï"})


def bits(model: torch.nn.Module) -> dict[str, bytes]:
    return {name: value.numpy().tobytes() for name, value in model.state_dict().items()}


def same(a: Checkpoint, b: Checkpoint) -> None:
    assert bits(a.model) == bits(b.model)
    assert (a.family, a.config, a.front_end, a.labels, a.metadata) == (
        b.family, b.config, b.front_end, b.labels, b.metadata
    )  # fmt: skip


def test_round_trip_is_bit_exact(checkpoint, tmp_path):
    path = tmp_path / "m.safetensors"
    save_checkpoint(path, checkpoint)
    same(open_checkpoint(path), checkpoint)
    assert not open_checkpoint(path).model.training and open_checkpoint(path).notes == []
    first = path.read_bytes()
    save_checkpoint(path, open_checkpoint(path))
    assert path.read_bytes() == first
    assert [file.name for file in tmp_path.iterdir()] == ["m.safetensors"]


def test_content_counts_and_not_the_name(checkpoint, tmp_path):
    save_checkpoint(tmp_path / "m.safetensors", checkpoint)
    (tmp_path / "m.safetensors").rename(tmp_path / "m.ckpt")
    same(open_checkpoint(tmp_path / "m.ckpt"), checkpoint)


def test_the_derivative_round_trips(golden, tmp_path):
    config = EventSSMPortConfig(10, 4, 6, 4, 1, 2, batchnorm=True, attention_pool=False)
    port = Checkpoint(
        "event_ssm_port", EventSSMPort(config), config, TokenDt("channel", 10, 1, "next", 10), tuple("abcd")
    )
    save_checkpoint(tmp_path / "p.safetensors", port)
    same(open_checkpoint(tmp_path / "p.safetensors"), port)
    opened = open_checkpoint(
        golden.folder / "event_ssm_port_tiny_model.pt", config=golden.json("event_ssm_port_tiny_config")
    )
    save_checkpoint(tmp_path / "q.safetensors", opened)
    same(open_checkpoint(tmp_path / "q.safetensors"), opened)


def test_published_checkpoints_survive_conversion(golden, tmp_path):
    opened = open_checkpoint(golden.folder / "event_ssm_ssc_small_ckpt")
    save_checkpoint(tmp_path / "s.safetensors", opened)
    same(open_checkpoint(tmp_path / "s.safetensors"), opened)


def test_the_header_is_json_that_others_can_read(checkpoint, tmp_path):
    save_checkpoint(tmp_path / "m.safetensors", checkpoint)
    with safe_open(tmp_path / "m.safetensors", "np") as file:
        header = json.loads(file.metadata()["neurocompile"])
    assert header["schema"] == 1 and header["family"] == "event_ssm" and header["labels"] == ["a", "b", "c"]
    assert header["config"] == checkpoint.config.to_json() and header["front_end"] == FRONT_END.to_json()
    about = describe_checkpoint(tmp_path / "m.safetensors")
    assert about["config"] == header["config"] and about["metadata"] == header["metadata"]
    assert about["format"] == "safetensors file" and about["notes"] == []


def test_files_get_the_rights_that_files_get(checkpoint, tmp_path):
    old = os.umask(0o022)
    try:
        save_checkpoint(tmp_path / "m.safetensors", checkpoint)
    finally:
        os.umask(old)
    assert stat.S_IMODE((tmp_path / "m.safetensors").stat().st_mode) == 0o644


def test_a_failed_save_leaves_what_was_there(checkpoint, tmp_path, monkeypatch):
    path = tmp_path / "m.safetensors"
    path.write_bytes(b"old")

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(UserError, match=r"m\.safetensors cannot be written: No space left on device; "):
        save_checkpoint(path, checkpoint)
    assert path.read_bytes() == b"old" and len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize("place", ["missing/m.safetensors", "file/m.safetensors", "folder.safetensors"])
def test_places_that_cannot_be_written(checkpoint, tmp_path, place):
    (tmp_path / "file").write_text("")
    (tmp_path / "folder.safetensors").mkdir()
    (tmp_path / "folder.safetensors" / "x").write_text("")
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(UserError, match="cannot be written"):
        save_checkpoint(tmp_path / place, checkpoint)
    assert sorted(tmp_path.rglob("*")) == before


def test_what_must_not_be_saved(checkpoint, tmp_path):
    path = tmp_path / "m.safetensors"

    def refusal(words: str) -> None:
        with pytest.raises(UserError, match=words):
            save_checkpoint(path, checkpoint)
        assert not path.exists()

    with pytest.raises(UserError, match=r"end in \.safetensors"):
        save_checkpoint(tmp_path / "m.ckpt", checkpoint)
    checkpoint.labels = ("a", "b")
    refusal("2 class names do not fit 3 classes")
    checkpoint.labels = ("a", "b", "c")
    checkpoint.metadata = {"when": object()}
    refusal("metadata cannot be written as JSON")
    checkpoint.metadata = {"loss": float("nan")}
    refusal("metadata cannot be written as JSON")
    checkpoint.metadata = {}
    checkpoint.front_end = TokenDt("linear", 5, 5, "next", 50)
    refusal("50 tokens, but the model knows 40")
    checkpoint.front_end = FRONT_END
    checkpoint.model.double()
    refusal("is float64, but the model holds float32")
    checkpoint.model.float()
    checkpoint.model.decoder.bias.data[1] = torch.inf
    refusal(r"decoder\.bias in checkpoint .* contains NaN or infinity")
    checkpoint.model.decoder.bias.data[1] = 0
    checkpoint.family = "other"
    refusal("model family 'other'")


def lightning(checkpoint: Checkpoint, **extra) -> dict:
    """What Lightning and the training command store."""
    return {
        "epoch": 4,
        "global_step": 77,
        "pytorch-lightning_version": "2.6.0",
        "state_dict": {f"model.{name}": value for name, value in checkpoint.model.state_dict().items()}
        | {"criterion.weight": torch.ones(3)},
        "optimizer_states": [{"state": {0: {"exp_avg": torch.ones(2)}}, "param_groups": [{"lr": 0.1}]}],
        "neurocompile": checkpoint.header.to_text(),
        **extra,
    }


def test_training_checkpoints_open(checkpoint, tmp_path):
    torch.save(lightning(checkpoint), tmp_path / "last.ckpt")
    opened = open_checkpoint(tmp_path / "last.ckpt")
    assert bits(opened.model) == bits(checkpoint.model) and opened.config == checkpoint.config
    assert opened.labels == ("a", "b", "c") and opened.metadata == checkpoint.metadata | {"step": 77}
    assert opened.notes == [] and describe_checkpoint(tmp_path / "last.ckpt")["format"] == "Lightning checkpoint"


def test_averaged_weights_are_preferred_and_noted(checkpoint, tmp_path):
    average = {f"model.{name}": value * 2 for name, value in checkpoint.model.state_dict().items()}
    del average["model.decoder.bias"]
    torch.save(lightning(checkpoint, ema_state_dict=average), tmp_path / "last.ckpt")
    opened = open_checkpoint(tmp_path / "last.ckpt")
    assert opened.notes == ["averaged (EMA) weights used"]
    state, trained = opened.model.state_dict(), checkpoint.model.state_dict()
    assert torch.equal(state["decoder.weight"], trained["decoder.weight"] * 2)
    assert torch.equal(state["decoder.bias"], trained["decoder.bias"])


def test_a_compiled_models_prefix_is_dropped(checkpoint, tmp_path):
    table = lightning(checkpoint)
    table["state_dict"] = {f"model._orig_mod.{name}": value for name, value in checkpoint.model.state_dict().items()}
    torch.save(table, tmp_path / "last.ckpt")
    assert bits(open_checkpoint(tmp_path / "last.ckpt").model) == bits(checkpoint.model)
