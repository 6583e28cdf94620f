"""The grammar of the published augmentations.

    items  Name-argument-argument/Name-argument     an argument is one number or several with commas between them
    policy Sequential | RandomApply-q | RandomShuffleApply-q | RandomChoice

Since `-` separates arguments, numbers are neither negative nor written with an exponent.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Generator

from runtime.errors import UserError
from train.event2vec.batch import EventBatch
from train.event2vec.transforms import geometry, removal, timing
from train.event2vec.transforms.field import Field, Numbers, Transform

# Name -> what it does, and for each argument how many numbers it may have.
ITEMS: dict[str, tuple[Callable[..., Field], tuple[tuple[int, ...], ...]]] = {
    "RandomResize": (geometry.random_resize, ((2,), (2,))),
    "RandomRotation": (geometry.random_rotation, ((2,), (1, 2))),
    "RandomShear": (geometry.random_shear, ((2,),)),
    "RandomHorizontalFlip": (geometry.random_horizontal_flip, ((1,), (1,))),
    "RandomVerticalFlip": (geometry.random_vertical_flip, ((1,), (1,))),
    "RandomTranslate": (geometry.random_translate, ((2,),)),
    "RandomErasing": (removal.random_erasing, ((2,), (1,), (2,))),
    "RandomChunkDrop": (removal.random_chunk_drop, ((2,),)),
    "RandomChunkWrap": (timing.random_chunk_wrap, ((2,), (2,))),
    "RandomTemporalWrap": (timing.random_temporal_wrap, ((2,),)),
    "RandomDrop": (removal.random_drop, ((1,),)),
    "RandomPolarityFlip": (removal.random_polarity_flip, ((1,),)),
    "RandomReplaceByNoise": (removal.random_replace_by_noise, ((2,), (1,))),
    "Resize": (geometry.resize, ((2,), (2,))),
    "Crop": (geometry.crop, ((2,), (2,))),
    "CenterCrop": (geometry.center_crop, ((2,), (1, 2))),
    "RandomCrop": (geometry.random_crop, ((2,), (1, 2))),
    "RandomCropResize": (geometry.random_crop_resize, ((2,), (1, 2))),
    "DiscardTail": (geometry.discard_tail, ((2,),)),
    "PositionalNorm": (geometry.positional_norm, ((2,),)),
    "RadiusFilter": (removal.radius_filter, ((2,),)),
}
POLICIES = ("Sequential", "RandomApply", "RandomShuffleApply", "RandomChoice")


@dataclass(frozen=True)
class Policy:
    """Items and which of them a batch goes through.

    Attributes:
        items: In the order given.
        kind: One of `POLICIES`; coins are drawn once per batch.
        probability: Of each item, where the kind has one.
    """

    items: tuple[Transform, ...]
    kind: str = "Sequential"
    probability: float = 1.0

    def chosen(self, generator: Generator) -> list[Transform]:
        """The items of one batch, in order."""
        count = len(self.items)
        if self.kind == "RandomChoice":
            place = int(torch.randint(0, count + 1, (), generator=generator))
            return list(self.items[place : place + 1])
        order = list(range(count))
        if self.kind == "RandomShuffleApply":
            order = torch.randperm(count, generator=generator).tolist()
        if self.kind == "Sequential":
            return [self.items[place] for place in order]
        coins = torch.rand(count, generator=generator) < self.probability
        return [self.items[place] for place, coin in zip(order, coins.tolist(), strict=True) if coin]

    def __call__(self, batch: EventBatch, generator: Generator) -> EventBatch:
        """The augmented batch; the given one is not changed."""
        field = Field(batch.p, batch.y, batch.x, batch.t, batch.mask)
        for item in self.chosen(generator):
            field = item(field, generator)
        return batch._replace(p=field.p, y=field.y, x=field.x, t=field.t, mask=field.mask)


def policy(items: str, how: str = "Sequential") -> Policy:
    """Reads items and policy.

    Raises:
        UserError: Naming the part that cannot be read.
    """
    kind, *rest = how.split("-")
    wants = kind in ("RandomApply", "RandomShuffleApply")
    if kind not in POLICIES or len(rest) != wants:
        raise UserError(
            f"policy {how!r} is not possible; choose Sequential, RandomApply-q, RandomShuffleApply-q or RandomChoice"
        )
    probability = _numbers(rest[0], how)[0] if wants else 1.0
    if not 0 <= probability <= 1:
        raise UserError(f"policy {how!r}: the probability must lie in [0, 1]")
    return Policy(parse(items), kind, probability)


def parse(items: str) -> tuple[Transform, ...]:
    """Reads items.

    Raises:
        UserError: Naming the item that cannot be read.
    """
    return tuple(_item(item) for item in items.split("/") if item)


def _item(text: str) -> Transform:
    name, *arguments = text.split("-")
    if name not in ITEMS:
        raise UserError(f"transform {name!r} in {text!r} does not exist; choose from {', '.join(ITEMS)}")
    function, counts = ITEMS[name]
    numbers = [_numbers(argument, text) for argument in arguments]
    fits = len(numbers) == len(counts) and all(len(n) in count for n, count in zip(numbers, counts, strict=True))
    if not fits:
        wanted = "-".join(" or ".join(f"{count} number{'s' * (count > 1)}" for count in each) for each in counts)
        raise UserError(f"transform {text!r}: {name} takes {wanted}, numbers of one argument separated by commas")
    return _Bound(function, tuple(numbers))


@dataclass(frozen=True)
class _Bound:
    """An item with its numbers; a class, so that loaders can send it to their workers."""

    function: Callable[..., Field]
    numbers: tuple[Numbers, ...]

    def __call__(self, field: Field, generator: Generator) -> Field:
        return self.function(field, generator, *self.numbers)


def _numbers(text: str, where: str) -> Numbers:
    try:
        return tuple(float(number) for number in text.split(","))
    except ValueError:
        raise UserError(
            f"{where!r}: {text!r} is no number or list of numbers; `-` separates arguments, so numbers are neither "
            "negative nor written with an exponent"
        ) from None
