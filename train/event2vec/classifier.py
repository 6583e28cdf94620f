"""Trains Event2Vec to name a sample's class, with the published recipe."""

from __future__ import annotations

import torch
from torch import Tensor

from models.event2vec import Event2Vec, Event2VecConfig
from models.event2vec.encoder import mean
from models.event2vec.events import prepare
from runtime.errors import UserError
from train.classifier import Classifier
from train.event2vec import fast as fast_pass
from train.event2vec.batch import EventBatch
from train.event2vec.learner import WindowLearner, open_gates
from train.event2vec.mixing import intensity_drop, token_mix
from train.event2vec.recipe import PUBLISHED, Recipe


class Event2VecClassifier(WindowLearner, Classifier):
    """Trains Event2Vec.

    Args:
        network: The network; its sensor and classes must be those of the data.
        recipe: Learning rates, decay and schedule.
        label_smoothing: Share of every target that is spread over all classes.
        p_token_mix: Probability that the tokens of a training batch are mixed.
        p_intensity_drop: Probability that an event's intensity counts as 1 in training.
        forget_bias: What the biases of all forget gates begin at, e.g. 4 for memories of about e^4 events; by default
            they are drawn around 0, as published, and memories of one or two events must grow.
        load: Checkpoint, or name of a shipped model, whose weights training begins with, wherever names agree; which do
            not is printed.
        fast: On a CPU, train by `train.event2vec.fast`; the results are the same up to rounding.
    """

    def __init__(
        self,
        network: Event2VecConfig,
        recipe: Recipe = PUBLISHED,
        label_smoothing: float = 0.0,
        p_token_mix: float = 0.0,
        p_intensity_drop: float = 0.0,
        forget_bias: float | None = None,
        load: str | None = None,
        fast: bool = True,
    ) -> None:
        if network.mask_ratio:
            raise UserError(
                "model.network.mask_ratio is above 0, which is for networks that recover hidden events; "
                "use train.event2vec.recovery.Event2VecPretraining, or set it to 0"
            )
        super().__init__(Event2Vec(network), label_smoothing)
        self.recipe, self.p_token_mix, self.p_intensity_drop = recipe, p_token_mix, p_intensity_drop
        self.load, self.fast = load, fast
        if forget_bias is not None:
            open_gates(self.model, forget_bias)

    def forward(self, batch: EventBatch) -> Tensor:
        """(B, C) logits."""
        if self.training and self.fast and fast_pass.applies(batch):
            return fast_pass.forward(self.model, batch)
        return self.model(*batch.inputs)

    def training_step(self, batch: EventBatch, index: int) -> Tensor | None:
        """The loss, of mixed tokens and dropped intensities where those are asked for."""
        if batch.intensity is not None and self.p_intensity_drop:
            batch = batch._replace(intensity=intensity_drop(batch.intensity, self.p_intensity_drop))
        if not batch.whole or torch.rand(()) >= self.p_token_mix:
            return super().training_step(batch, index)
        model = self.model
        inputs = prepare(model.config, batch.p, batch.y, batch.x, batch.t, batch.mask, model.heads.weight.dtype)
        tokens, targets = token_mix(model.tokens(inputs, batch.intensity), batch.targets)
        features, counted = model.encode(tokens, inputs.mask)
        logits, batch = model.heads(mean(features, counted)), batch._replace(targets=targets)
        loss = self.loss(logits, batch)
        self._log("train", loss, logits, batch)
        return loss

    def on_validation_epoch_start(self) -> None:
        """Forgets the hits of the epoch before."""
        self._hits: dict[int, list[float]] = {}

    def validation_step(self, batch: EventBatch, index: int) -> None:
        """Logs loss and accuracy, and remembers which repeat was right."""
        super().validation_step(batch, index)
        right = self._logits.argmax(1) == batch.targets.argmax(1)
        count = len(self.trainer.datamodule.splits["validation"].source)
        for row, hit in zip(batch.rows.tolist(), right.tolist(), strict=True):
            self._hits.setdefault(row // count, []).append(float(hit))

    def on_validation_epoch_end(self) -> None:
        """Logs how much accuracy varies from one repeat of the validation set to another."""
        if len(self._hits) > 1:
            each = torch.tensor([sum(hits) / len(hits) for hits in self._hits.values()])
            self.log("validation/accuracy_std", each.std(), sync_dist=True)
