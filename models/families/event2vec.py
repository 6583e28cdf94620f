"""Family event2vec: published Lightning checkpoints, which hold weights alone, and this package's own tensors."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import Any

from torch import Tensor, nn

from models.config_file import nearby
from models.event2vec.config import Event2VecConfig
from models.event2vec.presets import PRESETS, make, matching_presets, shapes_of, window
from models.event_ssm.flax import check_shapes
from models.families.base import Identity, Request
from models.families.published_config import labels_of
from runtime.errors import UserError
from runtime.front_ends import Window, front_end

PREFIX = "classifier."
WINDOW = 1024
_LAYER = re.compile(r"backbone_net\.(?:(\d+)\.)?layers\.(\d+)\.attention\.attention\.f_proj\.weight")
_DATA = ("window", "sample_number", "labels", "front_end", "family")


class Event2VecFamily:
    """Opens Event2Vec, whoever trained it."""

    name = "event2vec"
    signs = "tensors such as classifier.tpe.conv.0.weight"
    takes = "window"

    def recognises(self, names: Collection[str]) -> bool:
        """Whether both embeddings are among the names."""
        bare = {name.removeprefix(PREFIX) for name in names}
        return {"embed_net.embed.0.weight", "tpe.conv.0.weight"} <= bare

    def identify(self, tensors: Mapping[str, Tensor], request: Request) -> Identity:
        """Takes the configuration given, the preset given, or the one preset whose shapes these are.

        Raises:
            UserError: If nothing is given and no preset or several have these shapes.
        """
        shapes = {name.removeprefix(PREFIX): tuple(tensor.shape) for name, tensor in tensors.items()}
        if request.config is not None:
            return _configured(request.config, shapes)
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


def sizes(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Any]:
    """What the weights themselves say of the configuration."""
    found: dict[str, Any] = {}
    if (last := shapes.get("embed_net.embed.7.weight")) is not None and len(last) == 1:
        found["d_model"] = last[0]
    layers = {match.groups(): shapes[name] for name in shapes if (match := _LAYER.fullmatch(name))}
    if layers:
        found["n_layers"] = len(layers)
        found["nheads"] = next(iter(layers.values()))[0]
        encoders = {encoder for encoder, _ in layers if encoder is not None}
        found["pool_every_layer"] = len(layers) // len(encoders) if encoders else 0
    inner = next((shape for name, shape in shapes.items() if name.endswith("ffn.linear1.weight")), None)
    if inner:
        found["d_feedforward"] = inner[0]
    if bias := shapes.get("heads.bias"):
        found["num_classes"] = bias[0]
    return found


def _configured(table: Mapping[str, Any], shapes: Mapping[str, tuple[int, ...]]) -> Identity:
    """The identity that a table gives, which may leave out what the weights say."""
    if table.get("family", "event2vec") != "event2vec":
        raise UserError(f"the configuration is for {table['family']!r} but the weights are event2vec; give theirs")
    own = table.get("config", table.get("model", table))
    own = own.get("init_args", own) if isinstance(own, Mapping) else own
    if not isinstance(own, Mapping):
        raise UserError("config: the model's part is no table; give P, H and W as names and values")
    inferred = sizes(shapes)
    if "mask_token" in shapes:
        inferred |= {"num_classes": 1, "mask_ratio": 0.3}
    given = {name: value for name, value in own.items() if name not in _DATA}
    if "n_classes" in given:
        inferred.pop("num_classes", None)
    config = Event2VecConfig.from_json({**inferred, **given})
    notes = ["configuration as given"]
    filled = [f"{name} {value}" for name, value in inferred.items() if name not in given]
    if filled:
        notes.append(f"from the weights: {', '.join(filled)}")
    if isinstance(table.get("front_end"), Mapping):
        feed = front_end(table["front_end"])
        if not isinstance(feed, Window):
            raise UserError(f"config: front_end is of kind {feed.kind!r}, but event2vec takes window; give that")
        return Identity(config, feed, labels_of(table), tuple(notes))
    events = own.get("window", own.get("sample_number", table.get("window", table.get("sample_number"))))
    if events is None:
        events = WINDOW
        notes.append(f"windows of {events} events assumed; window in the config would say")
    if isinstance(events, bool) or not isinstance(events, int) or events < 2:
        raise UserError(f"config: window is {events!r}, it must be a whole number of at least 2 events")
    return Identity(config, window(config, events), labels_of(table), tuple(notes))


def _preset(name: str, shapes: Mapping[str, tuple[int, ...]], reason: str) -> Identity:
    preset = PRESETS[name]
    classes = sizes(shapes).get("num_classes", preset.config.num_classes)
    notes = [f"preset {name} used {reason}"]
    if classes != preset.config.num_classes:
        notes.append(f"{classes} classes as in the weights, where the preset has {preset.config.num_classes}")
    labels = preset.labels if classes == preset.config.num_classes else ()
    config = replace(preset.config, num_classes=classes)
    return Identity(config, window(config, preset.window), labels, tuple(notes))
