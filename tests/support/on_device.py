"""What stands for a CUDA tensor where only its description is asked for."""

from __future__ import annotations

from typing import Any

from torch import Tensor


class OnDevice:
    """A tensor of the processor that says it were on a GPU."""

    def __init__(self, tensor: Tensor) -> None:
        self.tensor, self.is_cuda, self.device = tensor, True, "cuda"

    def __getattr__(self, name: str) -> Any:
        return getattr(self.tensor, name)
