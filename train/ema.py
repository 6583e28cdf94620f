"""Exponential moving average of the weights: evaluated and shipped in place of the trained ones."""

from __future__ import annotations

from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor


class WeightAverage(pl.Callback):
    """Keeps average <- d average + (1 - d) weights, with d = min(decay, (1 + n) / (10 + n)) after n updates.

    Validation, test and prediction see the average. Checkpoints hold it as `ema_state_dict`, under the names of
    `state_dict`. Buffers are taken over as they are.

    Args:
        decay: Share of the average that an update keeps, in [0, 1).
    """

    def __init__(self, decay: float = 0.999) -> None:
        self.decay = decay
        self.average: dict[str, Tensor] = {}
        self.updates = 0
        self._step = 0
        self._trained: dict[str, Tensor] | None = None

    @torch.no_grad()
    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Begins at the initial weights, or goes on from a checkpoint."""
        if not self.average:
            self.average = {name: value.detach().clone() for name, value in pl_module.state_dict().items()}
        self.average = {name: value.to(pl_module.device) for name, value in self.average.items()}
        self._step = trainer.global_step

    @torch.no_grad()
    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *_: Any) -> None:
        """Updates the average once per optimiser step."""
        if trainer.global_step == self._step:
            return
        self._step = trainer.global_step
        self.updates += 1
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
        trainable = {name for name, _ in pl_module.named_parameters()}
        for name, value in pl_module.state_dict().items():
            if name in trainable:
                self.average[name].lerp_(value, 1 - decay)
            else:
                self.average[name].copy_(value)

    @torch.no_grad()
    def _enter(self, pl_module: pl.LightningModule) -> None:
        if self.average and self._trained is None:
            self._trained = {name: value.detach().clone() for name, value in pl_module.state_dict().items()}
            pl_module.load_state_dict(self.average)

    def _leave(self, pl_module: pl.LightningModule) -> None:
        if self._trained is not None:
            pl_module.load_state_dict(self._trained)
            self._trained = None

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Puts the average in place."""
        self._enter(pl_module)

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Puts the trained weights back."""
        self._leave(pl_module)

    on_test_start = on_predict_start = on_validation_start
    on_test_end = on_predict_end = on_validation_end

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        """Puts the trained weights back."""
        self._leave(pl_module)

    def state_dict(self) -> dict[str, int]:
        """What a resumed run needs beside the average."""
        return {"updates": self.updates}

    def load_state_dict(self, state_dict: dict[str, int]) -> None:
        """Goes on from `state_dict`."""
        self.updates = state_dict["updates"]

    def on_save_checkpoint(self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict) -> None:
        """Adds the average."""
        checkpoint["ema_state_dict"] = {name: value.cpu() for name, value in self.average.items()}

    def on_load_checkpoint(self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict) -> None:
        """Takes the average over."""
        average = checkpoint.get("ema_state_dict", {})
        self.average = {name: value.to(pl_module.device) for name, value in average.items()}
