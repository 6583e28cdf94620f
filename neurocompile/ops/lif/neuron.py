"""What kind of neuron: the parameters of `lif` that are not learnt."""

from __future__ import annotations

import math
from dataclasses import dataclass

SURROGATES = ("atan", "rectangle", "sigmoid")


@dataclass(frozen=True)
class Neuron:
    """When a neuron fires, where that leaves it, and how training differentiates it.

    The published networks:

        EAS-SNN, parametric LIF (arXiv 2403.12574)    Neuron()
        EAS-SNN, recurrent sampler                    Neuron(v_reset=0.0, strict=True, surrogate="rectangle", alpha=1.0)
        I2E, MS-ResNet (arXiv 2511.08065)             Neuron(v_reset=0.0, detach_reset=True)

    Attributes:
        threshold: The membrane at which it fires, in units of its input.
        v_reset: The membrane after a spike (hard reset); `None`: the threshold is subtracted (soft reset).
        strict: Whether the membrane has to exceed the threshold; otherwise reaching it is enough.
        surrogate: The derivative of a spike by the membrane in training, one of `SURROGATES`; see `surrogate.py`.
        alpha: The steepness of that derivative.
        detach_reset: Whether the reset counts as a constant in training; otherwise gradients flow through it.

    Raises:
        ValueError: For a surrogate that does not exist, or numbers that mean nothing.
    """

    threshold: float = 1.0
    v_reset: float | None = None
    strict: bool = False
    surrogate: str = "atan"
    alpha: float = 2.0
    detach_reset: bool = False

    def __post_init__(self) -> None:
        if self.surrogate not in SURROGATES:
            raise ValueError(f"lif: surrogate {self.surrogate!r} does not exist; there are: {', '.join(SURROGATES)}")
        if not (math.isfinite(self.threshold) and math.isfinite(self.v_reset or 0.0)):
            raise ValueError(f"lif: threshold {self.threshold} and v_reset {self.v_reset} have to be finite")
        if not (math.isfinite(self.alpha) and self.alpha > 0):
            raise ValueError(f"lif: alpha is {self.alpha}, it has to be positive")
