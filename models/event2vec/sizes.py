"""What both Event2Vec networks are described by: sizes, and what they must satisfy."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, ClassVar

from runtime.errors import UserError

COUNTS = ("polarities", "height", "width", "d_model", "d_feedforward", "nheads", "n_layers", "num_classes")


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """The part of a configuration that both networks have (arXiv 2504.15371).

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
        drop_path: Rate at which the last layer's branches are dropped in training; earlier layers proportionally less.

    Raises:
        UserError: If no network can be built from the values.
    """

    family: ClassVar[str]

    polarities: int
    height: int
    width: int
    d_model: int
    d_feedforward: int
    nheads: int
    n_layers: int
    num_classes: int
    pool_every_layer: int = 0
    drop_path: float = 0.0

    def __post_init__(self) -> None:
        for name in COUNTS:
            self._check_count(name, 1)
        self._check_count("pool_every_layer", 0)
        self._check_share("drop_path")
        for name in ("polarities", "height", "width"):
            if getattr(self, name) < 2:
                raise self._wrong(name, "at least 2, since coordinates are scaled to their range")
        if self.d_model % 4 or self.d_model % self.nheads:
            raise self._wrong("d_model", f"divisible by 4 and by nheads {self.nheads}")
        if self.nheads % self.key_heads:
            raise self._wrong("nheads", "1, 3 or even, so that heads can share keys in pairs")
        if self.pool_every_layer and self.n_layers % self.pool_every_layer:
            raise self._wrong("n_layers", f"a multiple of pool_every_layer {self.pool_every_layer}")

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
    def total_downsampling(self) -> int:
        """Events per token of the head."""
        return 2 ** len(self.encoders) if self.pool_every_layer else 1

    @property
    def num_embeddings(self) -> int:
        """Number of different events, P H W: what a front end may count as tokens."""
        return self.polarities * self.height * self.width

    def to_json(self) -> dict[str, Any]:
        """Plain values under the attributes' names."""
        return asdict(self)

    def _check_count(self, name: str, least: int) -> None:
        value = getattr(self, name)
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise self._wrong(name, f"a whole number of at least {least}")

    def _check_share(self, name: str) -> None:
        value = getattr(self, name)
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value < 1:
            raise self._wrong(name, "a number in [0, 1)")

    def _wrong(self, name: str, wanted: str) -> UserError:
        return UserError(f"{self.family} config: {name} is {getattr(self, name)!r}, it must be {wanted}")
