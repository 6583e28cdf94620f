"""Augmentations that remove events, or replace them by noise. Removed events keep their place and stop counting."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Generator, Tensor

from train.event2vec.transforms.field import Field, Numbers


def random_drop(field: Field, generator: Generator, probability: Numbers) -> Field:
    """Drops every event with a probability."""
    return replace(field, mask=field.mask & (field.per_event(generator, 0, 1) >= probability[0]))


def random_erasing(field: Field, generator: Generator, size: Numbers, probability: Numbers, largest: Numbers) -> Field:
    """With a probability, drops the events in a rectangle: centre anywhere, half extents from U(0, largest / 2)."""
    chosen = field.per_sample(generator, 0, 1) < probability[0]
    inside = torch.ones_like(field.mask)
    for value, extent, most in zip((field.y, field.x), size, largest, strict=True):
        centre, half = field.per_sample(generator, 0, extent - 1), field.per_sample(generator, 0, most / 2)
        inside = inside & ((value - centre).abs() <= half)
    return replace(field, mask=field.mask & ~(chosen & inside))


def random_chunk_drop(field: Field, generator: Generator, chunks: Numbers) -> Field:
    """Drops n runs; a run's length is a whole number from 1 to m, times the share of positions that count."""
    share = field.mask.sum(1, keepdim=True) / field.mask.shape[1]
    return replace(field, mask=field.mask & ~chunk(field, generator, chunks, share))


def random_polarity_flip(field: Field, generator: Generator, probability: Numbers) -> Field:
    """p' = 1 - p of every event that counts, with a probability."""
    chosen = field.mask & (field.per_event(generator, 0, 1) < probability[0])
    return replace(field, p=torch.where(chosen, 1 - field.p, field.p))


def random_replace_by_noise(field: Field, generator: Generator, size: Numbers, probability: Numbers) -> Field:
    """Gives every event that counts, with a probability, a real place anywhere and a random polarity."""
    chosen = field.mask & (field.per_event(generator, 0, 1) < probability[0])
    y, x = (field.per_event(generator, 0, extent - 1) for extent in size)
    p = (field.per_event(generator, 0, 1) < 0.5).to(field.p.dtype)
    return replace(
        field,
        y=torch.where(chosen, y, field.y),
        x=torch.where(chosen, x, field.x),
        p=torch.where(chosen, p, field.p),
    )


def radius_filter(field: Field, generator: Generator, limits: Numbers) -> Field:
    """Keeps an event if more than k lie within the distance r, itself and those that do not count included.

    Compares every pair: its time and memory grow with the square of L.

    Args:
        field: The events.
        generator: Not used.
        limits: r and k.
    """
    place = torch.stack((field.y, field.x), -1)
    near = (torch.cdist(place, place) <= limits[0]).sum(-1)
    return replace(field, mask=field.mask & (near > limits[1]))


def chunk(field: Field, generator: Generator, chunks: Numbers, share: Tensor | None = None) -> Tensor:
    """(B, L) bool: inside one of n runs of each sample.

    Args:
        field: The events.
        generator: Source of randomness.
        chunks: n and the largest length m.
        share: (B, 1) factor on lengths; `None` for 1.
    """
    count, longest = int(chunks[0]), int(chunks[1])
    batch, length = field.mask.shape
    start = torch.randint(0, length, (batch, count, 1), generator=generator)
    size = torch.randint(1, longest + 1, (batch, count, 1), generator=generator)
    end = start + (size if share is None else size * share[:, None])
    place = torch.arange(length)
    return ((place >= start) & (place < end)).any(1)
