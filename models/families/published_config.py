"""What event-ssm's configuration files say besides the network: the size of the data and the sensor.

Hydra's resolved `config.yaml` has no `data` section, because the data set's loader knew; the weights and the known data
sets fill it in.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import isqrt
from typing import Any

from runtime.errors import UserError
from runtime.front_ends import TokenDt, front_end

_COCHLEA_CHANNELS = 700


def complete(table: Mapping[str, Any], family: str, sizes: Mapping[str, int]) -> dict[str, Any]:
    """The hyperparameters of a configuration table, with the data's sizes filled in where it is silent.

    Args:
        table: The published nesting (with `model`), this software's own header (with `config`), or a flat table.
        family: Name of the family that the weights are of.
        sizes: `num_embeddings` and `num_classes` as the weights have them.

    Returns:
        The published nesting, or a flat table of hyperparameters.

    Raises:
        UserError: If the table is for another family or not one of a model.
    """
    if "model" in table:
        return {**table, "data": {**sizes, **_part(table, "data")}}
    if table.get("family", family) != family:
        raise UserError(f"the configuration is for {table['family']!r} but the weights are {family}; give theirs")
    own = table.get("config", table)
    if not isinstance(own, Mapping) or "d_model" not in own:
        raise UserError("the configuration has no model section; give the published nesting with model.ssm")
    return {**sizes, **own}


def sensor(table: Mapping[str, Any], vocabulary: int, rule: str) -> tuple[TokenDt, list[str]]:
    """How the published loaders of such data make tokens.

    Args:
        table: As for `complete`.
        vocabulary: Number of tokens.
        rule: Token rule of pixels; one-dimensional sensors use their channel.

    Returns:
        The front end, and what had to be assumed.

    Raises:
        UserError: If the sensor is unknown, or the vocabulary too small for it.
    """
    if isinstance(table.get("front_end"), Mapping):
        given = front_end(table["front_end"])
        if not isinstance(given, TokenDt):
            raise UserError(f"config: front_end is of kind {given.kind!r}, but event-ssm takes token_dt; give that")
        return given, []
    notes = []
    resolution = _part(table, "data").get("resolution")
    if resolution is None:
        resolution = _known(vocabulary)
        size = " x ".join(map(str, resolution))
        notes.append(f"sensor of {size} assumed from {vocabulary} tokens; data.resolution in the config would say")
    if not _is_resolution(resolution):
        raise UserError(f"config: data.resolution is {resolution!r}, it must be [channels] or [width, height]")
    width, height = (*resolution, 1)[:2]
    tokens = width if len(resolution) == 1 else 2 * width * height
    if tokens > vocabulary:
        raise UserError(
            f"config: a sensor of data.resolution {list(resolution)} makes {tokens} tokens, but the model has "
            f"{vocabulary}; check that configuration and checkpoint belong together"
        )
    # The published ablation without time counts every gap as one microsecond.
    blind = any(_part(table, name).get("no_time_information") for name in ("data", "training"))
    chosen = rule if len(resolution) == 2 else "channel"
    fixed = 1.0 if blind else None
    return TokenDt(chosen, width, height, dt="next", vocabulary=vocabulary, fixed_dt_us=fixed), notes


def labels_of(table: Mapping[str, Any]) -> tuple[str, ...]:
    """Class names, where a table has them under `labels` or `data.labels`.

    Raises:
        UserError: If they are no list.
    """
    labels = table.get("labels") or _part(table, "data").get("labels") or ()
    if not isinstance(labels, (list, tuple)):
        raise UserError(f"config: labels is {labels!r}, it must be a list of class names in the order of the logits")
    return tuple(map(str, labels))


def _part(table: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    part = table.get(name) or {}
    if not isinstance(part, Mapping):
        raise UserError(f"config: {name} is {part!r}, it must be a table; give {name} as names and values")
    return part


def _is_resolution(value: Any) -> bool:
    return (
        isinstance(value, (list, tuple))
        and len(value) in (1, 2)
        and all(type(size) is int and size > 0 for size in value)
    )


def _known(vocabulary: int) -> list[int]:
    """The sensor of a published data set, by its number of tokens."""
    if vocabulary == _COCHLEA_CHANNELS:
        return [_COCHLEA_CHANNELS]
    side = isqrt(vocabulary // 2)
    if vocabulary == 2 * side * side:
        return [side, side]
    raise UserError(
        f"the configuration does not say which sensor makes {vocabulary} tokens; "
        "add data.resolution, [channels] or [width, height]"
    )
