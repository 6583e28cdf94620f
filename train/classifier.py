"""What all trainers share: checkpoints that say what they are; soft-target cross entropy and its metrics."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import pytorch_lightning as pl
from torch import Tensor, nn
from torch.nn import functional
from torchmetrics.classification import MulticlassAccuracy

from models.header import Header
from runtime.errors import UserError

SPLITS = ("train", "validation", "test")


class Learner(pl.LightningModule):
    """Whatever `python -m train` can train.

    Attributes:
        family: Name of the model family, as checkpoints write it.
        model: The network.
    """

    family: ClassVar[str]
    model: nn.Module

    def outcome(self, split: str, scores: Mapping[str, float]) -> str:
        """The scores of a split in words."""
        return f"loss {scores[f'{split}/loss']:.3f}"

    def begin(self, data: Any) -> None:
        """What is to be done once before training, with the data open; may refuse, since nothing has been written."""

    @property
    def samples_per_update(self) -> int:
        """Samples that an update of the weights sees, over all devices."""
        trainer = self.trainer
        return trainer.datamodule.batch_size * trainer.world_size * trainer.accumulate_grad_batches

    def on_train_epoch_start(self) -> None:
        """Tells the data which epoch it is."""
        self.trainer.datamodule.set_epoch(self.current_epoch)

    def header(self, **metadata: Any) -> Header:
        """What a checkpoint says beside the weights."""
        data = self.trainer.datamodule
        return Header(self.family, self.model.config.to_json(), data.front_end.to_json(), data.labels, metadata)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Lets `neurocompile` open the file without any of this code."""
        checkpoint["neurocompile"] = self.header(epoch=self.current_epoch, step=self.global_step).to_text()


def check_sizes(network: Any, **wanted: int) -> None:
    """Checks that a network was made for the data.

    Args:
        network: Its configuration.
        **wanted: What the data have, by the configuration's names.

    Raises:
        UserError: Naming the first size that differs.
    """
    for name, size in wanted.items():
        if getattr(network, name) != size:
            raise UserError(
                f"model.network.{name} is {getattr(network, name)}, but the data have {size}; set it to {size}"
            )


class Classifier(Learner):
    """Trains a network to name a recording's class. Subclasses say how a batch enters it and how it is optimised.

    Args:
        model: The network, with a `config` that has `num_classes` and `to_json`.
        label_smoothing: Share of every target that is spread over all classes.
    """

    def __init__(self, model: nn.Module, label_smoothing: float = 0.0) -> None:
        super().__init__()
        self.model, self.label_smoothing = model, label_smoothing
        # Metrics reset themselves every epoch only as attributes of their own.
        for split in SPLITS:
            setattr(self, f"{split}_accuracy", MulticlassAccuracy(model.config.num_classes, average="micro"))
        self._skipped = 0

    def loss(self, logits: Tensor, batch: Any) -> Tensor:
        """The training loss."""
        return functional.cross_entropy(logits, batch.targets, label_smoothing=self.label_smoothing)

    def training_step(self, batch: Any, index: int) -> Tensor | None:
        """The loss; nothing for a batch with an empty recording, as published."""
        if not batch.whole:
            self._skipped += 1
            # Other devices wait for this one's gradients.
            return 0 * self(batch).sum() if self._trainer and self._trainer.world_size > 1 else None
        logits = self(batch)
        loss = self.loss(logits, batch)
        self._log("train", loss, logits, batch)
        return loss

    def validation_step(self, batch: Any, index: int) -> None:
        """Logs loss and accuracy."""
        self._evaluate("validation", batch)

    def test_step(self, batch: Any, index: int) -> None:
        """Logs loss and accuracy."""
        self._evaluate("test", batch)

    def predict_step(self, batch: Any, index: int) -> Tensor:
        """(B, C) logits."""
        return self(batch)

    def on_train_epoch_end(self) -> None:
        """Says how many batches were skipped."""
        if self._skipped:
            self.print(
                f"{self._skipped} batches with a recording of no events were skipped in epoch {self.current_epoch}"
            )
            self._skipped = 0

    def outcome(self, split: str, scores: Mapping[str, float]) -> str:
        """The accuracy of a split in words."""
        return f"accuracy {100 * scores[f'{split}/accuracy']:.2f} %"

    def _evaluate(self, split: str, batch: Any) -> None:
        logits = self(batch)
        self._logits = logits
        self._log(split, functional.cross_entropy(logits, batch.targets), logits, batch)

    def _log(self, split: str, loss: Tensor, logits: Tensor, batch: Any) -> None:
        accuracy = getattr(self, f"{split}_accuracy")
        accuracy(logits, batch.targets.argmax(1))
        options = {"on_step": False, "on_epoch": True, "batch_size": len(batch.targets), "sync_dist": True}
        self.log(f"{split}/loss", loss, **options)
        self.log(f"{split}/accuracy", accuracy, **options)
