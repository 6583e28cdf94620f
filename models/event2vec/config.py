"""The hyperparameters of Event2Vec."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from models.event2vec.sizes import Sizes
from models.hyperparameters import build
from runtime.errors import UserError

PUBLISHED = {"P": "polarities", "H": "height", "W": "width", "n_classes": "num_classes"}
"""Names of the published configuration files -> ours; all others are the same."""

FOR_TRAINING = (
    "p_token_mix", "p_intensity_drop", "train_transform_args", "train_transform_policy", "compile", "lr", "min_lr",
    "batch_size", "warmup_epochs", "optimizer", "lrs", "wd", "label_smoothing", "load",
)  # fmt: skip
"""What else published configuration files say of the model, which a trained one does not depend on."""


@dataclass(frozen=True, kw_only=True)
class Event2VecConfig(Sizes):
    """One network, fully described (arXiv 2504.15371); see `Sizes` for what it shares with the causal network.

    Attributes:
        mask_ratio: Share of events hidden in self-supervised training; above 0 the network recovers events and does not
            classify.
        intensity: Whether it was trained on clusters of events weighted by their size rather than on events.
        time_scale: Milliseconds that gaps are divided by, instead of by the time of a window; the temporal convolution
            then looks back only. Another network than the published one, whose tokens do not depend on the window, so
            that streams make them once. `None` as published.

    Raises:
        UserError: If no network can be built from the values.
    """

    family: ClassVar[str] = "event2vec"

    mask_ratio: float = 0.0
    intensity: bool = False
    time_scale: float | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if not isinstance(self.intensity, bool):
            raise self._wrong("intensity", "true or false")
        self._check_share("mask_ratio")
        scale = self.time_scale
        real = isinstance(scale, (int, float)) and not isinstance(scale, bool)
        if scale is not None and not (real and 0 < scale < 1e9):
            raise self._wrong("time_scale", "a number of milliseconds above 0, or left out")
        if scale is not None and self.mask_ratio:
            raise self._wrong("time_scale", "left out where mask_ratio is above 0")
        if self.pool_every_layer and self.mask_ratio:
            raise self._wrong("pool_every_layer", "0 where mask_ratio is above 0")

    @classmethod
    def from_json(cls, table: Mapping[str, Any]) -> Event2VecConfig:
        """Rebuilds the configuration from `to_json`'s output, or from the published names.

        Raises:
            UserError: If a name is unknown or missing, or a value is out of range.
        """
        values = {PUBLISHED.get(name, name): value for name, value in table.items() if name not in FOR_TRAINING}
        # The published network also takes the size that events are scaled to, which no configuration changes.
        for small, full in (("h", "height"), ("w", "width")):
            if small in values and values.pop(small) != values.get(full):
                raise UserError(f"event2vec config: {small} differs from {full}; events are only taken in full size")
        if values.pop("test_transform_args", None) not in (None, "", "none"):
            raise UserError("event2vec config: test_transform_args changes events before the network; leave it empty")
        if values.pop("activation", "relu") != "relu":
            raise UserError("event2vec config: activation must be relu, as in every published network")
        return build(cls, values, "event2vec")
