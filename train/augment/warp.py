"""Bend the image plane smoothly: turn, enlarge, shear, shift and stretch in one step, rounded once."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from train.augment.columns import Columns


@dataclass(frozen=True)
class Warp:
    """Bounds of a random smooth map of the sensor onto itself.

    Attributes:
        angle: Largest turn about the centre, degrees.
        scale: Largest factor, at least 1; x and y are enlarged by the same.
        aspect: Largest further factor of x against y, at least 1.
        shear: Largest shift of a row or column per pixel of distance from the centre.
        shift: Largest shift in x and y, pixels.
        elastic: Standard deviation of a smooth random displacement, pixels.
        smoothness: Over how many pixels that displacement changes.
    """

    angle: float = 0.0
    scale: float = 1.0
    aspect: float = 1.0
    shear: float = 0.0
    shift: float = 0.0
    elastic: float = 0.0
    smoothness: float = 8.0

    def __call__(self, events: Columns, rng: np.random.Generator, width: int, height: int) -> Columns:
        """Maps every event.

        A pixel is a square: the event lands anywhere in the image of its square, so enlarging leaves no gaps.

        Args:
            events: (N,) events.
            rng: Source of randomness.
            width: Sensor columns.
            height: Sensor rows.

        Returns:
            The events that stay on the sensor.
        """
        if self == Warp(smoothness=self.smoothness):
            return events
        matrix, shift = self._draw(rng)
        place = np.stack([events.x, events.y]) + rng.random((2, len(events)))
        centre = np.array([[width / 2], [height / 2]])
        moved = matrix @ (place - centre) + centre + shift
        if self.elastic:
            field = self._field(rng, width, height)
            moved += field[:, events.y, events.x]
        x, y = np.floor(moved).astype(np.int64)
        return Columns(events.t, x, y, events.p).inside(width, height)

    def _draw(self, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """A (2, 2) matrix and a (2, 1) shift."""
        angle = np.deg2rad(rng.uniform(-self.angle, self.angle))
        turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        scale = np.exp(rng.uniform(-1, 1) * np.log(self.scale))
        aspect = np.exp(rng.uniform(-0.5, 0.5) * np.log(self.aspect))
        shear = np.array([[1.0, rng.uniform(-self.shear, self.shear)], [rng.uniform(-self.shear, self.shear), 1.0]])
        return turn @ shear @ np.diag([scale * aspect, scale / aspect]), rng.uniform(-self.shift, self.shift, (2, 1))

    def _field(self, rng: np.random.Generator, width: int, height: int) -> np.ndarray:
        """(2, H, W) displacements: white noise blurred by a Gaussian of `smoothness` pixels, scaled to `elastic`."""
        noise = rng.normal(size=(2, height, width))
        field = _blur(height, self.smoothness) @ noise @ _blur(width, self.smoothness)
        return field * self.elastic


def _blur(size: int, smoothness: float) -> np.ndarray:
    """(size, size) symmetric Gaussian blur whose rows keep the variance of white noise."""
    place = np.arange(size)
    kernel = np.exp(-0.5 * ((place[:, None] - place[None]) / smoothness) ** 2)
    return kernel / np.sqrt((kernel**2).sum(1).mean())
