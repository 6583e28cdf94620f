"""The dataset that a loader reads: draws samples, augments and pads them, a whole batch at a time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch.utils.data import Dataset

from runtime.errors import UserError
from train.augment import AugmentVision, Columns
from train.data.batch import one_hot
from train.data.source import Source
from train.event2vec.batch import EventBatch, collate
from train.event2vec.points import Points, draw
from train.event2vec.transforms import Policy


@dataclass(frozen=True)
class Drawing:
    """How samples are drawn from recordings.

    Attributes:
        window: Events per sample.
        sampler: See `train.event2vec.points.draw`.
        repeats: Samples per recording and epoch.
        every: Of `run` and `last`, one event of so many is taken.
    """

    window: int
    sampler: str
    repeats: int = 1
    every: int = 1


class SampleBatches(Dataset):
    """Batches of samples. Sample `r N + n` is the r-th of recording n, of N.

    Randomness depends on the seed, the epoch and which samples form the batch, so on nothing that changes with the
    number of workers; outside of training not on the epoch either.

    Attributes:
        multiple: What a batch's length must be a multiple of; the network's, which is set once it is known.
        scaled: Whether the network divides by the time that a sample takes, so that one of no duration is refused; set
            likewise.

    Args:
        source: The recordings.
        drawing: How samples are drawn.
        size: Sensor columns and rows.
        classes: Number of labels.
        augment: Applied to whole recordings of events; `None` leaves them as they are.
        transforms: The published augmentation, applied to padded batches.
        training: Whether every epoch draws anew.
        seed: Of all randomness here.
    """

    def __init__(
        self,
        source: Source,
        drawing: Drawing,
        size: tuple[int, int],
        classes: int,
        augment: AugmentVision | None = None,
        transforms: Policy | None = None,
        training: bool = False,
        seed: int = 0,
    ) -> None:
        self.source, self.drawing, self.size, self.classes = source, drawing, size, classes
        self.augment, self.transforms, self.training, self.seed = augment, transforms, training, seed
        self.multiple, self.scaled = 1, True
        # Shared memory: workers that outlive an epoch see the new number.
        self.epoch = torch.zeros(1, dtype=torch.int64).share_memory_()

    def __len__(self) -> int:
        return len(self.source) * self.drawing.repeats

    def __getitem__(self, row: int) -> EventBatch:
        return self.__getitems__([row])

    def __getitems__(self, rows: Sequence[int]) -> EventBatch:
        """The batch of some samples."""
        places = [row % len(self.source) for row in rows]
        targets = one_hot([int(self.source.labels[place]) for place in places], self.classes)
        if self.training:
            rngs = [np.random.default_rng([self.seed, int(self.epoch), *rows])] * len(rows)
        else:
            # A sample is the same in whatever batch it is evaluated.
            rngs = [np.random.default_rng([self.seed, row]) for row in rows]
        samples = [self._sample(place, rng) for place, rng in zip(places, rngs, strict=True)]
        batch = collate(samples, targets, rows, self.multiple)
        if self.transforms is None:
            return batch
        return self.transforms(batch, torch.Generator().manual_seed(int(rngs[0].integers(1 << 62))))

    def _sample(self, place: int, rng: np.random.Generator) -> Points:
        recording = whole = self.source[place]
        if self.augment is not None and isinstance(recording, Columns):
            recording = self.augment(recording, rng, *self.size)
        drawing = self.drawing
        sample = draw(Points.of(recording), drawing.window, drawing.sampler, rng, drawing.every)
        # Chance in training costs a batch, see `EventBatch.whole`; what no draw can mend is named.
        if self.scaled and not _lasts(sample) and not (self.training and _lasts(Points.of(whole))):
            raise UserError(
                f"recording {self.source.names[place]}: all {len(sample)} events of its sample have the same time, so "
                "their gaps have no scale; leave it out of the set, or take more events a sample"
            )
        return sample


def _lasts(points: Points) -> bool:
    return len(points) > 0 and bool(points.t[-1] > points.t[0])
