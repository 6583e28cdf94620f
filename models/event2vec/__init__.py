"""Event2Vec: events as tokens of a bidirectional forgetting transformer (arXiv 2504.15371)."""

from models.event2vec.config import Event2VecConfig
from models.event2vec.network import Event2Vec

__all__ = ["Event2Vec", "Event2VecConfig"]
