"""Optimiser groups and learning-rate schedules of event-ssm's published training."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

from torch import nn

from runtime.errors import UserError

SSM_LEAVES = ("B", "Lambda_re", "Lambda_im")
"""Names of the parameters that train at the state space learning rate; C, D and log_step do not."""


def parameter_groups(
    model: nn.Module, ssm_lr: float, lr_factor: float, ssm_weight_decay: float, weight_decay: float
) -> list[dict[str, Any]]:
    """Splits a model's trainable parameters for `torch.optim.AdamW`.

    Decay applies to every parameter of a group, biases, norms and embedding included.

    Args:
        model: The network.
        ssm_lr: Peak learning rate of the group `ssm`, already scaled by batch size and accumulation.
        lr_factor: The group `regular` learns at `ssm_lr * lr_factor`.
        ssm_weight_decay: Decoupled weight decay of the group `ssm`.
        weight_decay: Decoupled weight decay of the group `regular`.

    Returns:
        The groups `ssm` and `regular`, each with `name`, `params`, `lr` and `weight_decay`.
    """
    ssm: list[nn.Parameter] = []
    regular: list[nn.Parameter] = []
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            (ssm if name.rpartition(".")[2] in SSM_LEAVES else regular).append(parameter)
    return [
        {"name": "ssm", "params": ssm, "lr": ssm_lr, "weight_decay": ssm_weight_decay},
        {"name": "regular", "params": regular, "lr": ssm_lr * lr_factor, "weight_decay": weight_decay},
    ]


def warmup_cosine(step: int, warmup: int, total: int) -> float:
    """Linear from 0 to 1 over the warm-up, then half a cosine to 0.

    Args:
        step: Number of updates done so far; the first one, at 0, has rate 0 if there is a warm-up.
        warmup: Updates of the warm-up.
        total: Updates in all, warm-up included; the rate stays 0 from there on.

    Returns:
        The factor on the peak learning rate.
    """
    if step < warmup:
        return step / warmup
    if step >= total:
        return 0.0
    return 0.5 * (1 + math.cos(math.pi * (step - warmup) / (total - warmup)))


def warmup_constant(step: int, warmup: int, total: int) -> float:
    """Linear from 0 to 1 over the warm-up, then 1; arguments as in `warmup_cosine`."""
    return step / warmup if step < warmup else 1.0


SCHEDULES: dict[str, Callable[..., float]] = {"cosine": warmup_cosine, "constant": warmup_constant}


def schedule(kind: str, warmup: int, total: int) -> Callable[[int], float]:
    """The factor as a function of the step, for `torch.optim.lr_scheduler.LambdaLR`.

    Args:
        kind: `cosine` or `constant`.
        warmup: Updates of the warm-up.
        total: Updates in all, warm-up included.

    Returns:
        The function; it can be pickled.

    Raises:
        UserError: If the schedule does not exist or the warm-up does not fit into the training.
    """
    if kind not in SCHEDULES:
        raise UserError(f"schedule {kind!r} does not exist; choose one of {', '.join(SCHEDULES)}")
    if not 0 <= warmup <= total:
        raise UserError(f"a warm-up of {warmup} updates does not fit into {total} updates; shorten it or train longer")
    return partial(SCHEDULES[kind], warmup=warmup, total=total)
