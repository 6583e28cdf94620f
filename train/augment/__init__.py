"""Augmentations of event recordings, one idea a file; `pipeline` puts them in order."""

from train.augment.columns import Columns
from train.augment.cut_mix import cut_mix
from train.augment.pipeline import AugmentAudio, AugmentVision, Warp

__all__ = ["AugmentAudio", "AugmentVision", "Columns", "Warp", "cut_mix"]
