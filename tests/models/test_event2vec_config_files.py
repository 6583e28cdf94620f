"""Configuration files beside Event2Vec weights: published ones as they are, those of training, contradictions."""

from __future__ import annotations

import json
import re

import pytest
import torch
import yaml

from models.checkpoint import open_checkpoint
from models.event2vec import Event2VecConfig
from models.event2vec.presets import GESTURES, make
from runtime.errors import UserError
from runtime.front_ends import Window

TINY = Event2VecConfig(
    polarities=2, height=9, width=12, d_model=12, d_feedforward=7, nheads=3, n_layers=4, num_classes=11,
    pool_every_layer=2,
)  # fmt: skip
# The names of a published file; values that only training reads are made up.
MODEL = {
    "P": 2, "H": 9, "W": 12, "h": 9, "w": 12, "train_transform_args": "RandomDrop-0.1", "test_transform_args": "",
    "train_transform_policy": "RandomApply-0.5", "d_model": 12, "d_feedforward": 7, "nheads": 3, "n_layers": 4,
    "activation": "relu", "mask_ratio": 0.0, "p_token_mix": 0.5, "p_intensity_drop": 0.1, "drop_path": 0.0,
    "n_classes": 11, "compile": False, "lr": 0.001, "min_lr": 0.0, "batch_size": 64, "warmup_epochs": 4,
    "optimizer": "adamw", "lrs": "CosineAnnealingLR", "wd": 0.05, "label_smoothing": 0.1, "load": None,
    "pool_every_layer": 2,
}  # fmt: skip
DATA = {"name": "dvs_gesture", "root": "/data", "sample_number": 64, "sampler": "random_sample", "val_repeats": 10}


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """Weights of TINY as the published program saves them."""
    path = tmp_path_factory.mktemp("weights") / "last.ckpt"
    state = {f"classifier.{name}": value for name, value in make(TINY).state_dict().items()}
    torch.save({"state_dict": state, "pytorch-lightning_version": "2.5.3", "epoch": 63}, path)
    return path


def opened(weights, tmp_path, table):
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(table))
    return open_checkpoint(weights, config=tmp_path / "config.yaml")


def test_a_published_file_needs_no_change(weights, tmp_path):
    table = {"seed_everything": 0, "trainer": {"max_epochs": 64}, "model": MODEL, "data": DATA, "resume": None}
    checkpoint = opened(weights, tmp_path, table)
    assert checkpoint.config == TINY
    assert checkpoint.front_end == Window(12, 9, 64, 4)
    assert checkpoint.labels == GESTURES
    assert checkpoint.notes == ["configuration as given"]


def test_an_older_published_file_leaves_the_sizes_to_the_weights(weights, tmp_path):
    sensor = {name: MODEL[name] for name in ("P", "H", "W", "h", "w", "n_classes", "lr", "wd", "compile")}
    checkpoint = opened(weights, tmp_path, {"model": sensor | {"backbone": "mlp-2,9,12-0,12"}, "data": DATA})
    assert checkpoint.config == TINY and checkpoint.front_end.window == 64


def test_a_published_file_that_draws_no_samples_reads_clusters(weights, tmp_path):
    table = {"model": MODEL, "data": DATA | {"name": "dvs_lip", "sampler": "none"}}
    checkpoint = opened(weights, tmp_path, table)
    assert checkpoint.config.intensity and checkpoint.front_end.intensity
    assert "intensity true, because data.sampler is none: clusters of events" in checkpoint.notes
    assert checkpoint.labels[:2] == ("0", "1")
    assert not opened(weights, tmp_path, {**table, "model": MODEL | {"intensity": False}}).config.intensity


def test_a_file_of_this_packages_training_does_too(weights, tmp_path):
    network = {"polarities": 2, "height": 9, "width": 12, "num_classes": 11}
    model = {"class_path": "train.event2vec.classifier.Event2VecClassifier"}
    model |= {"init_args": {"network": network, "recipe": {"base_lr": 1e-3}}}
    data = {"class_path": "train.event2vec.dvs_gesture.DVSGestureWindows", "init_args": {"window": 40, "hop": 7}}
    checkpoint = opened(weights, tmp_path, {"model": model, "data": data})
    assert checkpoint.config == TINY and checkpoint.front_end == Window(12, 9, 40, 7)


@pytest.mark.parametrize("said, wanted", [({"hop": 7}, (7, 1)), ({"hop": 100, "every": 3}, (100, 3)), ({}, (3, 1))])
def test_hop_and_every_may_be_said_beside_the_window(said, wanted, weights):
    checkpoint = open_checkpoint(weights, config={"P": 2, "H": 9, "W": 12, "window": 48, **said})
    assert (checkpoint.front_end.hop, checkpoint.front_end.every) == wanted


def test_layers_that_fill_no_encoder_are_not_there_as_published(weights):
    checkpoint = open_checkpoint(weights, config=MODEL | {"n_layers": 5})
    assert checkpoint.config == TINY
    assert "4 of 5 layers, as encoders of 2 layers hold, as published" in checkpoint.notes


@pytest.mark.parametrize(
    "change, message",
    [
        ({"height": 10}, "H 9 and height 10 contradict each other"),
        ({"labels": "abc"}, "labels is 'abc', it must be a list"),
        ({"hop": 0}, "whole hop of at least 1"),
        ({"test_transform_args": "CenterCrop-128,128-96"}, "changes events before the network"),
        ({"n_layers": 1}, "n_layers is 1"),
    ],
)
def test_contradictions_are_named(change, message, weights):
    with pytest.raises(UserError, match=message):
        open_checkpoint(weights, config=MODEL | change)


@pytest.mark.parametrize("place", ["_orig_mod.classifier.", "classifier._orig_mod.", "_orig_mod.module.classifier."])
def test_names_of_compiled_and_wrapped_modules_are_dropped(place, tmp_path):
    state = make(TINY).state_dict()
    torch.save({"state_dict": {f"{place}{name}": value for name, value in state.items()}}, tmp_path / "last.ckpt")
    model = open_checkpoint(tmp_path / "last.ckpt", config=json.loads(json.dumps(MODEL))).model
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())


def test_parts_may_be_compiled_on_their_own(tmp_path):
    state = make(TINY).state_dict()
    compiled = {f"classifier.{name.replace('embed_net.', 'embed_net._orig_mod.')}": v for name, v in state.items()}
    torch.save({"state_dict": compiled}, tmp_path / "last.ckpt")
    model = open_checkpoint(tmp_path / "last.ckpt", config=MODEL).model
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())


@pytest.mark.parametrize("name", [name for name in make(TINY).state_dict() if "norm" not in name])
def test_whatever_is_missing_is_named(name, weights, tmp_path):
    """Also where sizes are read from other weights."""
    saved = torch.load(weights, weights_only=True)
    del saved["state_dict"][f"classifier.{name}"]
    torch.save(saved, tmp_path / "last.ckpt")
    with pytest.raises(UserError, match=f"the configuration: {re.escape(name)} missing; check"):
        open_checkpoint(tmp_path / "last.ckpt", config={"P": 2, "H": 9, "W": 12})


def test_weights_without_heads_are_not_a_classifier(weights, tmp_path):
    saved = torch.load(weights, weights_only=True)
    saved["state_dict"] = {name: value for name, value in saved["state_dict"].items() if ".heads." not in name}
    torch.save(saved, tmp_path / "last.ckpt")
    with pytest.raises(UserError, match=r"heads\.weight and heads\.bias are missing"):
        open_checkpoint(tmp_path / "last.ckpt", config={"P": 2, "H": 9, "W": 12})
