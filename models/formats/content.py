"""What every reader in this room returns: named tensors, and what the file says about them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch


@dataclass(frozen=True)
class Content:
    """The weights of one checkpoint, under the names that its file uses.

    Attributes:
        format: Which on-disk format it was, in words a user knows.
        tensors: Name -> tensor on the CPU, of whatever dtype the file holds. Flax trees are flattened with `/` and keep
            the leading `params` or `batch_stats`; the rest of a training state is left out.
        header: The JSON text that this software writes into its own files; `None` for anybody else's.
        metadata: Facts worth keeping, such as the training step.
        notes: What the reader decided, one sentence each.
    """

    format: str
    tensors: Mapping[str, torch.Tensor]
    header: str | None = None
    metadata: Mapping[str, int | float | str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
