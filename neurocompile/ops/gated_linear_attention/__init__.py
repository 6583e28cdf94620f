"""The op `gated_linear_attention` (linear attention with a forget gate per step and head)."""

from neurocompile.ops.gated_linear_attention.dispatch import gated_linear_attention
from neurocompile.ops.gated_linear_attention.step import step

__all__ = ["gated_linear_attention", "step"]
