"""What the data modules of Event2Vec share: how samples are drawn and augmented."""

from __future__ import annotations

from models.event2vec.presets import HOPS
from runtime.errors import UserError
from runtime.front_ends import Window
from train.augment import AugmentVision
from train.data.labelled import LabelledData
from train.data.source import Source
from train.event2vec.batches import Drawing, SampleBatches
from train.event2vec.points import check_sampler
from train.event2vec.transforms import Policy, policy


class WindowData(LabelledData):
    """Labelled recordings as samples of a number of events. Subclasses say where they are and how they are read.

    Args:
        root: Folder or archive.
        window: Events per sample, and per window of the deployed model.
        hop: Events between two answers of the deployed model; by default a sixteenth of the window.
        every: One event of so many goes into the windows of the deployed model, and into samples of `run` and `last`;
            `window` and `hop` count those.
        sampler: How training samples are drawn, see `train.event2vec.points.draw`.
        eval_sampler: How others are drawn; by default as in training.
        train_repeats: Training samples per recording and epoch.
        val_repeats: Validation samples per recording; accuracy is that over all, its spread is over the repeats.
        augment: What training recordings of events go through before samples are drawn.
        transforms: The published augmentation of training batches, e.g. `RandomTranslate-16,16/RandomDrop-0.1`.
        policy: `Sequential`, `RandomApply-q`, `RandomShuffleApply-q` or `RandomChoice`.
        eval_transforms: The same, of all other batches, always sequential.
        batch_size: Samples per training batch and device; the last incomplete batch is left out.
        eval_batch_size: Samples per batch otherwise; nothing is left out.
        validation_fraction: Random part of every training class that is held back for validation.
        validate_on_test: Use the test split for validation, as published where a set has no third split; a model chosen
            so has seen the test set.
        split_seed: Of the random part.
        seed: Of sampling and augmentation; by default that of the run.
        num_workers: Processes that prepare batches; 0 prepares them in between training steps.
    """

    polarities = 2
    front_end: Window

    def __init__(
        self,
        root: str,
        window: int = 1024,
        hop: int | None = None,
        sampler: str = "random_sample",
        eval_sampler: str | None = None,
        train_repeats: int = 1,
        val_repeats: int = 1,
        augment: AugmentVision | None = None,
        transforms: str | None = None,
        policy: str = "Sequential",
        eval_transforms: str | None = None,
        batch_size: int = 64,
        eval_batch_size: int = 64,
        validation_fraction: float = 0.1,
        validate_on_test: bool = False,
        split_seed: int = 1234,
        seed: int | None = None,
        num_workers: int = 0,
        every: int = 1,
    ) -> None:
        super().__init__(
            root, batch_size, eval_batch_size, validation_fraction, validate_on_test, split_seed, seed, num_workers
        )
        for name, value in (("train_repeats", train_repeats), ("val_repeats", val_repeats)):
            if value < 1:
                raise UserError(f"data.{name} is {value}; give a whole number of at least 1")
        check_sampler(sampler)
        check_sampler(eval_sampler or sampler)
        self.sampler, self.eval_sampler = sampler, eval_sampler or sampler
        self.train_repeats, self.val_repeats, self.augment = train_repeats, val_repeats, augment
        self.transforms = _policy(transforms, policy)
        self.eval_transforms = _policy(eval_transforms, "Sequential")
        self.front_end = Window(self.width, self.height, window, hop or max(1, window // HOPS), every)

    def _batches(self, source: Source, split: str) -> SampleBatches:
        training = split == "train"
        repeats = {"train": self.train_repeats, "validation": self.val_repeats}.get(split, 1)
        sampler = self.sampler if training else self.eval_sampler
        return SampleBatches(
            source,
            Drawing(self.front_end.window, sampler, repeats, self.front_end.every),
            (self.width, self.height),
            len(self.labels),
            self.augment if training else None,
            self.transforms if training else self.eval_transforms,
            training,
            self.seed,
        )


def _policy(items: str | None, how: str) -> Policy | None:
    return policy(items, how) if items and items != "none" else None
