"""The published configurations of Event2Vec, and recognising them by the shapes of their weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType

import torch

from models.event2vec.config import Event2VecConfig
from models.event2vec.network import Event2Vec
from models.event2vec.recovery import Event2VecRecovery
from models.event_ssm.presets import DVS_GESTURE_LABELS
from runtime.front_ends import Window

HOPS = 16
"""Windows that an event is part of, unless a front end says otherwise."""

# Classes are numbered by the string order of the data sets' folder names: 0, 1, 10, 2, .. and a to y without j.
GESTURE_ORDER = sorted(range(len(DVS_GESTURE_LABELS)), key=str)
GESTURES = tuple(DVS_GESTURE_LABELS[folder] for folder in GESTURE_ORDER)
LETTERS = tuple("abcdefghiklmnopqrstuvwxy")


@dataclass(frozen=True)
class Preset:
    """A published network and what it was trained on.

    Attributes:
        name: As its configuration file is called.
        config: The network.
        window: Events per sample in training.
        labels: Class names in logit order; empty where the data set's files alone know them.
    """

    name: str
    config: Event2VecConfig
    window: int
    labels: tuple[str, ...] = ()


def window(config: Event2VecConfig, events: int) -> Window:
    """The front end of a network over windows of `events` events."""
    return Window(config.width, config.height, events, max(1, events // HOPS), intensity=config.intensity)


def _presets() -> dict[str, Preset]:
    asl = Event2VecConfig(
        polarities=2,
        height=180,
        width=240,
        d_model=64,
        d_feedforward=128,
        nheads=2,
        n_layers=2,
        num_classes=24,
    )
    gesture = replace(asl, height=128, width=128, n_layers=4, num_classes=11, pool_every_layer=1)
    lip = replace(gesture, d_model=192, d_feedforward=384, nheads=6, n_layers=16, num_classes=100, pool_every_layer=0)
    presets = [
        Preset("asl_dvs", asl, 1024, LETTERS),
        Preset("dvs_gesture", gesture, 4096, GESTURES),
        Preset("dvs_lip_cluster_event_self_supervised_training", replace(lip, mask_ratio=0.3, intensity=True), 1024),
        Preset("dvs_lip_cluster_event", replace(lip, drop_path=0.4, intensity=True), 1024),
        Preset("dvs_lip_random_sampling", replace(lip, drop_path=0.4), 1024),
    ]
    return {preset.name: preset for preset in presets}


PRESETS: Mapping[str, Preset] = MappingProxyType(_presets())


def make(config: Event2VecConfig) -> Event2Vec | Event2VecRecovery:
    """The network of a configuration: the classifier, or with hidden events the one that recovers them."""
    return Event2VecRecovery(config) if config.mask_ratio else Event2Vec(config)


def shapes_of(config: Event2VecConfig) -> dict[str, tuple[int, ...]]:
    """The shape of every weight by name."""
    with torch.device("meta"):
        return {name: tuple(tensor.shape) for name, tensor in make(config).state_dict().items()}


def matching_presets(shapes: Mapping[str, tuple[int, ...]]) -> list[str]:
    """The published networks that have exactly these shapes; the classifiers of DVS-Lip share theirs."""
    given = {name: tuple(shape) for name, shape in shapes.items()}
    return [name for name, preset in PRESETS.items() if shapes_of(preset.config) == given]
