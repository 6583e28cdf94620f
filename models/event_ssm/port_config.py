"""The hyperparameters that the PyTorch derivative of event-ssm heeds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from torch import nn

from models.event_ssm.config import EventSSMConfig, merge_upstream
from models.hyperparameters import build
from runtime.errors import UserError

WITHOUT_EFFECT = ("ssm_block_size", "C_init", "conj_sym", "clip_eigs", "dt_min", "dt_max", "dropout")
"""Published keys that do not change the derivative's evaluation."""


@dataclass(frozen=True)
class EventSSMPortConfig:
    """One network of the derivative; attributes as in `EventSSMConfig` where not told otherwise.

    Attributes:
        classification_mode: `pool`, `timepool`, `last` or `attnpool`.
        bn_momentum: Torch's convention, the share of the new batch.
        attention_pool: Whether the checkpoint has the layer `attn_pool`; older ones do not.

    Raises:
        UserError: If no network can be built from the values.
    """

    num_embeddings: int
    num_classes: int
    d_model: int
    d_ssm: int
    num_stages: int
    num_layers_per_stage: int
    discretization: str = "async"
    classification_mode: str = "timepool"
    prenorm: bool = True
    batchnorm: bool = False
    bn_momentum: float = 0.95
    pooling_stride: int = 1
    pooling_mode: str = "timepool"
    state_expansion_factor: int = 1
    step_rescale: float = 1.0
    attention_pool: bool = True

    def __post_init__(self) -> None:
        if self.classification_mode == "attnpool" and not self.attention_pool:
            raise UserError("event-ssm port config: classification_mode attnpool needs attention_pool; set it to true")
        if self.num_stages > 2 and self.state_expansion_factor > 1:
            raise UserError(
                f"event-ssm port config: {self.num_stages} stages with state_expansion_factor "
                f"{self.state_expansion_factor} do not fit its decoder; use at most 2 stages or a factor of 1"
            )
        self._base()

    def _base(self) -> EventSSMConfig:
        """The published configuration of the same shape; the two share their checks."""
        values = {name: value for name, value in asdict(self).items() if name != "attention_pool"}
        if self.classification_mode == "attnpool":
            values["classification_mode"] = "pool"
        return EventSSMConfig(**values, ssm_block_size=1)

    @property
    def total_downsampling(self) -> int:
        """Events per position of the last stage."""
        return self.pooling_stride**self.num_stages

    @property
    def stage_widths(self) -> tuple[tuple[int, int, int], ...]:
        """Of each stage: width in, width out, number of real states."""
        return self._base().stage_widths

    @property
    def width(self) -> int:
        """Width that the decoder reads."""
        return self.stage_widths[-1][1]

    def norm(self, width: int) -> nn.Module:
        """The norm of (N, `width`) rows."""
        return nn.BatchNorm1d(width, momentum=self.bn_momentum) if self.batchnorm else nn.LayerNorm(width)

    @classmethod
    def from_upstream(cls, table: Mapping[str, Any], *, attention_pool: bool = True) -> EventSSMPortConfig:
        """Reads the published nesting `{model: {ssm_init: .., ssm: ..}, data: ..}`.

        Args:
            table: The resolved configuration.
            attention_pool: Whether the checkpoint has the layer `attn_pool`.

        Returns:
            The configuration.

        Raises:
            UserError: If a value is missing, unknown or out of range.
        """
        values = {name: value for name, value in merge_upstream(table).items() if name not in WITHOUT_EFFECT}
        return build(cls, values | {"attention_pool": attention_pool}, "event-ssm")
