"""Family event_ssm_port: checkpoints of the PyTorch derivative, which is another network under the same config keys."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from models.config_file import nearby
from models.event_ssm.flax import check_shapes
from models.event_ssm.port import EventSSMPort
from models.event_ssm.port_config import EventSSMPortConfig
from models.families.base import Identity, Request
from models.families.published_config import complete, labels_of, sensor
from models.hyperparameters import build
from runtime.errors import UserError


class EventSSMPortFamily:
    """Opens the derivative's `model.pt`."""

    name = "event_ssm_port"
    signs = "tensors such as encoder.stages.0.layers.0.ssm_block.Lambda_raw"
    takes = "token_dt"

    def recognises(self, names: Collection[str]) -> bool:
        """Whether real eigenvalues are among the names."""
        return any(name.endswith(".ssm_block.Lambda_raw") for name in names)

    def identify(self, tensors: Mapping[str, Tensor], request: Request) -> Identity:
        """Takes the configuration given; there are no published presets.

        Raises:
            UserError: If none is given.
        """
        if request.config is None:
            what = "no presets of the PyTorch derivative exist" if request.preset else "its shapes leave pooling open"
            beside = ", ".join(str(file) for file in nearby(request.path))
            hint = f" (nearby lie {beside}; pass the one that belongs to it)" if beside else ""
            raise UserError(
                f"it is of the PyTorch derivative of event-ssm and {what}; "
                f"pass its configuration with --config FILE{hint}"
            )
        sizes = {}
        if (embedding := tensors.get("encoder.encoder.weight")) is not None and embedding.dim():
            sizes["num_embeddings"] = embedding.shape[0] - 1
        if (bias := tensors.get("decoder.bias")) is not None and bias.dim():
            sizes["num_classes"] = bias.shape[0]
        table = complete(request.config, self.name, sizes)
        if "model" in table:
            config = EventSSMPortConfig.from_upstream(table, attention_pool="attn_pool.weight" in tensors)
        else:
            config = build(EventSSMPortConfig, table, "event-ssm")
        front_end, notes = sensor(request.config, config.num_embeddings, "linear")
        return Identity(config, front_end, labels_of(request.config), ("configuration as given", *notes))

    def config(self, table: Mapping[str, Any]) -> EventSSMPortConfig:
        """The configuration of a header."""
        return build(EventSSMPortConfig, table, "event-ssm")

    def build(self, config: EventSSMPortConfig) -> nn.Module:
        """A network with the published recurrence."""
        return EventSSMPort(config)

    def state_dict(self, tensors: Mapping[str, Tensor], config: EventSSMPortConfig) -> dict[str, Tensor]:
        """Checks names and shapes; the names are the published ones."""
        with torch.device("meta"):
            wanted = {name: tuple(tensor.shape) for name, tensor in EventSSMPort(config).state_dict().items()}
        check_shapes({name: tuple(tensor.shape) for name, tensor in tensors.items()}, wanted)
        return dict(tensors)
