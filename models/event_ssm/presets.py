"""The published configurations of event-ssm, and recognising them by the shapes of their weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType

from models.event_ssm.config import EventSSMConfig
from models.event_ssm.flax import leaves
from runtime.front_ends import TokenDt

SHD_LABELS = (
    *("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"),
    *("null", "eins", "zwei", "drei", "vier", "fuenf", "sechs", "sieben", "acht", "neun"),
)
DVS_GESTURE_LABELS = (
    "hand_clapping",
    "right_hand_wave",
    "left_hand_wave",
    "right_arm_clockwise",
    "right_arm_counter_clockwise",
    "left_arm_clockwise",
    "left_arm_counter_clockwise",
    "arm_roll",
    "air_drums",
    "air_guitar",
    "other_gestures",
)
COCHLEA = TokenDt(rule="channel", width=700, height=1, dt="next", vocabulary=700)
# The published token of a pixel is the product of its coordinates; checkpoints only work with it.
DVS128 = TokenDt(rule="product", width=128, height=128, dt="next", vocabulary=32768)


@dataclass(frozen=True)
class Preset:
    """A published network and what it was trained on.

    Attributes:
        name: `data/size`.
        config: The network.
        front_end: Sensor, token rule and gap convention.
        labels: Class names in logit order; empty where the data set's files alone know them.
    """

    name: str
    config: EventSSMConfig
    front_end: TokenDt
    labels: tuple[str, ...] = ()


def _presets() -> dict[str, Preset]:
    dvs_small = EventSSMConfig(
        num_embeddings=DVS128.vocabulary,
        num_classes=11,
        d_model=128,
        d_ssm=128,
        ssm_block_size=16,
        num_stages=2,
        num_layers_per_stage=3,
        discretization="async",
        dt_min=0.001,
        dt_max=0.1,
        clip_eigs=True,
        C_init="lecun_normal",
        dropout=0.25,
        classification_mode="timepool",
        pooling_stride=16,
        pooling_mode="timepool",
        state_expansion_factor=2,
    )
    shd_medium = replace(
        dvs_small,
        num_embeddings=COCHLEA.vocabulary,
        num_classes=20,
        d_model=96,
        ssm_block_size=8,
        dt_min=0.004,
        clip_eigs=False,
        dropout=0.23,
        classification_mode="pool",
        pooling_stride=8,
        pooling_mode="avgpool",
        state_expansion_factor=1,
    )
    shd_tiny = replace(
        shd_medium,
        d_model=16,
        d_ssm=16,
        num_stages=1,
        num_layers_per_stage=6,
        dropout=0.1,
        classification_mode="timepool",
        pooling_stride=32,
        pooling_mode="timepool",
    )
    ssc_small = replace(
        shd_tiny,
        num_classes=35,
        d_model=64,
        d_ssm=64,
        dt_min=0.002,
        conj_sym=True,
        batchnorm=True,
        dropout=0.27,
        pooling_stride=8,
    )
    ssc_medium = replace(
        shd_medium,
        num_classes=35,
        ssm_block_size=16,
        dt_min=0.0015,
        conj_sym=True,
        batchnorm=True,
        state_expansion_factor=2,
    )
    presets = [
        Preset("dvs/small", dvs_small, DVS128, DVS_GESTURE_LABELS),
        Preset("shd/medium", shd_medium, COCHLEA, SHD_LABELS),
        Preset("shd/tiny", shd_tiny, COCHLEA, SHD_LABELS),
        Preset("ssc/small", ssc_small, COCHLEA),
        Preset("ssc/medium", ssc_medium, COCHLEA),
    ]
    return {preset.name: preset for preset in presets}


PRESETS: Mapping[str, Preset] = MappingProxyType(_presets())


def match_preset(shapes: Mapping[str, tuple[int, ...]]) -> str | None:
    """Recognises a published network by its shapes; the number of classes may be another.

    Args:
        shapes: Shape of every array under its published path (`params/..`) or its name in `EventSSM.state_dict()`.

    Returns:
        The preset's name, or `None` if no preset has these shapes.
    """
    given = {name: tuple(shape) for name, shape in shapes.items()}
    published = any(name.startswith("params/") for name in given)
    classes = given.get("params/decoder/bias" if published else "decoder.bias")
    if not classes or len(classes) != 1 or classes[0] < 1:
        return None
    for name, preset in PRESETS.items():
        table = leaves(replace(preset.config, num_classes=classes[0]))
        if given == {
            leaf.path if published else leaf.name: leaf.shape if published else leaf.torch_shape for leaf in table
        }:
            return name
    return None
