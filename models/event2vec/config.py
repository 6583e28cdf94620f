"""The hyperparameters of Event2Vec."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from models.hyperparameters import build
from runtime.errors import UserError

PUBLISHED = {"P": "polarities", "H": "height", "W": "width", "n_classes": "num_classes"}
"""Names of the published configuration files -> ours; all others are the same."""

FOR_TRAINING = ("p_token_mix", "p_intensity_drop")
COUNTS = (
    "polarities",
    "height",
    "width",
    "d_model",
    "d_feedforward",
    "nheads",
    "n_layers",
    "num_classes",
)


@dataclass(frozen=True)
class Event2VecConfig:
    """One network, fully described (arXiv 2504.15371).

    Attributes:
        polarities: Number of polarities P.
        height: Sensor rows H.
        width: Sensor columns W.
        d_model: Feature width d, divisible by 4 and by `nheads`.
        d_feedforward: Width inside a layer's feed-forward part.
        nheads: Query heads; half as many key heads, at least 1, must divide them.
        n_layers: Encoder layers in all.
        num_classes: Number of logits.
        pool_every_layer: 0 for one encoder without pooling; k for encoders of k layers, each followed by a pooling of
            two tokens to one.
        mask_ratio: Share of events hidden in self-supervised training; above 0 the network recovers events and does not
            classify.
        intensity: Whether it was trained on clusters of events weighted by their size rather than on events.
        drop_path: Rate at which the last layer's branches are dropped in training; earlier layers proportionally less.

    Raises:
        UserError: If no network can be built from the values.
    """

    polarities: int
    height: int
    width: int
    d_model: int
    d_feedforward: int
    nheads: int
    n_layers: int
    num_classes: int
    pool_every_layer: int = 0
    mask_ratio: float = 0.0
    intensity: bool = False
    drop_path: float = 0.0

    def __post_init__(self) -> None:
        for name in (*COUNTS, "pool_every_layer"):
            value, least = getattr(self, name), int(name in COUNTS)
            if isinstance(value, bool) or not isinstance(value, int) or value < least:
                raise _wrong(name, value, f"a whole number of at least {least}")
        for name in ("polarities", "height", "width"):
            if (value := getattr(self, name)) < 2:
                raise _wrong(name, value, "at least 2, since coordinates are scaled to their range")
        if not isinstance(self.intensity, bool):
            raise _wrong("intensity", self.intensity, "true or false")
        for name in ("mask_ratio", "drop_path"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value < 1:
                raise _wrong(name, value, "a number in [0, 1)")
        if self.d_model % 4 or self.d_model % self.nheads:
            raise _wrong("d_model", self.d_model, f"divisible by 4 and by nheads {self.nheads}")
        if self.nheads % self.key_heads:
            raise _wrong("nheads", self.nheads, "1, 3 or even, so that heads can share keys in pairs")
        if self.pool_every_layer and self.n_layers % self.pool_every_layer:
            raise _wrong("n_layers", self.n_layers, f"a multiple of pool_every_layer {self.pool_every_layer}")
        if self.pool_every_layer and self.mask_ratio:
            raise _wrong("pool_every_layer", self.pool_every_layer, "0 where mask_ratio is above 0")

    @property
    def key_heads(self) -> int:
        """Heads of keys and values."""
        return max(self.nheads // 2, 1)

    @property
    def encoders(self) -> tuple[int, ...]:
        """Layers of each encoder."""
        if not self.pool_every_layer:
            return (self.n_layers,)
        return (self.pool_every_layer,) * (self.n_layers // self.pool_every_layer)

    @property
    def multiple(self) -> int:
        """What the number of events must be a multiple of, so that every pooling finds pairs."""
        return 2 ** len(self.encoders) if self.pool_every_layer else 1

    @property
    def num_embeddings(self) -> int:
        """Number of different events, P H W: what a front end may count as tokens."""
        return self.polarities * self.height * self.width

    def to_json(self) -> dict[str, Any]:
        """Plain numbers under the attributes' names."""
        return asdict(self)

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
        if values.pop("activation", "relu") != "relu":
            raise UserError("event2vec config: activation must be relu, as in every published network")
        return build(cls, values, "event2vec")


def _wrong(name: str, value: Any, wanted: str) -> UserError:
    return UserError(f"event2vec config: {name} is {value!r}, it must be {wanted}")
