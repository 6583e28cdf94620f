"""From samples of events to one padded batch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from train.event2vec.points import Points

PADDING = -1


class EventBatch(NamedTuple):
    """What Event2Vec is trained on; the arguments of its `forward`, and the targets.

    Attributes:
        p: (B, L) float32 polarities.
        y: (B, L) float32 rows.
        x: (B, L) float32 columns.
        t: (B, L) float64 times since the sample's first event.
        mask: (B, L) bool, false on padding.
        intensity: (B, L) float32 weights, or `None` for single events. Padded positions of this and all others hold -1.
        targets: (B, C) float32, soft targets that sum to 1.
        rows: (B,) int64, number of each sample in its data set.
    """

    p: Tensor
    y: Tensor
    x: Tensor
    t: Tensor
    mask: Tensor
    intensity: Tensor | None
    targets: Tensor
    rows: Tensor

    @property
    def whole(self) -> bool:
        """Whether the times of every sample have a scale.

        A sample whose events were all removed does train, as published: it teaches the bias of the head.
        """
        return bool((self.t > self.t[:, :1]).any(1).all())

    @property
    def inputs(self) -> tuple[Tensor, ...]:
        """p, y, x, t, mask, and intensity where there is one."""
        return self[:5] if self.intensity is None else self[:6]


def collate(samples: Sequence[Points], targets: np.ndarray, rows: Sequence[int], multiple: int = 1) -> EventBatch:
    """Pads samples at their ends to the longest, and that to a multiple of what the network's poolings need.

    Args:
        samples: B samples.
        targets: (B, C) soft targets.
        rows: Their B numbers.
        multiple: See `total_downsampling` of the network.

    Returns:
        The batch; with intensity if all samples have it.
    """
    longest = max(1, max(len(sample) for sample in samples))
    length = -(-longest // multiple) * multiple
    shape = (len(samples), length)
    p, y, x = (np.full(shape, PADDING, np.float32) for _ in range(3))
    t, mask = np.full(shape, PADDING, np.float64), np.zeros(shape, np.bool_)
    weighted = all(sample.intensity is not None for sample in samples)
    intensity = np.full(shape, PADDING, np.float32) if weighted else None
    for row, sample in enumerate(samples):
        here = (row, slice(len(sample)))
        p[here], y[here], x[here], t[here], mask[here] = sample.p, sample.y, sample.x, sample.t, True
        if intensity is not None:
            intensity[here] = sample.intensity
    return EventBatch(
        torch.from_numpy(p),
        torch.from_numpy(y),
        torch.from_numpy(x),
        torch.from_numpy(t),
        torch.from_numpy(mask),
        None if intensity is None else torch.from_numpy(intensity),
        torch.from_numpy(np.asarray(targets, np.float32)),
        torch.as_tensor(np.asarray(rows, np.int64)),
    )
