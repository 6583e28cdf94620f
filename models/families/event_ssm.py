"""Family event_ssm: published Flax trees and this package's own tensors."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import Any, cast

import numpy as np
from torch import Tensor, nn

from models.config_file import nearby
from models.event_ssm.config import EventSSMConfig
from models.event_ssm.flax import check_shapes, infer_config, leaves, state_dict_from_flax
from models.event_ssm.network import EventSSM
from models.event_ssm.presets import PRESETS, match_preset
from models.families.base import Identity, Request
from models.families.published_config import complete, labels_of, sensor
from runtime.errors import UserError

_OURS = re.compile(r"stages\.\d+\.\d+\.s5\.")
_FLAX = re.compile(r"params/encoder/stages_\d+/SequenceLayer_\d+/S5SSM_0/")


class EventSSMFamily:
    """Opens event-ssm, whoever trained it."""

    name = "event_ssm"
    signs = "tensors such as params/encoder/stages_0/SequenceLayer_0/S5SSM_0/B or stages.0.0.s5.B"
    takes = "token_dt"

    def recognises(self, names: Collection[str]) -> bool:
        """Whether a layer's S5 tensors are among the names."""
        return any(_FLAX.match(name) or _OURS.match(name) for name in names)

    def identify(self, tensors: Mapping[str, Tensor], request: Request) -> Identity:
        """Takes the configuration given, the preset given, or the preset whose shapes these are.

        Raises:
            UserError: If nothing is given and no preset has these shapes.
        """
        shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
        sizes = _sizes(shapes)
        if request.config is not None:
            table = complete(request.config, self.name, sizes)
            config = EventSSMConfig.from_json(table) if "model" not in table else EventSSMConfig.from_upstream(table)
            front_end, notes = sensor(request.config, config.num_embeddings, "product")
            return Identity(config, front_end, labels_of(request.config), ("configuration as given", *notes))
        if request.preset is not None:
            if request.preset not in PRESETS:
                raise UserError(f"preset {request.preset!r} does not exist; choose one of {', '.join(PRESETS)}")
            return _preset(request.preset, sizes, "as asked for")
        if (matched := match_preset(shapes)) is not None:
            return _preset(matched, sizes, "because the shapes match it")
        raise _ambiguous(tensors, request)

    def config(self, table: Mapping[str, Any]) -> EventSSMConfig:
        """The configuration of a header."""
        return EventSSMConfig.from_json(table)

    def build(self, config: EventSSMConfig) -> nn.Module:
        """A freshly initialised network."""
        return EventSSM(config)

    def state_dict(self, tensors: Mapping[str, Tensor], config: EventSSMConfig) -> dict[str, Tensor]:
        """Renames a published tree, or checks our own names."""
        if any(name.startswith("params/") for name in tensors):
            return state_dict_from_flax({name: tensor.numpy() for name, tensor in tensors.items()}, config)
        wanted = {leaf.name: leaf.torch_shape for leaf in leaves(config)}
        check_shapes({name: tuple(tensor.shape) for name, tensor in tensors.items()}, wanted)
        return dict(tensors)


def _sizes(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, int]:
    """What the ends of the network say about the data."""
    embedding = shapes.get("params/encoder/encoder/embedding", shapes.get("embedding.weight"))
    bias = shapes.get("params/decoder/bias", shapes.get("decoder.bias"))
    sizes = {"num_embeddings": embedding[0]} if embedding else {}
    return sizes | ({"num_classes": bias[0]} if bias else {})


def _preset(name: str, sizes: Mapping[str, int], reason: str) -> Identity:
    preset = PRESETS[name]
    classes = sizes.get("num_classes", preset.config.num_classes)
    notes = [f"preset {name} used {reason}"]
    if classes != preset.config.num_classes:
        notes.append(f"{classes} classes as in the weights, where the preset has {preset.config.num_classes}")
    labels = preset.labels if classes == preset.config.num_classes else ()
    return Identity(replace(preset.config, num_classes=classes), preset.front_end, labels, tuple(notes))


def _ambiguous(tensors: Mapping[str, Tensor], request: Request) -> UserError:
    shape = ""
    if any(name.startswith("params/") for name in tensors):
        inferred = infer_config(cast(Mapping[str, np.ndarray], tensors))  # It looks at nothing but shapes.
        names = ("num_embeddings", "d_model", "num_stages", "num_layers_per_stage")
        shape = f" ({', '.join(f'{name} {inferred[name]}' for name in names)})"
    beside = ", ".join(str(file) for file in nearby(request.path))
    hint = f" (nearby lie {beside}; pass the one that belongs to it)" if beside else ""
    return UserError(
        f"it has shapes of no published preset{shape}, and shapes alone leave pooling and "
        f"discretisation open; pass --config FILE{hint} or --preset NAME ({', '.join(PRESETS)})"
    )
