"""Published Event2Vec checkpoints open as the models they are; what shapes leave open is refused with what to pass."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace

import pytest
import torch

from models.checkpoint import Checkpoint, describe_checkpoint, open_checkpoint, save_checkpoint
from models.event2vec import Event2Vec
from models.event2vec.presets import GESTURES, LETTERS, PRESETS, make, shapes_of, window
from models.event2vec.recovery import Event2VecRecovery
from runtime.errors import UserError
from runtime.front_ends import TokenDt, Window

TINY = ["tiny_flat", "tiny_pool", "tiny_intensity", "tiny_ssl"]
PARAMETERS = {
    "asl_dvs": (50, 71_580),
    "dvs_gesture": (84, 137_619),
    "dvs_lip_cluster_event_self_supervised_training": (252, 4_803_600),
    "dvs_lip_cluster_event": (246, 4_799_236),
    "dvs_lip_random_sampling": (246, 4_799_236),
}


def lightning(path, shapes):
    """A Lightning checkpoint of zeros, as the published program writes it but for the trainer's state."""
    saved = {"state_dict": {f"classifier.{name}": torch.zeros(shape) for name, shape in shapes.items()}}
    torch.save(saved | {"pytorch-lightning_version": "2.5.3", "global_step": 7, "epoch": 63}, path)
    return path


@pytest.mark.parametrize("name", PRESETS)
def test_presets_are_the_published_networks(name, golden):
    published = golden.json("event2vec_state_dict_keys")[name]
    found = {f"classifier.{key}": list(shape) for key, shape in shapes_of(PRESETS[name].config).items()}
    assert found == {key: list(shape) for key, shape in published.items()}
    with torch.device("meta"):
        model = make(PRESETS[name].config)
    assert (len(found), sum(parameter.numel() for parameter in model.parameters())) == PARAMETERS[name]


def test_the_gesture_checkpoint_says_what_it_is_by_its_shapes(event2vec_case, golden, tmp_path):
    case = event2vec_case("dvs_gesture")
    path = shutil.copy(golden.folder / "event2vec_dvs_gesture.ckpt", tmp_path / "dvs_gesture.ckpt")
    checkpoint = open_checkpoint(path)
    assert checkpoint.notes == ["preset dvs_gesture used because the shapes match it"]
    assert checkpoint.front_end == Window(128, 128, 4096, 256)
    with torch.inference_mode():
        logits = checkpoint.model(**case.batch())
    assert (logits - case.tensor("logits")).abs().max() <= 2e-5


@pytest.mark.parametrize("name", TINY)
def test_other_shapes_take_the_published_configuration(name, event2vec_case, golden, tmp_path):
    case = event2vec_case(name)
    config = tmp_path / "config.json"
    config.write_text(str(case.arrays["config"]))
    checkpoint = open_checkpoint(golden.folder / f"event2vec_{name}.ckpt", config=config)
    assert checkpoint.config == case.config
    assert "windows of 1024 events assumed; window in the config would say" in checkpoint.notes
    model = case.model(torch.float32)
    assert type(checkpoint.model) is type(model)
    with torch.inference_mode():
        for found, want in zip(checkpoint.model(**case.batch()), model(**case.batch()), strict=True):
            assert torch.equal(found, want)


@pytest.mark.parametrize("name", TINY)
def test_the_sensor_is_all_that_weights_leave_open(name, event2vec_case, golden):
    case = event2vec_case(name)
    table = {"P": 2, "H": 16, "W": 16, "window": 32, "labels": list("abcde")}
    if name == "tiny_ssl":
        table |= {"n_classes": 5}
    checkpoint = open_checkpoint(golden.folder / f"event2vec_{name}.ckpt", config=table)
    assert checkpoint.config == case.config
    assert checkpoint.front_end == Window(16, 16, 32, 2)
    assert checkpoint.labels == tuple("abcde")
    with pytest.raises(UserError, match=r"weights do not tell the size of the sensor; pass --config FILE.*\"W\""):
        open_checkpoint(golden.folder / f"event2vec_{name}.ckpt")


def test_configurations_may_be_nested_as_trainers_nest_them(golden, tmp_path):
    file = tmp_path / "config.yaml"
    file.write_text("model:\n  init_args:\n    P: 2\n    H: 16\n    W: 16\n    d_model: 32\nsample_number: 64\n")
    checkpoint = open_checkpoint(golden.folder / "event2vec_tiny_pool.ckpt", config=file)
    assert checkpoint.front_end == Window(16, 16, 64, 4)
    assert checkpoint.config.pool_every_layer == 1


@pytest.mark.parametrize(
    "table, message",
    [
        ({"P": 2, "H": 16, "W": 16, "d_model": 64}, r"do not fit the configuration: .*instead of \(16, 3\)"),
        ({"P": 2, "H": 16}, "width is missing"),
        ({"P": 2, "H": 16, "W": 16, "window": 1}, "window is 1"),
        ({"P": 2, "H": 16, "W": 16, "colour": 1}, "colour is not known"),
        ({"P": 2, "H": 16, "W": 16, "activation": "gelu"}, "activation must be relu"),
        ({"family": "event_ssm", "config": {}}, "for 'event_ssm' but the weights are event2vec"),
        ({"model": 3}, "no table"),
        (
            {"P": 2, "H": 16, "W": 16, "front_end": TokenDt("linear", 16, 16, "next", 512).to_json()},
            "front_end is of kind 'token_dt', but event2vec takes window",
        ),
    ],
)
def test_wrong_configurations_are_named(table, message, golden):
    with pytest.raises(UserError, match=message):
        open_checkpoint(golden.folder / "event2vec_tiny_flat.ckpt", config=table)


def test_two_presets_of_the_same_shapes_need_a_word(tmp_path):
    path = lightning(tmp_path / "last.ckpt", shapes_of(PRESETS["dvs_lip_random_sampling"].config))
    with pytest.raises(UserError, match="of dvs_lip_cluster_event and of dvs_lip_random_sampling; say which with"):
        open_checkpoint(path)
    for name in ("dvs_lip_cluster_event", "dvs_lip_random_sampling"):
        about = describe_checkpoint(path, preset=name)
        assert about["config"]["intensity"] == (name == "dvs_lip_cluster_event")
        assert f"preset {name} used as asked for" in about["notes"]
    with pytest.raises(UserError, match="preset 'lip' does not exist; choose one of asl_dvs"):
        open_checkpoint(path, preset="lip")


def test_presets_go_by_their_own_shapes_alone(tmp_path):
    for name in ("asl_dvs", "dvs_lip_cluster_event_self_supervised_training"):
        about = describe_checkpoint(lightning(tmp_path / "last.ckpt", shapes_of(PRESETS[name].config)))
        assert about["notes"][0] == f"preset {name} used because the shapes match it"
    fewer = replace(PRESETS["asl_dvs"].config, num_classes=5)
    path = lightning(tmp_path / "last.ckpt", shapes_of(fewer))
    with pytest.raises(UserError, match="shapes of no published preset"):
        open_checkpoint(path)
    checkpoint = open_checkpoint(path, preset="asl_dvs")
    assert checkpoint.config == fewer and len(checkpoint.labels) == 5
    assert "5 classes as in the weights, where the preset has 24" in checkpoint.notes


@pytest.mark.parametrize("change", ["missing", "extra", "reshaped"])
def test_keys_are_strict(change, tmp_path):
    shapes = shapes_of(PRESETS["asl_dvs"].config)
    if change == "missing":
        del shapes["backbone_net.norm.bias"]
    elif change == "extra":
        shapes["backbone_net.extra"] = (1,)
    else:
        shapes["backbone_net.norm.bias"] = (65,)
    path = lightning(tmp_path / "last.ckpt", shapes)
    words = {"missing": "norm.bias missing", "extra": "extra unexpected", "reshaped": r"norm.bias is \(65,\) instead"}
    with pytest.raises(UserError, match=words[change]):
        open_checkpoint(path, preset="asl_dvs")


def test_classes_are_in_the_string_order_of_their_folders():
    assert len(LETTERS) == 24 and not {"j", "z"} & set(LETTERS)
    assert GESTURES[:4] == ("hand_clapping", "right_hand_wave", "other_gestures", "left_hand_wave")
    assert GESTURES[-1] == "air_guitar" and len(set(GESTURES)) == 11


@pytest.mark.parametrize("kind", [Event2Vec, Event2VecRecovery])
def test_saved_checkpoints_open_as_they_were(kind, event2vec_case, tmp_path):
    config = replace(event2vec_case("tiny_flat").config, mask_ratio=0.3 if kind is Event2VecRecovery else 0.0)
    model = kind(config).eval()
    saved = Checkpoint("event2vec", model, config, window(config, 64), tuple("abcde"), {"accuracy": 0.5})
    save_checkpoint(tmp_path / "m.safetensors", saved)
    opened = open_checkpoint(tmp_path / "m.safetensors")
    assert (opened.config, opened.front_end, opened.labels) == (config, Window(16, 16, 64, 4), tuple("abcde"))
    assert type(opened.model) is kind and opened.metadata["accuracy"] == 0.5
    for name, value in model.state_dict().items():
        assert torch.equal(opened.model.state_dict()[name], value), name


def test_a_header_with_another_familys_front_end_is_refused(event2vec_case, tmp_path):
    case = event2vec_case("tiny_flat")
    front_end = TokenDt("linear", 16, 16, "next", 512)
    checkpoint = Checkpoint("event2vec", case.model(torch.float32), case.config, front_end, tuple("abcde"))
    save_checkpoint(tmp_path / "m.safetensors", checkpoint)
    with pytest.raises(UserError, match="its front end is 'token_dt', but event2vec takes 'window'"):
        open_checkpoint(tmp_path / "m.safetensors")


def test_the_header_is_plain(event2vec_case):
    config = event2vec_case("tiny_pool").config
    assert type(config).from_json(json.loads(json.dumps(config.to_json()))) == config
