"""Pooling of consecutive events."""

from __future__ import annotations

from torch import Tensor

EPS = 1e-6
"""Weight in ms that `timepool` gives to an event without duration."""


def event_pool(x: Tensor, dt: Tensor, stride: int, mode: str) -> tuple[Tensor, Tensor]:
    """Pools groups of consecutive events; an incomplete group at the end is dropped.

    Args:
        x: (..., L, H) features.
        dt: (..., L) durations in ms.
        stride: Events per group S, at least 2.
        mode: `last` takes the first event of the group (the published name notwithstanding), `avgpool` the mean,
            `timepool` the mean weighted by dt + 1e-6.

    Returns:
        (..., L // S, H) features and (..., L // S) durations, the sum over each group.

    Raises:
        ValueError: If the stride is below 2 or the mode unknown.
    """
    if stride < 2:
        raise ValueError(f"pooling needs groups of at least 2 events, got {stride}")
    groups = dt.shape[-1] // stride
    x = x[..., : groups * stride, :].reshape(*x.shape[:-2], groups, stride, x.shape[-1])
    dt = dt[..., : groups * stride].reshape(*dt.shape[:-1], groups, stride)
    if mode == "last":
        pooled = x[..., 0, :]
    elif mode == "avgpool":
        pooled = x.mean(-2)
    elif mode == "timepool":
        weight = dt + EPS
        pooled = (x * weight[..., None]).sum(-2) / weight.sum(-1, keepdim=True)
    else:
        raise ValueError(f"pooling mode {mode!r} does not exist")
    return pooled, dt.sum(-1)
