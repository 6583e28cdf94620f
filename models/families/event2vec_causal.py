"""Family event2vec_causal: only this software trains it, so its checkpoints always describe themselves."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from models.event2vec.causal import CausalConfig, CausalEvent2Vec
from models.event_ssm.flax import check_shapes
from models.families.base import Identity, Request
from runtime.errors import UserError


class CausalEvent2VecFamily:
    """Opens the causal Event2Vec."""

    name = "event2vec_causal"
    signs = "tensors such as tpe.convs.0.weight"
    takes = "token_dt"

    def recognises(self, names: Collection[str]) -> bool:
        """Whether the causal convolutions are among the names."""
        return {"tpe.convs.0.weight", "heads.weight"} <= set(names)

    def identify(self, tensors: Mapping[str, Tensor], request: Request) -> Identity:
        """Refuses: weights do not tell sensor, time scale or attention, and no published ones exist.

        Raises:
            UserError: Always.
        """
        raise UserError(
            "these are weights of the causal Event2Vec without their description; "
            "give model.safetensors or a .ckpt file as `python -m train fit` wrote it"
        )

    def config(self, table: Mapping[str, Any]) -> CausalConfig:
        """The configuration of a header."""
        return CausalConfig.from_json(table)

    def build(self, config: CausalConfig) -> nn.Module:
        """A freshly initialised network."""
        return CausalEvent2Vec(config)

    def state_dict(self, tensors: Mapping[str, Tensor], config: CausalConfig) -> dict[str, Tensor]:
        """The weights, under their own names."""
        with torch.device("meta"):
            wanted = {name: tuple(value.shape) for name, value in CausalEvent2Vec(config).state_dict().items()}
        check_shapes({name: tuple(tensor.shape) for name, tensor in tensors.items()}, wanted)
        return dict(tensors)
