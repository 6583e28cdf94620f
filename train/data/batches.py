"""The dataset that a loader reads: whole batches at a time, because CutMix mixes recordings before they are tokens."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch.utils.data import Dataset

from runtime.front_ends.token_dt import TokenDt
from train.augment import Columns, cut_mix
from train.data.batch import Batch, collate, one_hot
from train.data.source import Source

Augment = Callable[[Columns, np.random.Generator, int, int], Columns]


class Batches(Dataset):
    """Reads, augments, mixes, tokenises and pads the recordings of a batch.

    Randomness depends on the seed, the epoch and which samples form the batch, so on nothing that changes with the
    number of workers.

    Args:
        source: The recordings.
        front_end: Token rule and kind of gap.
        classes: Number of labels.
        pad_unit: See `collate`.
        augment: Applied to every recording; `None` leaves them as they are.
        cut_mix: Probability that the recordings of a batch are mixed.
        seed: Of all randomness here.
    """

    def __init__(
        self,
        source: Source,
        front_end: TokenDt,
        classes: int,
        pad_unit: int,
        augment: Augment | None = None,
        cut_mix: float = 0.0,
        seed: int = 0,
    ) -> None:
        self.source, self.front_end, self.classes, self.pad_unit = source, front_end, classes, pad_unit
        self.augment, self.cut_mix, self.seed = augment, cut_mix, seed
        # Shared memory: workers that outlive an epoch see the new number.
        self.epoch = torch.zeros(1, dtype=torch.int64).share_memory_()

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, row: int) -> Batch:
        return self.__getitems__([row])

    def __getitems__(self, rows: Sequence[int]) -> Batch:
        """The batch of some samples."""
        samples = [self.source[row] for row in rows]
        targets = one_hot([int(self.source.labels[row]) for row in rows], self.classes)
        rng = np.random.default_rng([self.seed, int(self.epoch), *rows])
        if self.augment is not None:
            size = self.front_end.width, self.front_end.height
            samples = [self.augment(sample, rng, *size) for sample in samples]
        if self.cut_mix and rng.random() < self.cut_mix:
            samples, targets = cut_mix(samples, targets, rng)
        return collate(samples, targets, self.front_end, self.pad_unit)
