"""Trains Event2Vec to name a sample's class, with the published recipe."""

from __future__ import annotations

from typing import Any

import torch
from pytorch_lightning.utilities import rank_zero_only
from torch import Tensor, nn

from models.event2vec import Event2Vec, Event2VecConfig
from models.event2vec.encoder import mean
from models.event2vec.events import prepare
from runtime.errors import UserError
from train.classifier import Classifier
from train.event2vec import fast as fast_pass
from train.event2vec.batch import EventBatch
from train.event2vec.mixing import intensity_drop, token_mix
from train.event2vec.recipe import PUBLISHED, Recipe
from train.event2vec.transfer import load_weights


class Event2VecClassifier(Classifier):
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

    family = "event2vec"

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
        self.load, self.loaded, self.fast = load, False, fast
        if forget_bias is not None:
            open_gates(self.model, forget_bias)

    def begin(self, data: Any) -> None:
        """Checks that network and data fit, and takes over the weights that training begins with."""
        check_data(self.model.config, data)
        if self.load is not None and not self.loaded:
            rank_zero_only(print)(load_weights(self.model, self.load))
            self.loaded = True

    def setup(self, stage: str) -> None:
        """See `begin`, which the commands call before anything is written."""
        if stage == "fit":
            self.begin(self.trainer.datamodule)
        else:
            check_data(self.model.config, self.trainer.datamodule)

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

    def configure_optimizers(self) -> dict[str, Any]:
        """AdamW and its schedule, one step of it per epoch."""
        trainer = self.trainer
        samples = trainer.datamodule.batch_size * trainer.world_size * trainer.accumulate_grad_batches
        return self.recipe.optimiser(self.model, samples, trainer.max_epochs)


@torch.no_grad()
def open_gates(model: nn.Module, bias: float) -> None:
    """Sets the bias of every forget gate."""
    for name, parameter in model.named_parameters():
        if name.endswith("f_proj.bias"):
            parameter.fill_(bias)


def check_data(config: Event2VecConfig, data: Any) -> None:
    """Tells the data what length batches need, and whether the times of a sample must have a scale.

    Raises:
        UserError: If sensor or classes of network and data differ, or the window cannot be pooled.
    """
    pairs = (("width", data.width), ("height", data.height), ("num_classes", len(data.labels)))
    for name, wanted in (*pairs, ("polarities", data.polarities)):
        if getattr(config, name) != wanted:
            raise UserError(
                f"model.network.{name} is {getattr(config, name)}, but the data have {wanted}; set it to {wanted}"
            )
    if config.intensity != data.front_end.intensity:
        raise UserError(
            f"model.network.intensity is {str(config.intensity).lower()}, but the data hold "
            f"{'clusters with intensities' if data.front_end.intensity else 'single events'}; "
            f"set it to {str(data.front_end.intensity).lower()}"
        )
    if data.front_end.window % config.total_downsampling:
        raise UserError(
            f"data.window {data.front_end.window} cannot be halved {len(config.encoders)} times by pooling; "
            f"choose a multiple of {config.total_downsampling}"
        )
    for split in data.splits.values():
        split.multiple, split.scaled = config.total_downsampling, config.time_scale is None
