"""What a configuration file says of Event2Vec weights: published ones, those of this package, or just the sensor.

What the weights say themselves may be left out.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from models.event2vec.config import PUBLISHED, Event2VecConfig
from models.event2vec.presets import PRESETS, window
from models.families.base import Identity
from models.families.published_config import labels_of
from runtime.errors import UserError
from runtime.front_ends import Window, front_end

WINDOW = 1024
FRONT_END = ("window", "hop", "every")
"""What a table may say of the front end besides the whole of it under `front_end`."""

# Older published files describe the network under `backbone`, in a grammar of their own; the weights say as much.
_ASIDE = (*FRONT_END, "sample_number", "labels", "front_end", "family", "backbone")
_LAYER = re.compile(r"backbone_net\.(?:(\d+)\.)?layers\.(\d+)\.")
# Which tensors have a size as their first extent.
_TOLD = {
    "d_model": ("embed_net.embed.7.weight", "embed_net.embed.7.bias", "tpe.conv.12.weight"),
    "nheads": (".f_proj.weight", ".f_proj.bias"),
    "d_feedforward": (".ffn.linear1.weight",),
    "num_classes": ("heads.bias", "heads.weight"),
}


def sizes(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Any]:
    """What the weights themselves say of the configuration, even where some are missing."""
    found: dict[str, Any] = {}
    layers = {match.groups() for name in shapes if (match := _LAYER.match(name))}
    if layers:
        encoders = {encoder for encoder, _ in layers if encoder is not None}
        found["n_layers"] = len(layers)
        found["pool_every_layer"] = len(layers) // len(encoders) if encoders else 0
    for name, ends in _TOLD.items():
        first = next((shape for key, shape in shapes.items() if key.endswith(ends) and shape), None)
        if first is not None:
            found[name] = first[0]
    return found


def configured(table: Mapping[str, Any], shapes: Mapping[str, tuple[int, ...]]) -> Identity:
    """The identity that a table gives.

    Args:
        table: Names and values of the network, flat or below `model` or `config`, where trainers nest them; what is
            said of training alone is passed over.
        shapes: Of the weights.

    Raises:
        UserError: If the table is for another family, names what is not known, or contradicts itself.
    """
    if table.get("family", "event2vec") != "event2vec":
        raise UserError(f"the configuration is for {table['family']!r} but the weights are event2vec; give theirs")
    own = _part(table.get("config", table.get("model", table)), "the model's part")
    data = _part(table.get("data") or {}, "data")
    notes = ["configuration as given"]
    given = {name: value for name, value in own.items() if name not in (*_ASIDE, "data")}
    for name, ours in PUBLISHED.items():
        if name in given and given.get(ours, given[name]) != given[name]:
            raise UserError(f"config: {name} {given[name]} and {ours} {given[ours]} contradict each other; give one")
    if data.get("sampler") == "none" and "sample_number" in data and "intensity" not in given:
        # Published: whoever draws no samples reads prepared clusters.
        given["intensity"] = True
        notes.append("intensity true, because data.sampler is none: clusters of events")
    _floor_layers(given, notes)
    inferred = sizes(shapes)
    if "mask_token" in shapes:
        inferred |= {"num_classes": 1, "mask_ratio": 0.3}
    elif "num_classes" not in inferred:
        raise UserError("heads.weight and heads.bias are missing, so the weights name no classes; give all of them")
    if "n_classes" in given:
        inferred.pop("num_classes", None)
    config = Event2VecConfig.from_json({**inferred, **given})
    filled = [f"{name} {value}" for name, value in inferred.items() if name not in given]
    if filled:
        notes.append(f"from the weights: {', '.join(filled)}")
    feed = _front_end(table, own, data, config, notes)
    return Identity(config, feed, labels_of(table) or _labels(data, config), tuple(notes))


def _part(value: Any, what: str) -> Mapping[str, Any]:
    """A table, without the layers that trainers wrap around it."""
    for layer in ("init_args", "network"):
        value = value.get(layer, value) if isinstance(value, Mapping) else value
    if not isinstance(value, Mapping):
        raise UserError(f"config: {what} is no table; give P, H and W as names and values")
    return value


def _floor_layers(given: dict[str, Any], notes: list[str]) -> None:
    """As published, layers that fill no encoder of `pool_every_layer` layers are not there."""
    layers, each = given.get("n_layers"), given.get("pool_every_layer")
    if type(layers) is int and type(each) is int and 0 < each <= layers and layers % each:
        given["n_layers"] = layers - layers % each
        notes.append(f"{given['n_layers']} of {layers} layers, as encoders of {each} layers hold, as published")


def _front_end(
    table: Mapping[str, Any], own: Mapping[str, Any], data: Mapping[str, Any], config: Event2VecConfig, notes: list[str]
) -> Window:
    """The windows that a table asks for, here or there."""
    if isinstance(table.get("front_end"), Mapping):
        feed = front_end(table["front_end"])
        if not isinstance(feed, Window):
            raise UserError(f"config: front_end is of kind {feed.kind!r}, but event2vec takes window; give that")
        return feed
    said: dict[str, Any] = {}
    for part in (own, table, data):
        said = {name: part[name] for name in (*FRONT_END, "sample_number") if part.get(name) is not None} | said
    events = said.get("window", said.get("sample_number"))
    if events is None:
        events = WINDOW
        notes.append(f"windows of {events} events assumed; window in the config would say")
    if isinstance(events, bool) or not isinstance(events, int) or events < 2:
        raise UserError(f"config: window is {events!r}, it must be a whole number of at least 2 events")
    made = window(config, events)
    return Window.from_json(made.to_json() | {name: said[name] for name in ("hop", "every") if name in said})


def _labels(data: Mapping[str, Any], config: Event2VecConfig) -> tuple[str, ...]:
    """Class names of the data set that a published file names, where that has as many."""
    name = data.get("name")
    preset = PRESETS.get(name) if isinstance(name, str) else None
    return preset.labels if preset is not None and len(preset.labels) == config.num_classes else ()
