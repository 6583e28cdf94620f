"""From raw events to the network's inputs: which events count, coordinates in [-1, 1], gaps of normalised time.

Nothing is changed in place, unlike in the published program, so a batch may be used twice.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from models.event2vec.config import Event2VecConfig
from models.event2vec.sizes import Sizes
from runtime.errors import UserError


class Inputs(NamedTuple):
    """What the embeddings take.

    Attributes:
        points: (B, L, 3) x, y, p in [-1, 1]; (0, 0, 0) where the event does not count.
        gaps: (B, L) differences of normalised time.
        mask: (B, L) bool, the events that count.
    """

    points: Tensor
    gaps: Tensor
    mask: Tensor


def prepare(
    config: Event2VecConfig, p: Tensor, y: Tensor, x: Tensor, t: Tensor, mask: Tensor, dtype: torch.dtype
) -> Inputs:
    """Checks and normalises a batch as the published program does.

    Coordinates are rounded to pixels (ties to even), and events outside the sensor stop counting but keep their place:
    the two gaps beside such a hole are 0. Padding takes part in the temporal convolution, so the number of padded
    positions changes a result: the published network has three answers for 0, 1 and more of them, and so has this one.

    Args:
        config: The network's.
        p: (B, L) polarities, from 0.
        y: (B, L) rows; fractions, as of clusters, are rounded.
        x: (B, L) columns.
        t: (B, L) times, in any type that holds their differences; of any unit, or with `time_scale` microseconds.
        mask: (B, L) bool, false on padding.
        dtype: Floating-point type of the network.

    Returns:
        The inputs.

    Raises:
        UserError: If all times of a sample are equal, for which the published network answers NaN, or the number of
            positions is not a multiple of what the poolings need.
    """
    p, y, x = (value.to(dtype).round() for value in (p, y, x))
    mask = mask & (y >= 0) & (y < config.height) & (x >= 0) & (x < config.width)
    _check_length(config, t.shape[1])
    points = scale(config, p, y, x) * mask[..., None]
    if config.time_scale is not None:
        return Inputs(points, scaled_gaps(config.time_scale, t, mask, dtype), mask)
    t = (t - t[:, :1]).to(dtype)
    span = t.amax(1, keepdim=True)
    if not (span > 0).all():
        row = int((~(span > 0)).flatten().nonzero()[0])
        raise UserError(
            f"sample {row}: all its {int(mask[row].sum())} events have the same time, so their gaps have no scale; "
            "give a longer window of events"
        )
    return Inputs(points, gaps(t / span, mask), mask)


def scale(config: Sizes, p: Tensor, y: Tensor, x: Tensor) -> Tensor:
    """(...) polarities, rows and columns -> (..., 3) x, y, p in [-1, 1]."""
    sizes = (config.width, config.height, config.polarities)
    return torch.stack([value * (2 / (size - 1)) - 1 for value, size in zip((x, y, p), sizes, strict=True)], -1)


def gaps(t: Tensor, mask: Tensor | None = None) -> Tensor:
    """(..., L) difference of each time from the one before it, 0 for the first and beside events that do not count.

    Normalised times are subtracted, in this order: near 1 a float32 time has steps of 6e-8, and the network was trained
    with the differences that remain.
    """
    steps = t[..., 1:] - t[..., :-1]
    if mask is not None:
        steps = steps * mask[..., 1:] * mask[..., :-1]
    return torch.nn.functional.pad(steps, (1, 0))


def scaled_gaps(time_scale: float, t: Tensor, mask: Tensor | None, dtype: torch.dtype) -> Tensor:
    """(..., L) gaps in units of `time_scale` ms; times are in microseconds, and subtracted before they are rounded."""
    return gaps(t, mask).to(dtype) * (1e-3 / time_scale)


def _check_length(config: Event2VecConfig, length: int) -> None:
    if length < 1:
        raise UserError("a batch has no events; give at least two of different times")
    if length % config.total_downsampling:
        raise UserError(
            f"{length} positions cannot be halved {len(config.encoders)} times by pooling; "
            f"pad or cut the events to a multiple of {config.total_downsampling}"
        )
