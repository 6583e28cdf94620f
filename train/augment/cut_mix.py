"""CutMix for events: a run of one recording takes the place of the same span of time in another."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from train.augment.columns import Columns


def cut_mix(
    samples: Sequence[Columns], targets: np.ndarray, rng: np.random.Generator
) -> tuple[list[Columns], np.ndarray]:
    """Mixes every recording of a batch with a partner from the same batch.

    From the partner comes a run of 1 to n - 1 neighbouring events at a random place. The events of the recording
    between the first and the last time of that run go, the run is sorted in, times unshifted. The target is
    (1 - share) * own + share * partner's, where share = events of the run / events of the result.

    Args:
        samples: B recordings.
        targets: (B, C) float32, soft targets.
        rng: Source of randomness.

    Returns:
        B recordings and (B, C) float32 targets; partners with fewer than two events give nothing.
    """
    partners = rng.permutation(len(samples))
    mixed, shares = [], np.zeros((len(samples), 1), np.float32)
    for row, partner in enumerate(partners):
        own, other = samples[row], samples[partner]
        if len(other) < 2:
            mixed.append(own)
            continue
        length = int(rng.integers(1, len(other)))
        begin = int(rng.integers(0, len(other) - length + 1))
        run = other[begin : begin + length]
        outside = (own.t < run.t[0]) | (own.t > run.t[-1])
        mixed.append(Columns.merged(own[outside], run))
        shares[row] = len(run) / len(mixed[-1])
    return mixed, (1 - shares) * targets + shares * targets[partners]
