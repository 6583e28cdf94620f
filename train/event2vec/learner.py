"""What both trainings of Event2Vec share: which data fit, what weights begin as, the recipe."""

from __future__ import annotations

from typing import Any

import torch
from pytorch_lightning.utilities import rank_zero_only
from torch import nn

from models.event2vec import Event2VecConfig
from runtime.errors import UserError
from train.classifier import Learner, check_sizes
from train.event2vec.recipe import Recipe
from train.event2vec.transfer import load_weights


class WindowLearner(Learner):
    """Trains an Event2Vec network on samples of events.

    Attributes:
        recipe: Learning rates, decay and schedule.
        load: Checkpoint, or name of a shipped model, whose weights training begins with; `None` for none.
        loaded: Whether they have been taken over.
    """

    family = "event2vec"
    recipe: Recipe
    load: str | None
    loaded = False

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

    def configure_optimizers(self) -> dict[str, Any]:
        """AdamW and its schedule, one step of it per epoch."""
        return self.recipe.optimiser(self.model, self.samples_per_update, self.trainer.max_epochs)


@torch.no_grad()
def open_gates(model: nn.Module, bias: float) -> None:
    """Sets the bias of every forget gate."""
    for name, parameter in model.named_parameters():
        if name.endswith("f_proj.bias"):
            parameter.fill_(bias)


def check_data(config: Event2VecConfig, data: Any) -> None:
    """Checks that network and data fit; tells the data what lengths batches need and whether times must have a scale.

    Args:
        config: The network's.
        data: A `WindowData`, whose splits are open.

    Raises:
        UserError: If sensor or classes of network and data differ, or the window cannot be pooled.
    """
    check_sizes(config, width=data.width, height=data.height, num_classes=len(data.labels), polarities=data.polarities)
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
