"""The commands on Event2Vec, end to end on made-up recordings: what they write, print and refuse."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from models.checkpoint import open_checkpoint
from models.zoo import shipped_checkpoint
from runtime.errors import UserError
from train.__main__ import main
from train.event2vec.recipe import parameter_groups, rate_factor

SMALL = [
    "--trainer.max_epochs", "2", "--trainer.precision", "32-true", "--model.recipe.warmup_epochs", "1",
    "--model.network.d_model", "16", "--model.network.d_feedforward", "16", "--model.network.nheads", "2",
    "--threads", "1", "--data.num_workers", "0", "--data.train_repeats", "1", "--data.val_repeats", "1",
]  # fmt: skip
LIP = ["--model.network.n_layers", "2", "--data.batch_size", "32", "--data.window", "24"]


@pytest.fixture(scope="module")
def lip(made_up, tmp_path_factory) -> Path:
    """Made-up DVS-Lip with one clip a word and split, clustered by the command."""
    root = tmp_path_factory.mktemp("lip")
    for file in (made_up["dvs_lip"] / "DVS-Lip").rglob("0.npy"):
        target = root / "DVS-Lip" / file.relative_to(made_up["dvs_lip"] / "DVS-Lip")
        target.parent.mkdir(parents=True)
        shutil.copy(file, target)
    assert main(["prepare", "cluster", "--root", str(root / "DVS-Lip"), "--clusters", "24"]) == 0
    return root


def fit(name: str, root: Path, output: Path, *more: str) -> int:
    options = ["--config", name, "--data.root", str(root), "--output", str(output), "--data.validation_fraction", "0"]
    return main(["fit", *options, *SMALL, *more])


@pytest.fixture(scope="module")
def pretrained(lip, tmp_path_factory) -> Path:
    output = tmp_path_factory.mktemp("pretraining") / "run"
    assert fit("event2vec_dvs_lip_cluster_event_self_supervised_training", lip, output, *LIP) == 0
    return output


def test_self_supervised_training_leaves_a_network_and_its_figures(pretrained):
    metrics = json.loads((pretrained / "metrics.json").read_text())
    wanted = {"loss", "p_accuracy", "mae_y", "mae_x", "exact_match_accuracy", "neighbor_accuracy"}
    assert {f"test/{name}" for name in wanted} <= set(metrics)
    checkpoint = open_checkpoint(pretrained / "model.safetensors")
    assert checkpoint.config.mask_ratio == 0.3
    assert checkpoint.config.intensity


@pytest.mark.parametrize("name", ["event2vec_dvs_lip_cluster_event", "event2vec_dvs_lip_random_sampling"])
def test_transfer_prints_which_keys_were_missing_and_unexpected(name, lip, pretrained, tmp_path, capsys):
    before = pretrained / "checkpoints" / "last.ckpt"
    assert fit(name, lip, tmp_path, *LIP, "--model.load", str(before), "--trainer.max_epochs", "1") == 0
    printed = capsys.readouterr().out
    assert "missing (2): heads.weight, heads.bias" in printed
    assert (
        "unexpected (8): mask_token, heads.0.weight, heads.1.weight, heads.1.bias, heads.3.weight, heads.4.weight, "
        "heads.4.bias, heads.6.weight" in printed
    )
    assert "test accuracy" in printed
    checkpoint = open_checkpoint(tmp_path / "model.safetensors")
    assert checkpoint.front_end.window == 24
    assert checkpoint.config.intensity == (name == "event2vec_dvs_lip_cluster_event")
    assert checkpoint.labels[:2] == ("word00", "word01")


def test_transfer_takes_the_weights_over(pretrained):
    from models.event2vec import Event2Vec
    from train.event2vec.transfer import load_weights

    source = open_checkpoint(pretrained / "model.safetensors")
    config = source.config.from_json(source.config.to_json() | {"mask_ratio": 0.0})
    model = Event2Vec(config)
    report = load_weights(model, str(pretrained / "model.safetensors"))
    assert report.startswith(f"loaded {len(model.state_dict()) - 2} of {len(model.state_dict())} tensors")
    own, given = model.state_dict(), source.model.state_dict()
    assert all(torch.equal(own[name], given[name]) for name in own if not name.startswith("heads."))


def test_a_shipped_model_is_loaded_by_its_name():
    from train.event2vec.transfer import load_weights

    source = open_checkpoint(shipped_checkpoint("nmnist_event2vec")).model
    model = type(source)(source.config)
    assert load_weights(model, "nmnist_event2vec").startswith("loaded 68 of 68 tensors from nmnist_event2vec")
    assert all(torch.equal(value, source.state_dict()[name]) for name, value in model.state_dict().items())
    with pytest.raises(UserError, match="these come with the package: nmnist_event2vec, "):
        load_weights(model, "nmnist_event3vec")


def test_what_cannot_be_begun_is_refused_before_anything_is_written(lip, pretrained, tmp_path, capsys):
    wide = ["--model.network.d_model", "32", "--model.load", str(pretrained / "model.safetensors")]
    for more, message in (
        (wide, "this network's is (8, 3)"),
        (["--model.load", "nowhere.ckpt"], "nowhere.ckpt does not exist"),
        (["--model.network.intensity", "false"], "model.network.intensity is false, but the data hold clusters"),
    ):
        assert fit("event2vec_dvs_lip_cluster_event", lip, tmp_path / "run", *LIP, *more) == 2
        assert message in capsys.readouterr().err
        assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    "more, message",
    [
        (["--model.network.nheads", "5"], "d_model is 16, it must be divisible by 4 and by nheads 5"),
        (["--model.network.mask_ratio", "0.3"], "model.network.mask_ratio is above 0"),
        (["--data.sampler", "all"], "sampler 'all' does not exist"),
        (["--data.transforms", "RandomFoo-1"], "transform 'RandomFoo' in 'RandomFoo-1' does not exist"),
        (["--data.validation_fraction", "2"], "data.validation_fraction is 2.0; give a number in [0, 1)"),
    ],
)
def test_what_model_and_data_refuse_is_one_sentence(more, message, lip, tmp_path, capsys):
    """Although the parser of the command line wraps it into its own errors."""
    assert fit("event2vec_dvs_lip_cluster_event", lip, tmp_path / "run", *LIP, *more) == 2
    error = capsys.readouterr().err
    assert message in error and error.startswith("error: ") and error.count("\n") == 1
    assert not (tmp_path / "run").exists()


def test_validating_on_nothing_is_refused(pretrained, capsys):
    assert main(["validate", "--ckpt_path", str(pretrained / "checkpoints" / "last.ckpt")]) == 2
    assert "nothing is held back for validation" in capsys.readouterr().err


def test_networks_without_classes_cannot_be_chosen_by_accuracy(lip, tmp_path, capsys):
    more = ["--choose_by", "accuracy", "--data.validation_fraction", "0.25", "--data.validate_on_test", "true"]
    assert fit("event2vec_dvs_lip_cluster_event_self_supervised_training", lip, tmp_path, *LIP, *more) == 2
    assert "choose_by accuracy is for networks that name classes" in capsys.readouterr().err


def test_gestures_with_repeats_and_published_augmentation(made_up, tmp_path, capsys):
    root = tmp_path / "set"
    shutil.copytree(made_up["dvs_gesture"], root)
    small = ["--data.batch_size", "4", "--data.window", "64", "--data.validation_fraction", "0.34"]
    output = tmp_path / "run"
    assert (
        fit("event2vec_dvs_gesture", root, output, *small, "--data.val_repeats", "3", "--trainer.max_epochs", "1") == 0
    )
    assert "validation/accuracy_std" in (output / "metrics.csv").read_text().splitlines()[0]
    checkpoint = open_checkpoint(output / "model.safetensors")
    assert (checkpoint.front_end.window, checkpoint.front_end.hop) == (64, 4)
    capsys.readouterr()
    assert main(["test", "--ckpt_path", str(output / "checkpoints" / "last.ckpt")]) == 0
    assert "of 33 samples" in capsys.readouterr().out


def test_a_window_that_cannot_be_pooled_is_refused(made_up, tmp_path, capsys):
    root = tmp_path / "set"
    shutil.copytree(made_up["dvs_gesture"], root)
    assert fit("event2vec_dvs_gesture", root, tmp_path / "run", "--data.window", "63", "--data.batch_size", "4") == 2
    assert "data.window 63 cannot be halved 4 times" in capsys.readouterr().err


def test_another_sensor_is_refused(made_up, tmp_path, capsys):
    assert fit("nmnist_event2vec", made_up["nmnist"], tmp_path, "--model.network.width", "35") == 2
    assert "model.network.width is 35, but the data have 34" in capsys.readouterr().err


@pytest.mark.parametrize("attention", ["gated_linear", "forgetting_causal"])
def test_the_causal_network_trains_with_the_same_command(attention, made_up, tmp_path, capsys):
    options = [
        "--config", "nmnist_event2vec_causal", "--data.root", str(made_up["nmnist"]), "--output", str(tmp_path),
        "--data.batch_size", "10", "--trainer.max_epochs", "1", "--model.recipe.warmup_epochs", "0",
        "--model.network.d_model", "16", "--model.network.attention", attention, "--model.network.memory", "32",
    ]  # fmt: skip
    assert main(["fit", *options]) == 0
    assert "test accuracy" in capsys.readouterr().out
    checkpoint = open_checkpoint(tmp_path / "model.safetensors")
    assert (checkpoint.family, checkpoint.config.attention) == ("event2vec_causal", attention)


def test_decay_spares_biases_mask_tokens_and_layer_norms():
    from models.event2vec import Event2VecConfig
    from models.event2vec.recovery import Event2VecRecovery

    network = {"polarities": 2, "height": 16, "width": 16, "d_model": 16, "d_feedforward": 16, "nheads": 2}
    model = Event2VecRecovery(Event2VecConfig(**network, n_layers=1, num_classes=3, mask_ratio=0.3))
    decayed, spared = parameter_groups(model, 0.05)
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    assert (decayed["weight_decay"], spared["weight_decay"]) == (0.05, 0.0)
    assert len(decayed["params"]) + len(spared["params"]) == len(names)
    kept = {names[id(parameter)] for parameter in spared["params"]}
    assert "mask_token" in kept
    assert "backbone_net.layers.0.norm1.weight" in kept
    assert "backbone_net.layers.0.attention.attention.f_proj.bias" in kept
    assert not any("q_norm" in name or "k_norm" in name or "q_proj" in name for name in kept)


def test_rates_warm_up_from_a_hundredth_and_end_at_the_least():
    factors = [rate_factor(epoch, 4, 64, 1e-3) for epoch in range(65)]
    assert factors[0] == pytest.approx(0.01)
    assert factors[2] == pytest.approx(0.505)
    assert factors[4] == 1
    assert factors[34] == pytest.approx(1e-3 + (1 - 1e-3) / 2)
    assert factors[64] == pytest.approx(1e-3)
    assert np.all(np.diff(factors[4:]) < 0)
