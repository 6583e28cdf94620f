"""The hyperparameters of event-ssm under the names of the published configuration files."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from models.hyperparameters import build
from runtime.errors import UserError

CHOICES = {
    "discretization": ("zoh", "dirac", "async"),
    "C_init": ("trunc_standard_normal", "lecun_normal", "complex_normal"),
    "classification_mode": ("pool", "timepool", "last"),
    "pooling_mode": ("last", "avgpool", "timepool"),
}
COUNTS = (
    "num_embeddings",
    "num_classes",
    "d_model",
    "d_ssm",
    "ssm_block_size",
    "num_stages",
    "num_layers_per_stage",
    "pooling_stride",
    "state_expansion_factor",
)
SWITCHES = ("conj_sym", "clip_eigs", "prenorm", "batchnorm")
WITHOUT_EFFECT = ("pooling_every_n_layers",)


@dataclass(frozen=True)
class EventSSMConfig:
    """One network, fully described (arXiv 2404.18508).

    Attributes:
        num_embeddings: Number of tokens; the last row also stands for padding.
        num_classes: Number of logits.
        d_model: Feature width H of the first stage.
        d_ssm: State size P of the first stage, before conjugate symmetry halves what is stored.
        ssm_block_size: Size of one HiPPO block of the initialisation; divides `d_ssm`.
        num_stages: Number of stages.
        num_layers_per_stage: Layers in each stage; the first of them pools.
        discretization: `zoh`, `dirac` or `async`.
        dt_min: Smallest initial step, in 1/ms.
        dt_max: Largest initial step, in 1/ms.
        conj_sym: Store one state of each conjugate pair and double the read-out.
        clip_eigs: Keep the real part of the eigenvalues at or below -1e-4.
        C_init: `trunc_standard_normal`, `lecun_normal` or `complex_normal`.
        dropout: Rate, in [0, 1).
        classification_mode: `pool`, `timepool` or `last`.
        prenorm: Normalise before the S5 layer instead of after the residual sum.
        batchnorm: Batch instead of layer normalisation.
        bn_momentum: How much of the running statistics one update keeps (Flax's convention), in [0, 1].
        pooling_stride: Events per group S; 1 means no pooling.
        pooling_mode: `last`, `avgpool` or `timepool`.
        state_expansion_factor: Factor by which state and width grow from stage to stage.
        step_rescale: Factor on every learned step.

    Raises:
        UserError: If no network can be built from the values.
    """

    num_embeddings: int
    num_classes: int
    d_model: int
    d_ssm: int
    ssm_block_size: int
    num_stages: int
    num_layers_per_stage: int
    discretization: str = "async"
    dt_min: float = 0.004
    dt_max: float = 0.1
    conj_sym: bool = False
    clip_eigs: bool = False
    C_init: str = "lecun_normal"
    dropout: float = 0.0
    classification_mode: str = "timepool"
    prenorm: bool = True
    batchnorm: bool = False
    bn_momentum: float = 0.95
    pooling_stride: int = 1
    pooling_mode: str = "timepool"
    state_expansion_factor: int = 1
    step_rescale: float = 1.0

    def __post_init__(self) -> None:
        for name in COUNTS:
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise UserError(f"event-ssm config: {name} is {value!r}, it must be a whole number of at least 1")
        for name in SWITCHES:
            if not isinstance(getattr(self, name), bool):
                raise UserError(f"event-ssm config: {name} is {getattr(self, name)!r}, it must be true or false")
        for name, choices in CHOICES.items():
            if getattr(self, name) not in choices:
                raise UserError(
                    f"event-ssm config: {name} {getattr(self, name)!r} does not exist; "
                    f"choose one of {', '.join(choices)}"
                )
        self._check_numbers()
        if self.d_ssm % self.ssm_block_size:
            raise UserError(
                f"event-ssm config: ssm_block_size {self.ssm_block_size} does not divide d_ssm {self.d_ssm}; "
                "choose a divisor"
            )
        if self.conj_sym and self.ssm_block_size % 2:
            raise UserError(
                f"event-ssm config: conj_sym keeps half of every block, but ssm_block_size {self.ssm_block_size} "
                "is odd; choose an even one"
            )
        if self.num_stages > 3 and self.state_expansion_factor > 1:
            raise UserError(
                f"event-ssm config: {self.num_stages} stages with state_expansion_factor {self.state_expansion_factor} "
                "do not fit together (the third stage does not widen, the fourth expects that it does); "
                "use at most 3 stages or a factor of 1"
            )

    def _check_numbers(self) -> None:
        numbers = {name: getattr(self, name) for name in ("dt_min", "dt_max", "dropout", "bn_momentum", "step_rescale")}
        for name, value in numbers.items():
            if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
                raise UserError(f"event-ssm config: {name} is {value!r}, it must be a finite number")
        if not 0 < self.dt_min <= self.dt_max:
            raise UserError(
                f"event-ssm config: dt_min {self.dt_min} and dt_max {self.dt_max} must satisfy 0 < dt_min <= dt_max"
            )
        if not 0 <= self.dropout < 1:
            raise UserError(f"event-ssm config: dropout {self.dropout} must lie in [0, 1)")
        if not 0 <= self.bn_momentum <= 1:
            raise UserError(f"event-ssm config: bn_momentum {self.bn_momentum} must lie in [0, 1]")
        if self.step_rescale <= 0:
            raise UserError(f"event-ssm config: step_rescale {self.step_rescale} must be positive")

    @property
    def total_downsampling(self) -> int:
        """Events per position of the last stage, S^num_stages."""
        return self.pooling_stride**self.num_stages

    @property
    def stage_widths(self) -> tuple[tuple[int, int, int], ...]:
        """Of each stage: width in, width out, number P' of stored complex states.

        As published: the second stage widens to f H, the third does not widen although its state grows.
        """
        factor = self.state_expansion_factor
        width_in = width_out = self.d_model
        states = self.d_ssm // 2 if self.conj_sym else self.d_ssm
        widths = []
        for stage in range(self.num_stages):
            widths.append((width_in, width_out, states))
            states, width_out = states * factor, width_in * factor
            if stage:
                width_in *= factor
        return tuple(widths)

    @property
    def width(self) -> int:
        """Width that the decoder reads."""
        return self.stage_widths[-1][1]

    def to_json(self) -> dict[str, Any]:
        """Plain numbers, strings and booleans under the attributes' names."""
        return asdict(self)

    @classmethod
    def from_json(cls, table: Mapping[str, Any]) -> EventSSMConfig:
        """Rebuilds the configuration from `to_json`'s output.

        Raises:
            UserError: If a name is unknown or missing, or a value is out of range.
        """
        return build(cls, table, "event-ssm")

    @classmethod
    def from_upstream(
        cls, table: Mapping[str, Any], *, num_embeddings: int | None = None, num_classes: int | None = None
    ) -> EventSSMConfig:
        """Reads the published nesting `{model: {ssm_init: .., ssm: ..}, data: ..}`.

        Args:
            table: The resolved configuration.
            num_embeddings: Takes the place of `data.num_embeddings`.
            num_classes: Takes the place of `data.num_classes`.

        Returns:
            The configuration.

        Raises:
            UserError: If a part or value is missing, unknown or out of range.
        """
        given = {"num_embeddings": num_embeddings, "num_classes": num_classes}
        return cls.from_json(merge_upstream(table) | {name: n for name, n in given.items() if n is not None})


def merge_upstream(table: Mapping[str, Any]) -> dict[str, Any]:
    """Flattens the published nesting to one table of names and values.

    Raises:
        UserError: If a part of the nesting is missing.
    """
    merged: dict[str, Any] = {}
    model = table.get("model")
    for part in ("ssm_init", "ssm"):
        if not isinstance(model, Mapping) or not isinstance(model.get(part), Mapping):
            raise UserError(f"event-ssm config: model.{part} is missing; give the published nesting model.{part}")
        merged |= model[part]
    data = table.get("data") or {}
    merged |= {name: data[name] for name in ("num_embeddings", "num_classes") if name in data}
    return {name: value for name, value in merged.items() if name not in WITHOUT_EFFECT}
