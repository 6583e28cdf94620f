"""The op `forgetting_attention_suffixes` (forgetting attention over windows that begin later and later)."""

from neurocompile.ops.forgetting_attention_suffixes.dispatch import NOTHING, forgetting_attention_suffixes

__all__ = ["NOTHING", "forgetting_attention_suffixes"]
