"""Networks with weights that nobody trained."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import torch
from torch import nn

Network = TypeVar("Network", bound=nn.Module)


def scattered(make: Callable[[], Network]) -> Network:
    """A network for evaluation, the same in every run, none of whose weights keeps a value that it began with.

    Norms begin at 1 and 0, and layers as copies of one, which would hide that one takes the place of another.
    """
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = make().eval()
        for parameter in model.parameters():
            parameter.data += 0.3 * torch.randn_like(parameter)
    return model
