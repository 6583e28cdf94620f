"""From recordings to one padded batch of tokens and gaps."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from runtime.front_ends.token_dt import TokenDt
from train.augment import Columns


class Batch(NamedTuple):
    """What the network is trained on.

    Attributes:
        tokens: (B, L) int64, -1 on padded positions.
        dt: (B, L) float32, milliseconds, 0 on padded positions.
        lengths: (B,) int64, items before the padding.
        targets: (B, C) float32, soft targets that sum to 1.
    """

    tokens: Tensor
    dt: Tensor
    lengths: Tensor
    targets: Tensor

    @property
    def whole(self) -> bool:
        """Whether every recording has events."""
        return bool((self.lengths > 0).all())


def one_hot(labels: Sequence[int], classes: int) -> np.ndarray:
    """(B, C) float32 targets of B labels."""
    return np.eye(classes, dtype=np.float32)[np.asarray(labels, np.int64)]


def collate(samples: Sequence[Columns], targets: np.ndarray, front_end: TokenDt, pad_unit: int) -> Batch:
    """Turns recordings into items with the front end of deployment and pads them.

    As published, L = (longest // pad_unit + 1) * pad_unit: at least one position is padded.

    Args:
        samples: B recordings with times in microseconds.
        targets: (B, C) soft targets.
        front_end: Token rule and kind of gap.
        pad_unit: A multiple of the network's total downsampling.

    Returns:
        The batch.
    """
    items = [front_end.open().push(sample.events()) for sample in samples]
    lengths = np.array([len(item["token"]) for item in items], np.int64)
    padded = (int(lengths.max()) // pad_unit + 1) * pad_unit
    tokens = np.full((len(items), padded), -1, np.int64)
    dt = np.zeros((len(items), padded), np.float32)
    for row, item in enumerate(items):
        tokens[row, : lengths[row]] = item["token"]
        dt[row, : lengths[row]] = item["dt"]
    return Batch(*(torch.from_numpy(array) for array in (tokens, dt, lengths, np.asarray(targets, np.float32))))
