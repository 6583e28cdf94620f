"""The causal Event2Vec: what the published network looks like when every event must be answered as it arrives."""

from models.event2vec.causal.config import CausalConfig
from models.event2vec.causal.network import CausalEvent2Vec

__all__ = ["CausalConfig", "CausalEvent2Vec"]
