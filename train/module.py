"""Event classification: soft-target cross entropy on event-ssm, with the published optimiser."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from models.event_ssm import EventSSM, EventSSMConfig
from runtime.errors import UserError
from runtime.front_ends.token_dt import TokenDt
from train.classifier import Classifier, check_sizes
from train.data.batch import Batch
from train.embedding_init import fourier
from train.fast import applies
from train.fast import forward as fast_forward
from train.optim import parameter_groups, schedule


@dataclass(frozen=True)
class Optimiser:
    """Two AdamW groups and a schedule (arXiv 2404.18508).

    The group of B and Lambda learns at ssm_base_lr * samples per update, everything else at lr_factor times that.

    Attributes:
        ssm_base_lr: Learning rate per sample of an update; an update sees batch size * devices * accumulation samples.
        lr_factor: Factor for parameters other than B and Lambda.
        ssm_weight_decay: Decoupled weight decay of B and Lambda.
        weight_decay: Decoupled weight decay of everything else.
        schedule: `cosine` (to zero at the end) or `constant`, after a linear warm-up.
        warmup_epochs: Length of the warm-up.
    """

    ssm_base_lr: float = 1.7e-5
    lr_factor: float = 10.0
    ssm_weight_decay: float = 0.0
    weight_decay: float = 0.03
    schedule: str = "cosine"
    warmup_epochs: float = 1.0


class EventClassifier(Classifier):
    """Trains event-ssm to name a recording's class.

    Args:
        network: The network; its tokens and classes must be those of the data.
        optimiser: Learning rates, decay and schedule.
        label_smoothing: Share of every target that is spread over all classes.
        embedding_init: `normal`, or `fourier` so that neighbouring pixels begin alike.
        embedding_length: Correlation length of `fourier`, in pixels.
        compile: Compile the network with torch.compile; needs a C++ compiler or a GPU.
        fast: On a CPU, evaluate the first layer by `train.fast`; the results are the same up to rounding.
    """

    family = "event_ssm"

    def __init__(
        self,
        network: EventSSMConfig,
        optimiser: Optimiser = Optimiser(),
        label_smoothing: float = 0.0,
        embedding_init: str = "normal",
        embedding_length: float = 4.0,
        compile: bool = False,
        fast: bool = True,
    ) -> None:
        if embedding_init not in ("normal", "fourier"):
            raise UserError(f"model.embedding_init {embedding_init!r} does not exist; choose normal or fourier")
        super().__init__(EventSSM(network), label_smoothing)
        self.optimiser = optimiser
        self.embedding_init, self.embedding_length = embedding_init, embedding_length
        if compile:
            self.model.compile()
        self.fast = fast and not compile and applies(self.model)

    def setup(self, stage: str) -> None:
        """Checks that network and data fit, and writes the initial token table."""
        network, data = self.model.config, self.trainer.datamodule
        check_sizes(network, num_embeddings=data.front_end.vocabulary, num_classes=len(data.labels))
        if data.pad_unit % network.total_downsampling:
            raise UserError(
                f"data.pad_unit {data.pad_unit} is no multiple of the network's {network.total_downsampling} "
                "events per position; choose one"
            )
        if stage == "fit" and self.embedding_init == "fourier":
            self._write_embedding(data.front_end)

    @torch.no_grad()
    def _write_embedding(self, front_end: TokenDt) -> None:
        table = fourier(front_end, self.model.config.d_model, self.embedding_length)
        self.model.embedding.weight.copy_(table)

    def forward(self, batch: Batch) -> Tensor:
        """(B, C) logits."""
        if self.fast and batch.tokens.device.type == "cpu":
            return fast_forward(self.model, batch.tokens, batch.dt, batch.lengths)
        return self.model(batch.tokens, batch.dt, batch.lengths)

    def configure_optimizers(self) -> dict[str, Any]:
        """AdamW in two groups and its schedule, one step of it per update."""
        options, trainer = self.optimiser, self.trainer
        ssm_lr = options.ssm_base_lr * self.samples_per_update
        groups = parameter_groups(self.model, ssm_lr, options.lr_factor, options.ssm_weight_decay, options.weight_decay)
        optimiser = torch.optim.AdamW(groups)
        total = int(trainer.estimated_stepping_batches)
        warmup = round(total * min(options.warmup_epochs / trainer.max_epochs, 1))
        factor = schedule(options.schedule, warmup, total)
        scheduler = torch.optim.lr_scheduler.LambdaLR(optimiser, factor)
        return {"optimizer": optimiser, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}
