"""What all data modules share: the front end, the splits, the loaders."""

from __future__ import annotations

import os
from abc import abstractmethod
from typing import ClassVar

import pytorch_lightning as pl
from torch.utils.data import DataLoader

from runtime.errors import UserError
from runtime.front_ends.token_dt import TokenDt
from train.augment import AugmentAudio, AugmentVision
from train.data.batch import Batch
from train.data.batches import Batches
from train.data.source import Source, Subset
from train.data.split import hold_out


class EventData(pl.LightningDataModule):
    """Labelled recordings of one sensor. Subclasses say where they are and how they are read.

    Attributes:
        width: Sensor columns, or channels.
        height: Sensor rows, 1 for audio.
        polarities: 2 if tokens tell ON from OFF.
        attribution: Whose data they are and under which licence; saved with every model trained on them.

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

    width: ClassVar[int]
    height: ClassVar[int] = 1
    polarities: ClassVar[int] = 1
    attribution: ClassVar[str] = ""

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
        super().__init__()
        for name, value in (("batch_size", batch_size), ("eval_batch_size", eval_batch_size), ("pad_unit", pad_unit)):
            if value < 1:
                raise UserError(f"data.{name} is {value}; give a whole number of at least 1")
        if not 0 <= validation_fraction < 1:
            raise UserError(f"data.validation_fraction is {validation_fraction}; give a number in [0, 1)")
        self.root = root
        self.batch_size, self.eval_batch_size, self.pad_unit = batch_size, eval_batch_size, pad_unit
        self.augment, self.cut_mix = augment, cut_mix
        self.validation_fraction, self.validate_on_test = validation_fraction, validate_on_test
        self.split_seed, self.num_workers = split_seed, num_workers
        self.seed = int(os.environ.get("PL_GLOBAL_SEED", 0)) if seed is None else seed
        self.front_end = TokenDt(
            rule,
            self.width,
            self.height,
            dt,
            self.width * self.height * self.polarities,
            fixed_dt_us=1.0 if no_time_information else None,
        )
        self.splits: dict[str, Batches] = {}

    @property
    @abstractmethod
    def labels(self) -> tuple[str, ...]:
        """What each class is called; known before any file is read."""

    @property
    def has_validation(self) -> bool:
        """Whether anything is held back to choose by."""
        return self.validate_on_test or self.validation_fraction > 0

    @abstractmethod
    def open_split(self, name: str) -> Source:
        """The recordings of `train` or `test`."""

    def open_validation(self) -> Source | None:
        """The validation split that the set brings, if any."""
        return None

    def training(self, source: Source) -> Source:
        """What is trained on, made from the recordings that are left for training."""
        return source

    def setup(self, stage: str) -> None:
        """Opens what `stage` needs."""
        if stage in ("fit", "validate") and "validation" not in self.splits:
            self._open_training()
        if stage in ("test", "predict") and "test" not in self.splits:
            self.splits["test"] = self._batches(self.open_split("test"))

    def _open_training(self) -> None:
        train = self.open_split("train")
        validation = self.open_split("test") if self.validate_on_test else self.open_validation()
        if validation is None:
            stay, held = hold_out(train.labels, self.validation_fraction, self.split_seed)
            train, validation = Subset(train, stay), Subset(train, held)
        train = self.training(train)
        if len(train) < self.batch_size:
            raise UserError(
                f"{self.root}: {len(train)} training samples do not fill one batch of {self.batch_size}; "
                "give more data or a smaller --data.batch_size"
            )
        self.splits["train"] = self._batches(train, training=True)
        self.splits["validation"] = self._batches(validation)

    def set_epoch(self, epoch: int) -> None:
        """Tells the augmentation which epoch it is."""
        self.splits["train"].epoch.fill_(epoch)

    def train_dataloader(self) -> DataLoader:
        """Shuffled batches."""
        return self._loader("train", self.batch_size, shuffle=True, drop_last=True)

    def val_dataloader(self) -> DataLoader | list:
        """All of validation, in order."""
        return self._loader("validation", self.eval_batch_size) if self.has_validation else []

    def test_dataloader(self) -> DataLoader:
        """All of test, in order."""
        return self._loader("test", self.eval_batch_size)

    def predict_dataloader(self) -> DataLoader:
        """All of test, in order."""
        return self._loader("test", self.eval_batch_size)

    def _batches(self, source: Source, training: bool = False) -> Batches:
        return Batches(
            source,
            self.front_end,
            len(self.labels),
            self.pad_unit,
            self.augment if training else None,
            self.cut_mix if training else 0.0,
            self.seed,
        )

    def _loader(self, name: str, size: int, **options: bool) -> DataLoader:
        return DataLoader(
            self.splits[name],
            batch_size=size,
            collate_fn=_whole,
            num_workers=self.num_workers,
            persistent_workers=self.num_workers > 0,
            **options,
        )


def _whole(batch: Batch) -> Batch:
    """`Batches` has collated already."""
    return batch
