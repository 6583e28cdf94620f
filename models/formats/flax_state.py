"""Which part of a Flax training state is the model: `params`, and `batch_stats` from wherever the trainer keeps it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def select(tree: Mapping[str, Any]) -> dict[str, Any]:
    """The parameters and running statistics of a tree; the optimiser's share is never even decoded.

    Args:
        tree: `{step, params, opt_state, key, model_state: {batch_stats}}`, or variables `{params, batch_stats}`, or any
            other tree, which comes back whole so that an error can name what is in it.

    Returns:
        `{params: ..., batch_stats: ...}`, the second only where there is one.
    """
    if "params" not in tree:
        return dict(tree)
    chosen = {"params": tree["params"]}
    state = tree.get("model_state", tree)
    if isinstance(state, Mapping) and state.get("batch_stats"):
        chosen["batch_stats"] = state["batch_stats"]
    return chosen
