"""What all data modules share: splits of labelled recordings and the loaders over them."""

from __future__ import annotations

import os
from abc import abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar, Protocol

import pytorch_lightning as pl
from torch import Tensor
from torch.utils.data import DataLoader

from runtime.errors import UserError
from runtime.front_ends import FrontEnd
from train.data.source import Source, Subset
from train.data.split import hold_out


class BatchSet(Protocol):
    """A dataset that makes whole batches; see `train.data.batches.Batches`."""

    source: Source
    epoch: Tensor

    def __len__(self) -> int: ...

    def __getitems__(self, rows: Sequence[int]) -> Any: ...


class LabelledData(pl.LightningDataModule):
    """Labelled recordings of one sensor, in splits. Subclasses say where they are and what a batch is.

    Attributes:
        width: Sensor columns, or channels.
        height: Sensor rows, 1 for audio.
        polarities: 2 if ON and OFF are told apart.
        attribution: Whose data they are and under which licence; saved with every model trained on them.
        front_end: How a deployed model is fed; set by subclasses.

    Args:
        root: Folder or archive.
        batch_size: Samples per training batch and device; the last incomplete batch is left out.
        eval_batch_size: Samples per batch otherwise; nothing is left out.
        validation_fraction: Random part of every training class that is held back for validation.
        validate_on_test: Use the test split for validation.
        split_seed: Of the random part.
        seed: Of augmentation; by default that of the run.
        num_workers: Processes that prepare batches; 0 prepares them in between training steps.
    """

    width: ClassVar[int]
    height: ClassVar[int] = 1
    polarities: ClassVar[int] = 1
    attribution: ClassVar[str] = ""
    front_end: FrontEnd

    def __init__(
        self,
        root: str,
        batch_size: int = 32,
        eval_batch_size: int = 32,
        validation_fraction: float = 0.1,
        validate_on_test: bool = False,
        split_seed: int = 1234,
        seed: int | None = None,
        num_workers: int = 0,
    ) -> None:
        super().__init__()
        for name, value in (("batch_size", batch_size), ("eval_batch_size", eval_batch_size)):
            if value < 1:
                raise UserError(f"data.{name} is {value}; give a whole number of at least 1")
        if not 0 <= validation_fraction < 1:
            raise UserError(f"data.validation_fraction is {validation_fraction}; give a number in [0, 1)")
        self.root = root
        self.batch_size, self.eval_batch_size = batch_size, eval_batch_size
        self.validation_fraction, self.validate_on_test = validation_fraction, validate_on_test
        self.split_seed, self.num_workers = split_seed, num_workers
        self.seed = int(os.environ.get("PL_GLOBAL_SEED", 0)) if seed is None else seed
        self.splits: dict[str, BatchSet] = {}

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
            self.splits["test"] = self._batches(self.open_split("test"), "test")

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
        self.splits["train"] = self._batches(train, "train")
        self.splits["validation"] = self._batches(validation, "validation")

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

    @abstractmethod
    def _batches(self, source: Source, split: str) -> BatchSet:
        """The batches of `train`, `validation` or `test`."""

    def _loader(self, name: str, size: int, **options: bool) -> DataLoader:
        return DataLoader(
            self.splits[name],
            batch_size=size,
            collate_fn=_whole,
            num_workers=self.num_workers,
            persistent_workers=self.num_workers > 0,
            **options,
        )


def _whole(batch: Any) -> Any:
    """The dataset has collated already."""
    return batch
