"""Augmentations that move events in the image plane or crop it."""

from __future__ import annotations

from dataclasses import replace
from math import pi

import torch
from torch import Generator, Tensor

from train.event2vec.transforms.field import Field, Numbers


def random_resize(field: Field, generator: Generator, rows: Numbers, columns: Numbers) -> Field:
    """y times U(rows), x times U(columns), about pixel (0, 0)."""
    tall, wide = field.per_sample(generator, *rows), field.per_sample(generator, *columns)
    return replace(field, y=field.y * tall, x=field.x * wide)


def random_rotation(field: Field, generator: Generator, size: Numbers, degrees: Numbers) -> Field:
    """Turns about the centre of a sensor of `size` rows and columns by U(-d, d), or U(lo, hi), degrees."""
    low, high = degrees if len(degrees) == 2 else (-degrees[0], degrees[0])
    angle = field.per_sample(generator, low, high) * (pi / 180)
    y0, x0 = (size[0] - 1) / 2, (size[1] - 1) / 2
    y, x = field.y - y0, field.x - x0
    return replace(field, x=x * angle.cos() - y * angle.sin() + x0, y=x * angle.sin() + y * angle.cos() + y0)


def random_shear(field: Field, generator: Generator, largest: Numbers) -> Field:
    """y' = y + ky x, x' = x + kx y, with ky and kx from U(-largest, largest)."""
    down, right = (field.per_sample(generator, -value, value) for value in largest)
    return replace(field, y=field.y + down * field.x, x=field.x + right * field.y)


def random_horizontal_flip(field: Field, generator: Generator, size: Numbers, probability: Numbers) -> Field:
    """x' = W - 1 - x of whole samples, with a probability."""
    chosen = field.per_sample(generator, 0, 1) < probability[0]
    return replace(field, x=torch.where(chosen, size[0] - 1 - field.x, field.x))


def random_vertical_flip(field: Field, generator: Generator, size: Numbers, probability: Numbers) -> Field:
    """y' = H - 1 - y of whole samples, with a probability."""
    chosen = field.per_sample(generator, 0, 1) < probability[0]
    return replace(field, y=torch.where(chosen, size[0] - 1 - field.y, field.y))


def random_translate(field: Field, generator: Generator, largest: Numbers) -> Field:
    """Shifts by real numbers from U(-largest, largest)."""
    down, right = (field.per_sample(generator, -value, value) for value in largest)
    return replace(field, y=field.y + down, x=field.x + right)


def resize(field: Field, generator: Generator, old: Numbers, new: Numbers) -> Field:
    """y' = (y + 1/2) / H h - 1/2, and x likewise."""
    y, x = ((value + 0.5) / size * small - 0.5 for value, size, small in zip((field.y, field.x), old, new, strict=True))
    return replace(field, y=y, x=x)


def crop(field: Field, generator: Generator, rows: Numbers, columns: Numbers) -> Field:
    """Keeps events between two rows and two columns, both ends included."""
    within = (field.y >= rows[0]) & (field.y <= rows[1]) & (field.x >= columns[0]) & (field.x <= columns[1])
    return replace(field, mask=field.mask & within)


def center_crop(field: Field, generator: Generator, size: Numbers, kept: Numbers) -> Field:
    """Keeps H/2 +- sy/2 and W/2 +- sx/2."""
    rows, columns = (
        (whole / 2 - part / 2, whole / 2 + part / 2) for whole, part in zip(size, _pair(kept), strict=True)
    )
    return crop(field, generator, rows, columns)


def random_crop(field: Field, generator: Generator, size: Numbers, kept: Numbers) -> Field:
    """Keeps a window of `kept` rows and columns, another place in every sample."""
    return _cropped(field, generator, size, _pair(kept))[0]


def random_crop_resize(field: Field, generator: Generator, size: Numbers, kept: Numbers) -> Field:
    """`random_crop`, then the window enlarged to the whole sensor."""
    part = _pair(kept)
    field, (y0, x0) = _cropped(field, generator, size, part)
    return replace(field, y=(field.y - y0) / part[0] * (size[0] - 1), x=(field.x - x0) / part[1] * (size[1] - 1))


def discard_tail(field: Field, generator: Generator, widths: Numbers) -> Field:
    """Keeps events within `widths` deviations of the mean row and column of the whole batch, padding included."""
    mask = field.mask
    for value, width in zip((field.y, field.x), widths, strict=True):
        mask = mask & ((value - value.mean()).abs() <= width * value.std())
    return replace(field, mask=mask)


def positional_norm(field: Field, generator: Generator, size: Numbers) -> Field:
    """Stretches rows and columns of the whole batch, padding included, over the sensor."""
    y, x = (
        (value - value.min()) / (value.max() - value.min()) * (extent - 1)
        for value, extent in zip((field.y, field.x), size, strict=True)
    )
    return replace(field, y=y, x=x)


def _cropped(field: Field, generator: Generator, size: Numbers, part: Numbers) -> tuple[Field, tuple[Tensor, Tensor]]:
    """The field with a window of every sample kept, and the windows' first rows and columns, (B, 1) each."""
    y0, x0 = (field.per_sample(generator, 0, whole - kept - 1) for whole, kept in zip(size, part, strict=True))
    within = (field.y >= y0) & (field.y <= y0 + part[0]) & (field.x >= x0) & (field.x <= x0 + part[1])
    return replace(field, mask=field.mask & within), (y0, x0)


def _pair(kept: Numbers) -> Numbers:
    return kept if len(kept) == 2 else (kept[0], kept[0])
