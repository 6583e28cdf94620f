"""Data modules whose batches are tokens and gaps, as event-ssm and the causal Event2Vec take them."""

from __future__ import annotations

from runtime.errors import UserError
from runtime.front_ends.token_dt import TokenDt
from train.augment import AugmentAudio, AugmentVision
from train.data.batches import Batches
from train.data.labelled import LabelledData
from train.data.source import Source


class EventData(LabelledData):
    """Labelled recordings of one sensor as tokens. Subclasses say where they are and how they are read.

    Args:
        root: Folder or archive.
        rule: How coordinates become a token: `channel`, `product` or `linear`.
        dt: Gap after (`next`) or before (`previous`) an event.
        batch_size: Samples per training batch and device; the last incomplete batch is left out.
        eval_batch_size: Samples per batch otherwise; nothing is left out.
        pad_unit: Batches are padded beyond the next multiple of this many items.
        augment: What training recordings go through.
        cut_mix: Probability that a training batch is mixed by CutMix.
        validation_fraction: Random part of every training class that is held back for validation.
        validate_on_test: Use the test split for validation. The published SHD and DVS Gesture runs did; a model chosen
            so has seen the test set.
        split_seed: Of the random part.
        seed: Of augmentation; by default that of the run.
        num_workers: Processes that prepare batches; 0 prepares them in between training steps.
        no_time_information: Let every gap count as 1 microsecond (ablation).
    """

    front_end: TokenDt

    def __init__(
        self,
        root: str,
        rule: str,
        dt: str,
        batch_size: int = 32,
        eval_batch_size: int = 32,
        pad_unit: int = 8192,
        augment: AugmentAudio | AugmentVision | None = None,
        cut_mix: float = 0.0,
        validation_fraction: float = 0.1,
        validate_on_test: bool = False,
        split_seed: int = 1234,
        seed: int | None = None,
        num_workers: int = 0,
        no_time_information: bool = False,
    ) -> None:
        super().__init__(
            root, batch_size, eval_batch_size, validation_fraction, validate_on_test, split_seed, seed, num_workers
        )
        if pad_unit < 1:
            raise UserError(f"data.pad_unit is {pad_unit}; give a whole number of at least 1")
        self.pad_unit, self.augment, self.cut_mix = pad_unit, augment, cut_mix
        self.front_end = TokenDt(
            rule,
            self.width,
            self.height,
            dt,
            self.width * self.height * self.polarities,
            fixed_dt_us=1.0 if no_time_information else None,
        )

    def _batches(self, source: Source, split: str) -> Batches:
        training = split == "train"
        return Batches(
            source,
            self.front_end,
            len(self.labels),
            self.pad_unit,
            self.augment if training else None,
            self.cut_mix if training else 0.0,
            self.seed,
        )
