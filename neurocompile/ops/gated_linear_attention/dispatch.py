"""The function that models call: checks its inputs and hands them to `neurocompile::gated_linear_attention`."""

from __future__ import annotations

from torch import Tensor

from neurocompile.ops.gated_linear_attention import torch_op


def gated_linear_attention(
    q: Tensor, k: Tensor, v: Tensor, log_f: Tensor, state: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Linear attention whose state decays by a data-dependent gate.

        S_t = f_t S_{t-1} + k_t v_t^T        o_t = S_t^T q_t / sqrt(D)

    The scalar-gate form of gated linear attention (arXiv 2312.06635): the gates are those of `forgetting_attention`,
    but there is no softmax, so a state of fixed size replaces the growing cache. Sums are accumulated in float32, or in
    float64 if any input is float64; the result is not narrowed again. Differentiable in all inputs. Samples of unequal
    length may be padded at their ends, where only the last state then sees it.

    Args:
        q: (B, T, H, D) queries.
        k: (B, T, K, D) keys; K divides H, and query head h reads key head h // (H / K).
        v: (B, T, K, E) values.
        log_f: (B, T, H) natural logarithm of the gates, finite and at most 0.
        state: (B, H, D, E) state before the first step; zero if `None`.

    Returns:
        (B, T, H, E) and the (B, H, D, E) state after the last step, float32 or float64.
    """
    if state is None and q.dim() == 4 and v.dim() == 4:
        state = q.new_zeros(q.shape[0], q.shape[2], q.shape[3], v.shape[3])
    _check(q, k, v, log_f, state)
    return torch_op.attend(q, k, v, log_f, state)


def _check(q: Tensor, k: Tensor, v: Tensor, log_f: Tensor, state: Tensor | None) -> None:
    if q.dim() != 4 or not q.shape[1]:
        raise ValueError(
            f"gated_linear_attention: q has shape {tuple(q.shape)}, expected (B, T, H, D) with T at least 1"
        )
    batch, steps, heads, width = q.shape
    if k.dim() != 4 or not k.shape[2] or heads % k.shape[2]:
        raise ValueError(
            f"gated_linear_attention: k has shape {tuple(k.shape)}, expected {(batch, steps, 'K', width)} "
            f"with K a divisor of {heads}"
        )
    if v.dim() != 4 or state is None:
        raise ValueError(f"gated_linear_attention: v has shape {tuple(v.shape)}, expected (B, T, K, E)")
    keys, out = k.shape[2], v.shape[3]
    shapes = {"k": (batch, steps, keys, width), "v": (batch, steps, keys, out), "log_f": (batch, steps, heads)}
    shapes["state"] = (batch, heads, width, out)
    for (name, shape), value in zip(shapes.items(), (k, v, log_f, state), strict=True):
        if value.shape != shape:
            raise ValueError(f"gated_linear_attention: {name} has shape {tuple(value.shape)}, expected {shape}")
    for name, value in (("q", q), ("k", k), ("v", v), ("log_f", log_f), ("state", state)):
        if not value.is_floating_point():
            raise TypeError(f"gated_linear_attention: {name} is {value.dtype}; pass real floating-point numbers")
