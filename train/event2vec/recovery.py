"""Self-supervised training of Event2Vec: recover the coordinates of hidden events."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from models.event2vec import Event2VecConfig
from models.event2vec.recovery import Event2VecRecovery, Recovered, recovery_loss, recovery_metrics
from runtime.errors import UserError
from train.event2vec.batch import EventBatch
from train.event2vec.learner import WindowLearner, open_gates
from train.event2vec.recipe import PUBLISHED, Recipe


class Event2VecPretraining(WindowLearner):
    """Trains Event2Vec without labels; give the checkpoint to `Event2VecClassifier` as `load`.

    Args:
        network: The network, with a `mask_ratio` above 0.
        recipe: Learning rates, decay and schedule.
        forget_bias: What the biases of all forget gates begin at; by default they are drawn around 0, as published.
        load: Checkpoint whose weights training begins with, wherever names agree; which do not is printed.
    """

    def __init__(
        self,
        network: Event2VecConfig,
        recipe: Recipe = PUBLISHED,
        forget_bias: float | None = None,
        load: str | None = None,
    ) -> None:
        if not network.mask_ratio:
            raise UserError("model.network.mask_ratio is 0, so no event is hidden; give the published 0.3")
        super().__init__()
        self.model, self.recipe, self.load = Event2VecRecovery(network), recipe, load
        if forget_bias is not None:
            open_gates(self.model, forget_bias)

    def forward(self, batch: EventBatch, uniform: Tensor | None = None) -> Recovered:
        """What the network says about hidden events, and what they were."""
        intensity = None if batch.intensity is None else torch.where(batch.mask, batch.intensity, 1)
        return self.model(batch.p, batch.y, batch.x, batch.t, batch.mask, intensity, uniform)

    def training_step(self, batch: EventBatch, index: int) -> Tensor | None:
        """The loss over hidden events; nothing for a batch with a sample whose times have no scale."""
        if not batch.whole:
            return None
        recovered = self(batch)
        loss = recovery_loss(recovered)
        self._log("train", loss, recovered)
        return loss

    def validation_step(self, batch: EventBatch, index: int) -> None:
        """Logs loss and figures over hidden events, the same ones in every epoch."""
        self._evaluate("validation", batch)

    def test_step(self, batch: EventBatch, index: int) -> None:
        """Logs loss and figures over hidden events."""
        self._evaluate("test", batch)

    def predict_step(self, batch: EventBatch, index: int) -> Tensor:
        """Refuses: there are no classes.

        Raises:
            UserError: Always.
        """
        raise UserError("this network recovers hidden events and names no classes; train a classifier that loads it")

    def outcome(self, split: str, scores: Mapping[str, float]) -> str:
        """The scores of a split in words."""
        near, p = scores[f"{split}/neighbor_accuracy"], scores[f"{split}/p_accuracy"]
        y, x = scores[f"{split}/mae_y"], scores[f"{split}/mae_x"]
        return f"polarity right {p:.1%}, within 3 pixels {near:.1%}, mean error y {y:.2f} x {x:.2f} pixels"

    def _evaluate(self, split: str, batch: EventBatch) -> None:
        draw = torch.Generator().manual_seed(int(batch.rows[0]))
        uniform = torch.rand(batch.mask.shape, generator=draw).to(batch.mask.device)
        recovered = self(batch, uniform)
        self._log(split, recovery_loss(recovered), recovered)

    def _log(self, split: str, loss: Tensor, recovered: Recovered) -> None:
        figures = {"loss": loss} | (recovery_metrics(self.model.config, recovered) if len(recovered.guess) else {})
        # Averages over events, so batches weigh as many as they hide.
        count = max(len(recovered.guess), 1)
        self.log_dict(
            {f"{split}/{name}": value for name, value in figures.items()},
            on_step=False,
            on_epoch=True,
            batch_size=count,
            sync_dist=True,
        )
