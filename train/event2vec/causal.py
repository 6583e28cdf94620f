"""Trains the causal Event2Vec on streams of tokens, with the published recipe."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from models.event2vec.causal import CausalConfig, CausalEvent2Vec
from runtime.errors import UserError
from train.classifier import Classifier, check_sizes
from train.data.batch import Batch
from train.embedding_init import fourier
from train.event2vec.learner import open_gates
from train.event2vec.recipe import PUBLISHED, Recipe


class CausalClassifier(Classifier):
    """Trains the causal Event2Vec to name a recording's class.

    Args:
        network: The network; its sensor and classes must be those of the data.
        recipe: Learning rates, decay and schedule.
        label_smoothing: Share of every target that is spread over all classes.
        forget_bias: What the biases of all forget gates begin at, e.g. 4 for memories of about e^4 tokens; by default
            they are drawn around 0.
        embedding_length: Where `place` is `table`, its correlation length in pixels: neighbouring pixels begin alike.
    """

    family = "event2vec_causal"

    def __init__(
        self,
        network: CausalConfig,
        recipe: Recipe = PUBLISHED,
        label_smoothing: float = 0.0,
        forget_bias: float | None = None,
        embedding_length: float = 4.0,
    ) -> None:
        super().__init__(CausalEvent2Vec(network), label_smoothing)
        self.recipe, self.embedding_length = recipe, embedding_length
        if forget_bias is not None:
            open_gates(self.model, forget_bias)

    def setup(self, stage: str) -> None:
        """Checks that network and data fit, and writes the initial token table where there is one."""
        network, data = self.model.config, self.trainer.datamodule
        check_sizes(
            network, width=data.width, height=data.height, polarities=data.polarities, num_classes=len(data.labels)
        )
        if (data.front_end.rule, data.front_end.dt) != ("linear", "previous"):
            raise UserError(
                f"data.rule {data.front_end.rule} with data.dt {data.front_end.dt} does not fit a network that takes "
                "tokens apart and answers at once; set data.rule to linear and data.dt to previous"
            )
        if stage == "fit" and network.place == "table":
            table = fourier(data.front_end, network.d_model, self.embedding_length)
            with torch.no_grad():
                self.model.embed_net[0].weight.copy_(table)

    def forward(self, batch: Batch) -> Tensor:
        """(B, C) logits."""
        return self.model(batch.tokens, batch.dt, batch.lengths)

    def configure_optimizers(self) -> dict[str, Any]:
        """AdamW and its schedule, one step of it per epoch."""
        return self.recipe.optimiser(self.model, self.samples_per_update, self.trainer.max_epochs)
