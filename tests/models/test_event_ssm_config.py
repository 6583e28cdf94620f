"""event-ssm's configuration, presets and parameter names."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from models.event_ssm import EventSSM, EventSSMConfig
from models.event_ssm.flax import flax_from_state_dict, infer_config, leaves, state_dict_from_flax
from models.event_ssm.presets import PRESETS, match_preset
from runtime.errors import UserError

TINY = EventSSMConfig(20, 3, 8, 8, 4, 2, 2, pooling_stride=2, state_expansion_factor=2)


def test_json_round_trip():
    assert EventSSMConfig.from_json(TINY.to_json()) == TINY


def test_stage_widths():
    assert TINY.stage_widths == ((8, 8, 8), (8, 16, 16))
    three = replace(TINY, num_stages=3)
    assert three.stage_widths == ((8, 8, 8), (8, 16, 16), (16, 16, 32))
    assert replace(three, conj_sym=True).stage_widths[2] == (16, 16, 16)
    assert three.total_downsampling == 8
    assert three.width == 16
    EventSSM(replace(TINY, num_stages=5, state_expansion_factor=1))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"num_stages": 4}, "at most 3 stages"),
        ({"ssm_block_size": 3}, "does not divide d_ssm"),
        ({"d_ssm": 9, "ssm_block_size": 3, "conj_sym": True}, "odd"),
        ({"discretization": "bilinear"}, "zoh, dirac, async"),
        ({"classification_mode": "cls"}, "pool, timepool, last"),
        ({"pooling_mode": "max"}, "last, avgpool, timepool"),
        ({"C_init": "zeros"}, "lecun_normal"),
        ({"d_model": 0}, "at least 1"),
        ({"d_model": 8.0}, "whole number"),
        ({"num_classes": True}, "whole number"),
        ({"prenorm": 1}, "true or false"),
        ({"dt_min": 0.0}, "dt_min"),
        ({"dt_min": 0.2}, "dt_min"),
        ({"dt_max": float("nan")}, "finite"),
        ({"dropout": 1.0}, "dropout"),
        ({"bn_momentum": 1.5}, "bn_momentum"),
        ({"step_rescale": 0}, "positive"),
        ({"step_rescale": "1"}, "finite number"),
    ],
)
def test_values_out_of_range(changes, words):
    with pytest.raises(UserError, match=words):
        replace(TINY, **changes)


def test_unknown_and_missing_names():
    with pytest.raises(UserError, match="d_modle is not known"):
        EventSSMConfig.from_json(TINY.to_json() | {"d_modle": 8})
    table = TINY.to_json()
    del table["d_ssm"]
    with pytest.raises(UserError, match="d_ssm is missing"):
        EventSSMConfig.from_json(table)


def test_upstream_nesting(golden):
    table = golden.json("event_ssm_shd_tiny_config")
    config = EventSSMConfig.from_upstream(table)
    assert config == replace(PRESETS["shd/tiny"].config, dropout=0.0)
    table["model"]["ssm"]["pooling_every_n_layers"] = 2
    assert EventSSMConfig.from_upstream(table, num_classes=2) == replace(config, num_classes=2)
    del table["data"]
    with pytest.raises(UserError, match="num_embeddings, num_classes is missing"):
        EventSSMConfig.from_upstream(table)
    for broken in ({}, {"model": None}, {"model": {"ssm": {}}}):
        with pytest.raises(UserError, match=r"model\.ssm_init is missing"):
            EventSSMConfig.from_upstream(broken)


PARAMETERS = {
    "dvs/small": 5_433_739,
    "shd/medium": 423_956,
    "shd/tiny": 19_892,
    "ssc/small": 122_915,
    "ssc/medium": 598_115,
}


@pytest.mark.parametrize("name", PARAMETERS)
def test_presets(name):
    preset = PRESETS[name]
    model = EventSSM(preset.config)
    assert sum(p.numel() for p in model.parameters()) == PARAMETERS[name]
    assert preset.front_end.vocabulary == preset.config.num_embeddings
    assert len(preset.labels) in (0, preset.config.num_classes)
    shapes = {key: tuple(value.shape) for key, value in model.state_dict().items()}
    assert match_preset(shapes) == name
    assert match_preset({leaf.path: leaf.shape for leaf in leaves(preset.config)}) == name
    other = replace(preset.config, num_classes=2)
    assert match_preset({leaf.path: leaf.shape for leaf in leaves(other)}) == name
    assert match_preset({leaf.path: leaf.shape for leaf in leaves(replace(other, num_embeddings=9))}) is None


def test_preset_hyperparameters():
    facts = {
        name: (
            *(c.dt_min, c.conj_sym, c.clip_eigs, c.d_model, c.d_ssm, c.ssm_block_size, c.num_stages),
            *(c.num_layers_per_stage, c.dropout, c.classification_mode, c.batchnorm, c.pooling_stride),
            *(c.pooling_mode, c.state_expansion_factor),
        )
        for name, c in ((name, preset.config) for name, preset in PRESETS.items())
    }
    assert facts == {
        "dvs/small": (0.001, False, True, 128, 128, 16, 2, 3, 0.25, "timepool", False, 16, "timepool", 2),
        "shd/medium": (0.004, False, False, 96, 128, 8, 2, 3, 0.23, "pool", False, 8, "avgpool", 1),
        "shd/tiny": (0.004, False, False, 16, 16, 8, 1, 6, 0.1, "timepool", False, 32, "timepool", 1),
        "ssc/small": (0.002, True, False, 64, 64, 8, 1, 6, 0.27, "timepool", True, 8, "timepool", 1),
        "ssc/medium": (0.0015, True, False, 96, 128, 16, 2, 3, 0.23, "pool", True, 8, "avgpool", 2),
    }
    for preset in PRESETS.values():
        config = preset.config
        assert (config.discretization, config.C_init, config.dt_max) == ("async", "lecun_normal", 0.1)
        assert config.prenorm
        assert config.bn_momentum == 0.95


def test_no_preset():
    assert match_preset({}) is None
    assert match_preset({"params/decoder/bias": (3,)}) is None
    assert match_preset({leaf.path: leaf.shape for leaf in leaves(TINY)}) is None


@pytest.mark.parametrize("changes", [{}, {"batchnorm": True, "conj_sym": True}, {"prenorm": False, "batchnorm": True}])
def test_flax_round_trip(changes):
    config = replace(TINY, **changes)
    state = EventSSM(config).state_dict()
    flat = flax_from_state_dict(state, config)
    back = state_dict_from_flax(flat, config)
    assert back.keys() == state.keys()
    assert all(torch.equal(back[name], state[name]) for name in state)
    inferred = infer_config(flat)
    assert inferred["prenorm"] is config.prenorm
    assert inferred == {name: config.to_json()[name] for name in inferred}


def test_flax_names_what_does_not_fit():
    flat = flax_from_state_dict(EventSSM(TINY).state_dict(), TINY)
    layer = "params/encoder/stages_0/SequenceLayer_0"
    broken = dict(flat)
    del broken[f"{layer}/S5SSM_0/B"]
    with pytest.raises(UserError, match=f"{layer}/S5SSM_0/B missing"):
        state_dict_from_flax(broken, TINY)
    with pytest.raises(UserError, match="params/more unexpected"):
        state_dict_from_flax(flat | {"params/more": np.zeros(1)}, TINY)
    with pytest.raises(UserError, match=r"params/decoder/bias is \(3,\) instead of \(5,\)"):
        state_dict_from_flax(flat, replace(TINY, num_classes=5))
    with pytest.raises(UserError, match="more"):
        state_dict_from_flax({}, TINY)


@pytest.mark.parametrize("drop", ["params/decoder/bias", "params/encoder/encoder/embedding"])
def test_infer_refuses_foreign_trees(drop):
    flat = flax_from_state_dict(EventSSM(TINY).state_dict(), TINY)
    with pytest.raises(UserError, match=drop):
        infer_config({path: array for path, array in flat.items() if path != drop})
    with pytest.raises(UserError, match="published event-ssm tree"):
        infer_config({"params/encoder/stages_x/SequenceLayer_0/S5SSM_0/B": np.zeros(1)})
    with pytest.raises(UserError):
        infer_config({})
