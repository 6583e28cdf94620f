"""The op `forgetting_attention` (Event2Vec's softmax attention with a forget gate)."""

from neurocompile.ops.forgetting_attention.dispatch import forgetting_attention

__all__ = ["forgetting_attention"]
