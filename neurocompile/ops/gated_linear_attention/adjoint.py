"""The adjoint of `gated_linear_attention`: the same op three times, with roles exchanged.

With gradients by o and the last state written dO and dL:

    dQ: queries dO, keys V, values K, from state S_0^T
    dK: queries V, keys dO, values Q, from the end and state dL^T
    dV: queries K, keys Q, values dO, from the end and state dL;    dS_0 = f_1 times the last state of that walk
    d log f_r = sum_{i >= r} (q_i . dq_i - k_i . dk_i) + dL . S_T

The last line holds because C_i, the sum of log f up to i, meets q_i as a factor e^{C_i}, k_i as e^{-C_i} and the last
state as e^{C_T}. A gate's gradient is therefore exact to rounding of those terms, not of itself where they cancel.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

Walk = Callable[..., tuple[Tensor, Tensor]]


def gradients(
    walk: Walk,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    log_f: Tensor,
    state: Tensor,
    last: Tensor,
    d_o: Tensor,
    d_last: Tensor,
) -> list[Tensor]:
    """Pulls gradients back.

    Args:
        walk: `walk(q, k, v, log_f, state, scale, backwards)` evaluates the op with `scale` for 1 / sqrt(D); `backwards`
            from the last step to the first, where a step's gate is that of the step after it.
        q: (B, T, H, D).
        k: (B, T, K, D).
        v: (B, T, K, E).
        log_f: (B, T, H).
        state: (B, H, D, E).
        last: The last state.
        d_o: (B, T, H, E), in the type in which `walk` multiplies.
        d_last: (B, H, D, E), in the type of sums.

    Returns:
        Gradients by `q, k, v, log_f, state`, in the type of sums.
    """
    scale, keys, dtype = q.shape[3] ** -0.5, k.shape[2], d_last.dtype
    group = q.shape[2] // keys
    all_k, all_v = (value.repeat_interleave(group, 2) for value in (k, v))
    # Walks multiply what they learn by the scale, but not the gradient that they begin with.
    begun = d_last / scale
    d_q, _ = walk(d_o, v, k, log_f, state.mT, scale, False)
    d_k, _ = walk(all_v, d_o, q, log_f, begun.mT, scale, True)
    d_v, entered = walk(all_k, q, d_o, log_f, begun, scale, True)
    d_c = (q.to(dtype) * d_q).sum(-1) - (all_k.to(dtype) * d_k).sum(-1)
    whole = (d_last * last).sum((2, 3))[:, None]
    # Terms that cancel, many of them: summed in float64.
    d_log_f = (d_c.double().flip(1).cumsum(1).flip(1) + whole.double()).to(dtype)
    d_state = log_f[:, 0].to(dtype).exp()[..., None, None] * entered * scale
    d_k, d_v = (value.unflatten(2, (keys, group)).sum(3) for value in (d_k, d_v))
    return [d_q, d_k, d_v, d_log_f, d_state]
