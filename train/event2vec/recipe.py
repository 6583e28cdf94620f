"""The published optimisation: AdamW, learning rates that grow with the batch, a warm-up and half a cosine by epochs."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import nn

from runtime.errors import UserError

NORMS = (nn.LayerNorm, nn.RMSNorm, nn.BatchNorm1d, nn.Embedding)
"""Modules whose parameters do not decay; the norms of queries and keys are none of them, and decay."""

UNDECAYED = ("bias", "class_token", "mask_token", "pos_embedding", "pe_class_token")
WARMUP_FROM = 0.01
REFERENCE_BATCH = 256


@dataclass(frozen=True)
class Recipe:
    """AdamW and its schedule.

    Attributes:
        base_lr: Learning rate for updates of 256 samples; for others it is scaled in proportion.
        min_lr: What the cosine ends at.
        weight_decay: Of everything but biases, mask tokens and layer norms.
        warmup_epochs: Epochs of linear growth from a hundredth.
    """

    base_lr: float = 1e-3
    min_lr: float = 1e-6
    weight_decay: float = 0.0
    warmup_epochs: int = 4

    def optimiser(self, model: nn.Module, samples: int, epochs: int) -> dict[str, Any]:
        """What `configure_optimizers` returns.

        Args:
            model: The network.
            samples: Samples per update, over all devices.
            epochs: Of the training.

        Raises:
            UserError: If the warm-up does not fit into the training.
        """
        if not 0 <= self.warmup_epochs <= epochs:
            raise UserError(
                f"a warm-up of {self.warmup_epochs} epochs does not fit into {epochs}; shorten it or train longer"
            )
        rate = self.base_lr * samples / REFERENCE_BATCH
        optimiser = torch.optim.AdamW(parameter_groups(model, self.weight_decay), lr=rate)
        least = self.min_lr / rate if rate else 0.0
        factor = partial(rate_factor, warmup=self.warmup_epochs, total=epochs, least=least)
        scheduler = torch.optim.lr_scheduler.LambdaLR(optimiser, factor)
        return {"optimizer": optimiser, "lr_scheduler": {"scheduler": scheduler, "interval": "epoch"}}


PUBLISHED = Recipe()


def parameter_groups(model: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """The parameters that decay and those that do not."""
    groups: dict[bool, list[nn.Parameter]] = {True: [], False: []}
    for module in model.modules():
        for name, parameter in module.named_parameters(recurse=False):
            decays = not isinstance(module, NORMS) and not any(part in name for part in UNDECAYED)
            groups[decays].append(parameter)
    return [
        {"name": "decayed", "params": groups[True], "weight_decay": weight_decay},
        {"name": "undecayed", "params": groups[False], "weight_decay": 0.0},
    ]


def rate_factor(epoch: int, warmup: int, total: int, least: float) -> float:
    """The factor on the learning rate in an epoch, counted from 0.

    Args:
        epoch: The epoch.
        warmup: Epochs of the warm-up, from 0.01 upwards.
        total: Epochs in all.
        least: The factor at the end of the cosine.
    """
    if epoch < warmup:
        return WARMUP_FROM + (1 - WARMUP_FROM) * epoch / warmup
    progress = (epoch - warmup) / max(total - warmup, 1)
    return least + (1 - least) * 0.5 * (1 + math.cos(math.pi * progress))
