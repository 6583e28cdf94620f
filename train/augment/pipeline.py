"""Which augmentations a recording goes through, in which order, and how strongly."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from train.augment.columns import Columns
from train.augment.downsample import downsample
from train.augment.drop_event import drop_event
from train.augment.drop_event_chunk import drop_event_chunk
from train.augment.jitter_channel import jitter_channel
from train.augment.jitter_pixel import jitter_pixel
from train.augment.roll import roll
from train.augment.rotate import rotate
from train.augment.run import run
from train.augment.scale import scale
from train.augment.thin import thin
from train.augment.time_crop import time_crop
from train.augment.time_jitter import time_jitter
from train.augment.time_skew import time_skew
from train.augment.uniform_noise import uniform_noise
from train.augment.warp import Warp


@dataclass(frozen=True)
class AugmentAudio:
    """Augmentation of one-dimensional recordings (SHD, SSC); names and order as published, everything off by default.

    Attributes:
        drop_event: Fraction of events dropped.
        max_drop_chunk: Bound of a dropped run as a fraction of the recording; a run is dropped with probability 0.3.
        spatial_jitter: Standard deviation of a shift in channels.
        time_skew: Bound of the factor on time.
        time_jitter: Standard deviation in microseconds.
        noise: Bound on the number of added events.
    """

    drop_event: float = 0.0
    max_drop_chunk: float = 0.0
    spatial_jitter: float = 0.0
    time_skew: float = 1.0
    time_jitter: float = 0.0
    noise: int = 0

    def __call__(self, events: Columns, rng: np.random.Generator, width: int, height: int) -> Columns:
        """Augments (N,) events of a sensor with `width` channels."""
        events = drop_event(events, rng, self.drop_event)
        events = drop_event_chunk(events, rng, self.max_drop_chunk)
        events = jitter_channel(events, rng, self.spatial_jitter, width)
        events = time_skew(events, rng, self.time_skew)
        events = time_jitter(events, rng, self.time_jitter)
        return uniform_noise(events, rng, self.noise, width, height)


@dataclass(frozen=True)
class AugmentVision:
    """Augmentation of camera recordings (DVS128 Gesture); names and order as published, everything off by default.

    `time_crop`, `run_events` and `keep_events` come before and `warp` after the published ones.

    Attributes:
        time_crop: Shortest span of time that is kept, as a fraction of the recording's; 1 keeps all.
        keep_events: `[fewest, most]` events of which a random subset is kept; `[0, 0]` keeps all.
        max_drop_chunk: Bound of a dropped run as a fraction of the recording; a run is dropped with probability 0.3.
        drop_event: Fraction of events dropped.
        noise: Bound on the number of added events.
        time_skew: Bound of the factor on time.
        time_jitter: Standard deviation in microseconds.
        spatial_jitter: Variance of a shift in pixels.
        max_roll: Bound of a shift of the whole recording in pixels, with probability 0.3.
        max_angle: Bound of a turn in degrees, with probability 0.3.
        max_scale: Bound of a factor on coordinates, with probability 0.3.
        warp: Smooth map of the image plane.
        run_events: `[fewest, most]` neighbouring events that are kept; `[0, 0]` keeps all.
    """

    time_crop: float = 1.0
    keep_events: tuple[int, int] = (0, 0)
    max_drop_chunk: float = 0.0
    drop_event: float = 0.0
    noise: int = 0
    time_skew: float = 1.0
    time_jitter: float = 0.0
    spatial_jitter: float = 0.0
    max_roll: int = 0
    max_angle: float = 0.0
    max_scale: float = 1.0
    warp: Warp = field(default_factory=Warp)
    run_events: tuple[int, int] = (0, 0)

    def __call__(self, events: Columns, rng: np.random.Generator, width: int, height: int) -> Columns:
        """Augments (N,) events of a sensor of `width` columns and `height` rows."""
        events = time_crop(events, rng, self.time_crop)
        events = run(events, rng, *self.run_events)
        events = thin(events, rng, *self.keep_events)
        events = drop_event_chunk(events, rng, self.max_drop_chunk)
        events = drop_event(events, rng, self.drop_event)
        events = uniform_noise(events, rng, self.noise, width, height)
        events = time_skew(events, rng, self.time_skew)
        events = time_jitter(events, rng, self.time_jitter)
        events = jitter_pixel(events, rng, self.spatial_jitter, width, height)
        events = roll(events, rng, self.max_roll, width, height)
        events = rotate(events, rng, self.max_angle, width, height)
        events = scale(events, rng, self.max_scale, width, height)
        return self.warp(events, rng, width, height)


__all__ = ["AugmentAudio", "AugmentVision", "Warp", "downsample"]
