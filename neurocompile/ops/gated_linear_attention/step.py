"""One position of `gated_linear_attention`: what a stream does at every event, in time and memory that do not grow."""

from __future__ import annotations

from torch import Tensor


def step(q: Tensor, k: Tensor, v: Tensor, log_f: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
    """S' = f S + k v^T, o = S'^T q / sqrt(D).

    Args:
        q: (.., H, D) queries of one position.
        k: (.., K, D) keys.
        v: (.., K, E) values.
        log_f: (.., H) logarithm of the gates.
        state: (.., H, D, E).

    Returns:
        (.., H, E) result and the new state.
    """
    heads, keys, width = q.shape[-2], k.shape[-2], q.shape[-1]
    pair = k[..., :, :, None] * v[..., :, None, :]
    if heads != keys:
        shape = pair.shape
        grouped = (*shape[:-3], keys, heads // keys, *shape[-2:])
        pair = pair.unsqueeze(-3).expand(grouped).reshape(*shape[:-3], heads, *shape[-2:])
    state = log_f.exp()[..., None, None] * state + pair
    return ((q * (1 / width**0.5))[..., None] * state).sum(-2), state
