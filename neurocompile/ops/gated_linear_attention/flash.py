"""`gated_linear_attention` by the kernels of flash-linear-attention (`fla`, MIT), for training on CUDA devices."""

from __future__ import annotations

from fla.ops.simple_gla import chunk_simple_gla
from torch import Tensor


def attend(q: Tensor, k: Tensor, v: Tensor, log_f: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
    """The op; see `reference.gated_linear_attention` for shapes. Key heads are repeated, one per query head."""
    group = q.shape[2] // k.shape[2]
    k, v = k.repeat_interleave(group, 2), v.repeat_interleave(group, 2)
    o, last = chunk_simple_gla(
        q, k, v, g=log_f.float(), scale=q.shape[3] ** -0.5, initial_state=state.float(), output_final_state=True
    )
    return o.float(), last
