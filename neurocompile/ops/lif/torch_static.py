"""`lif` over a known number of steps in operators that every compiler knows; `onnx_static.py` in torch."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


def expand(
    x: Tensor, decay: Tensor, v: Tensor, threshold: float, v_reset: float | None, strict: bool, *rest: Any
) -> tuple[Tensor, Tensor, Tensor]:
    """The op, one step after the other.

    Args:
        x: (T, ..) input; T is a number, not a symbol.
        decay: What broadcasts to it.
        v: (..) membrane before the first step.
        threshold: See `Neuron`.
        v_reset: See `Neuron`; `None` subtracts the threshold.
        strict: See `Neuron`.
        rest: Three fields that matter for gradients alone; then, for `lif_states`, whether membranes are kept.

    Returns:
        (T, ..) spikes of the type of `x`, (..) last membrane and (T, ..) or (0, ..) membranes before the resets,
        float32.
    """
    kind, x, decay, v = x.dtype, x.float(), decay.float(), v.float()
    by_step = decay.dim() == x.dim() and int(decay.shape[0]) > 1
    membranes, spikes = [], []
    for t in range(int(x.shape[0])):
        factor = decay[t] if by_step else decay[0] if decay.dim() == x.dim() else decay
        h = factor * v + x[t]
        fired = h > threshold if strict else h >= threshold
        membranes.append(h)
        spikes.append(fired.to(kind))
        v = torch.where(fired, h - threshold if v_reset is None else torch.full_like(h, v_reset), h)
    kept = torch.stack(membranes) if rest[3:] == (True,) else x[:0]
    return torch.stack(spikes), v, kept
