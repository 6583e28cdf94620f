"""The hyperparameters of the causal Event2Vec."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from models.hyperparameters import build
from runtime.errors import UserError

ATTENTIONS = ("gated_linear", "forgetting_causal")
PLACES = ("perceptron", "table")
COUNTS = ("polarities", "height", "width", "d_model", "d_feedforward", "nheads", "n_layers", "num_classes")


@dataclass(frozen=True)
class CausalConfig:
    """One network, fully described.

    Attributes:
        polarities: Number of polarities P.
        height: Sensor rows H.
        width: Sensor columns W.
        d_model: Feature width d, divisible by 4 and by `nheads`.
        d_feedforward: Width inside a layer's feed-forward part.
        nheads: Query heads; half as many key heads, at least 1, must divide them.
        n_layers: Encoder layers in all.
        num_classes: Number of logits.
        attention: `gated_linear`, a state of fixed size per head, or `forgetting_causal`, softmax attention with a
            forget gate over the last `memory` tokens.
        time_scale: Milliseconds by which gaps are divided; it stands for a window's duration, which nobody knows
            before the window ends.
        memory: Tokens that `forgetting_causal` keeps keys and values of, in every layer; `gated_linear` ignores it.
        place: How an event's coordinates and polarity become a feature: `perceptron`, as published, or `table`, one
            normed row per pixel and polarity, which learns sooner on small sensors.
        pool_every_layer: 0 for one encoder without pooling; k for encoders of k layers, each followed by a pooling of
            two tokens to one.
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
    attention: str = "gated_linear"
    time_scale: float = 1.0
    memory: int = 256
    place: str = "perceptron"
    pool_every_layer: int = 0
    drop_path: float = 0.0

    def __post_init__(self) -> None:
        for name in (*COUNTS, "memory", "pool_every_layer"):
            value, least = getattr(self, name), int(name != "pool_every_layer")
            if isinstance(value, bool) or not isinstance(value, int) or value < least:
                raise _wrong(name, value, f"a whole number of at least {least}")
        for name in ("polarities", "height", "width"):
            if (value := getattr(self, name)) < 2:
                raise _wrong(name, value, "at least 2, since coordinates are scaled to their range")
        if self.attention not in ATTENTIONS:
            raise _wrong("attention", self.attention, " or ".join(ATTENTIONS))
        if self.place not in PLACES:
            raise _wrong("place", self.place, " or ".join(PLACES))
        if not _real(self.time_scale) or not 0 < self.time_scale < float("inf"):
            raise _wrong("time_scale", self.time_scale, "a number of milliseconds above 0")
        if not _real(self.drop_path) or not 0 <= self.drop_path < 1:
            raise _wrong("drop_path", self.drop_path, "a number in [0, 1)")
        if self.d_model % 4 or self.d_model % self.nheads:
            raise _wrong("d_model", self.d_model, f"divisible by 4 and by nheads {self.nheads}")
        if self.nheads % self.key_heads:
            raise _wrong("nheads", self.nheads, "1, 3 or even, so that heads can share keys in pairs")
        if self.pool_every_layer and self.n_layers % self.pool_every_layer:
            raise _wrong("n_layers", self.n_layers, f"a multiple of pool_every_layer {self.pool_every_layer}")

    @property
    def key_heads(self) -> int:
        """Heads of keys and values."""
        return max(self.nheads // 2, 1)

    @property
    def head_width(self) -> int:
        """Channels of a head."""
        return self.d_model // self.nheads

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
        """Number of different events, P H W."""
        return self.polarities * self.height * self.width

    def to_json(self) -> dict[str, Any]:
        """Plain numbers under the attributes' names."""
        return asdict(self)

    @classmethod
    def from_json(cls, table: Mapping[str, Any]) -> CausalConfig:
        """Rebuilds the configuration from `to_json`'s output.

        Raises:
            UserError: If a name is unknown or missing, or a value is out of range.
        """
        return build(cls, table, "event2vec_causal")


def _real(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _wrong(name: str, value: Any, wanted: str) -> UserError:
    return UserError(f"event2vec_causal config: {name} is {value!r}, it must be {wanted}")
