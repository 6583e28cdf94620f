"""The function that models call: checks its inputs and hands them to `neurocompile::forgetting_attention`."""

from __future__ import annotations

from torch import Tensor

from neurocompile.ops.forgetting_attention import torch_op


def forgetting_attention(q: Tensor, k: Tensor, v: Tensor, log_f: Tensor) -> Tensor:
    """Softmax attention over all earlier positions whose scores decay by a data-dependent gate.

        o_i = sum_{j <= i} softmax_j(q_i . k_j / sqrt(D) + sum_{r = j+1 .. i} log_f_r) v_j

    The attention of FoX (arXiv 2503.02130) and, in both directions, of Event2Vec (arXiv 2504.15371): the gate of the
    query's step counts, that of the key's does not, and a position sees itself undiminished. A position depends on
    earlier ones alone, so samples of unequal length may be padded at their ends with any finite numbers.

    Sums are accumulated in float32, or in float64 if any input is float64; half-precision inputs are widened first and
    the result is not narrowed again. On a GPU, products of half-precision inputs stay in their type, softmax weights
    included; the op's README has the details. Differentiable once in all four inputs.

    Args:
        q: (B, T, H, D) queries.
        k: (B, T, K, D) keys; K divides H, and query head h reads key head h // (H / K).
        v: (B, T, K, D) values.
        log_f: (B, T, H) natural logarithm of the gates, finite.

    Returns:
        (B, T, H, D), float32 or float64.
    """
    _check(q, k, v, log_f)
    return torch_op.attend(q, k, v, log_f)


def _check(q: Tensor, k: Tensor, v: Tensor, log_f: Tensor) -> None:
    if q.dim() != 4:
        raise ValueError(f"forgetting_attention: q has shape {tuple(q.shape)}, expected (B, T, H, D)")
    batch, steps, heads, width = q.shape
    if k.dim() != 4 or not k.shape[2] or heads % k.shape[2]:
        raise ValueError(
            f"forgetting_attention: k has shape {tuple(k.shape)}, expected {(batch, steps, 'K', width)} "
            f"with K a divisor of {heads}"
        )
    keys = (batch, steps, k.shape[2], width)
    for name, value, shape in (("k", k, keys), ("v", v, keys), ("log_f", log_f, (batch, steps, heads))):
        if value.shape != shape:
            raise ValueError(f"forgetting_attention: {name} has shape {tuple(value.shape)}, expected {shape}")
    for name, value in (("q", q), ("k", k), ("v", v), ("log_f", log_f)):
        if not value.is_floating_point():
            raise TypeError(f"forgetting_attention: {name} is {value.dtype}; pass real floating-point numbers")
