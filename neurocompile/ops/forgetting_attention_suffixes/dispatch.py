"""The function that models call: checks its inputs and hands them to `neurocompile::forgetting_attention_suffixes`."""

from __future__ import annotations

from torch import Tensor

from neurocompile.ops.forgetting_attention_suffixes import torch_op

NOTHING = -1.0e30
"""Score of a known key that has no weight."""


def forgetting_attention_suffixes(q: Tensor, k: Tensor, v: Tensor, log_f: Tensor, known: Tensor, cut: int) -> Tensor:
    """Forgetting attention over suffixes of the keys, each beginning C positions later than the one before.

    Of T positions the first M have keys and values and the last Q have queries. Answer r is, for every query i,

        o_i = (e^t_i u_i + sum_{rC <= j <= i} e^s_ij v_j) / e^l_i,    l_i = log(e^t_i + sum_{rC <= j <= i} e^s_ij),
        s_ij = q_i . k_j / sqrt(D) + sum_{r = j+1 .. i} log_f_r

    where (u, t) = `known` is attention over other keys, e.g. later ones, that this continues: with (o, l) of one call
    as `known` of the next, keys may come in any parts. Where nothing is known and Q = M = C = T, it is
    `forgetting_attention`.

    Sums are accumulated in float32, or in float64 if any input is float64. Differentiable. It is made for streams: on
    a GPU it runs as plain torch, without kernels of its own.

    Args:
        q: (B, Q, H, D) queries.
        k: (B, M, K, D) keys; K divides H, and query head h reads key head h // (H / K).
        v: (B, M, K, D) values.
        log_f: (B, T, H) natural logarithm of the gates, finite; T >= Q, T >= M.
        known: (B, Q, H, D + 1) values u and, last, scores t; `NOTHING` where nothing is known.
        cut: C, a divisor of M. No suffix begins behind the first query, M - C <= T - Q: every query sees a key of every
            suffix.

    Returns:
        (B, M / C, Q, H, D + 1): o and, last, l, float32 or float64.

    Raises:
        ValueError: If shapes do not fit.
    """
    _check(q, k, v, log_f, known, cut)
    return torch_op.suffixes(q, k, v, log_f, known, cut)


def _check(q: Tensor, k: Tensor, v: Tensor, log_f: Tensor, known: Tensor, cut: int) -> None:
    name = "forgetting_attention_suffixes"
    if q.dim() != 4 or k.dim() != 4 or log_f.dim() != 3:
        raise ValueError(
            f"{name}: q, k and log_f have shapes {tuple(q.shape)}, {tuple(k.shape)} and {tuple(log_f.shape)}, expected "
            "(B, Q, H, D), (B, M, K, D) and (B, T, H)"
        )
    (batch, queries, heads, width), (keys, key_heads), steps = q.shape, k.shape[1:3], log_f.shape[1]
    if not key_heads or heads % key_heads or steps < max(queries, keys) or cut < 1 or keys % cut:
        raise ValueError(
            f"{name}: {heads} query heads and {key_heads} key heads, {queries} queries and {keys} keys on {steps} "
            f"positions, {cut} keys from suffix to suffix"
        )
    if keys - cut > steps - queries:
        raise ValueError(
            f"{name}: the last suffix begins at position {keys - cut}, behind the first query at {steps - queries}"
        )
    shapes: dict[str, tuple[int, ...]] = {"k": (batch, keys, key_heads, width), "v": (batch, keys, key_heads, width)}
    shapes |= {"log_f": (batch, steps, heads), "known": (batch, queries, heads, width + 1)}
    for label, value in (("k", k), ("v", v), ("log_f", log_f), ("known", known)):
        if value.shape != shapes[label]:
            raise ValueError(f"{name}: {label} has shape {tuple(value.shape)}, expected {shapes[label]}")
