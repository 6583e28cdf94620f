"""The hyperparameters of the causal Event2Vec."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from models.event2vec.sizes import Sizes
from models.hyperparameters import build

ATTENTIONS = ("gated_linear", "forgetting_causal")
PLACES = ("perceptron", "table")


@dataclass(frozen=True, kw_only=True)
class CausalConfig(Sizes):
    """One network, fully described; see `Sizes` for what it shares with the published network.

    Attributes:
        attention: `gated_linear`, a state of fixed size per head, or `forgetting_causal`, softmax attention with a
            forget gate over the last `memory` tokens.
        time_scale: Milliseconds by which gaps are divided; it stands for a window's duration, which nobody knows
            before the window ends.
        memory: Tokens that `forgetting_causal` keeps keys and values of, in every layer; `gated_linear` ignores it.
        place: How an event's coordinates and polarity become a feature: `perceptron`, as published, or `table`, one
            normed row per pixel and polarity, which learns sooner on small sensors.

    Raises:
        UserError: If no network can be built from the values.
    """

    family: ClassVar[str] = "event2vec_causal"

    attention: str = "gated_linear"
    time_scale: float = 1.0
    memory: int = 256
    place: str = "perceptron"

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check_count("memory", 1)
        if self.attention not in ATTENTIONS:
            raise self._wrong("attention", " or ".join(ATTENTIONS))
        if self.place not in PLACES:
            raise self._wrong("place", " or ".join(PLACES))
        scale = self.time_scale
        if isinstance(scale, bool) or not isinstance(scale, (int, float)) or not 0 < scale < float("inf"):
            raise self._wrong("time_scale", "a number of milliseconds above 0")

    @property
    def head_width(self) -> int:
        """Channels of a head."""
        return self.d_model // self.nheads

    @classmethod
    def from_json(cls, table: Mapping[str, Any]) -> CausalConfig:
        """Rebuilds the configuration from `to_json`'s output.

        Raises:
            UserError: If a name is unknown or missing, or a value is out of range.
        """
        return build(cls, table, "event2vec_causal")
