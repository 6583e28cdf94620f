"""Family event2vec: published Lightning checkpoints, which hold weights alone, and this package's own tensors."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import Any

from torch import Tensor, nn

from models.config_file import nearby
from models.event2vec.config import Event2VecConfig
from models.event2vec.presets import PRESETS, make, matching_presets, shapes_of, window
from models.event_ssm.flax import check_shapes
from models.families.base import Identity, Request
from models.families.event2vec_table import configured, sizes
from runtime.errors import UserError

PREFIX = "classifier."


class Event2VecFamily:
    """Opens Event2Vec, whoever trained it."""

    name = "event2vec"
    signs = "tensors such as classifier.tpe.conv.0.weight"
    takes = "window"

    def recognises(self, names: Collection[str]) -> bool:
        """Whether parts of both embeddings are among the names; what is missing is then named."""
        bare = [name.removeprefix(PREFIX) for name in names]
        return all(any(name.startswith(part) for name in bare) for part in ("embed_net.embed.", "tpe.conv."))

    def identify(self, tensors: Mapping[str, Tensor], request: Request) -> Identity:
        """Takes the configuration given, the preset given, or the one preset whose shapes these are.

        Raises:
            UserError: If nothing is given and no preset or several have these shapes.
        """
        shapes = {name.removeprefix(PREFIX): tuple(tensor.shape) for name, tensor in tensors.items()}
        if request.config is not None:
            return configured(request.config, shapes)
        if request.preset is not None:
            if request.preset not in PRESETS:
                raise UserError(f"preset {request.preset!r} does not exist; choose one of {', '.join(PRESETS)}")
            return _preset(request.preset, shapes, "as asked for")
        matched = matching_presets(shapes)
        if len(matched) == 1:
            return _preset(matched[0], shapes, "because the shapes match it")
        if matched:
            raise UserError(f"its shapes are those of {' and of '.join(matched)}; say which with --preset NAME")
        beside = ", ".join(str(file) for file in nearby(request.path))
        hint = f" (nearby lie {beside}; pass the one that belongs to it)" if beside else ""
        raise UserError(
            "it has shapes of no published preset, and weights do not tell the size of the sensor; pass --config FILE "
            f'with {{"P": 2, "H": rows, "W": columns}}{hint} or --preset NAME ({", ".join(PRESETS)})'
        )

    def config(self, table: Mapping[str, Any]) -> Event2VecConfig:
        """The configuration of a header."""
        return Event2VecConfig.from_json(table)

    def build(self, config: Event2VecConfig) -> nn.Module:
        """A freshly initialised network."""
        return make(config)

    def state_dict(self, tensors: Mapping[str, Tensor], config: Event2VecConfig) -> dict[str, Tensor]:
        """Drops the published prefix; every other name is the published one."""
        bare = {name.removeprefix(PREFIX): tensor for name, tensor in tensors.items()}
        check_shapes({name: tuple(tensor.shape) for name, tensor in bare.items()}, shapes_of(config))
        return bare


def _preset(name: str, shapes: Mapping[str, tuple[int, ...]], reason: str) -> Identity:
    preset = PRESETS[name]
    classes = sizes(shapes).get("num_classes", preset.config.num_classes)
    notes = [f"preset {name} used {reason}"]
    if classes != preset.config.num_classes:
        notes.append(f"{classes} classes as in the weights, where the preset has {preset.config.num_classes}")
    labels = preset.labels if classes == preset.config.num_classes else ()
    config = replace(preset.config, num_classes=classes)
    return Identity(config, window(config, preset.window), labels, tuple(notes))
