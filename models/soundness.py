"""What weights must be before a model is made of them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from models.families.base import Family
from runtime.errors import UserError
from runtime.front_ends import FrontEnd


def check_numbers(tensors: Mapping[str, Tensor], place: Path) -> None:
    """Raises unless every real tensor is plain, float32 and finite.

    Args:
        tensors: Name -> tensor.
        place: The checkpoint, for errors.

    Raises:
        UserError: Naming the first tensor that is not.
    """
    for name, tensor in tensors.items():
        if tensor.layout != torch.strided or tensor.is_quantized:
            raise UserError(f"{name} in checkpoint {place} is sparse or quantised; save it as a plain float32 tensor")
        if not (tensor.is_floating_point() or tensor.is_complex()):
            continue
        if tensor.dtype != torch.float32:
            raise UserError(
                f"{name} in checkpoint {place} is {plain(tensor.dtype)}, but the model holds float32; "
                "convert it when saving"
            )
        if not tensor.isfinite().all():
            raise UserError(
                f"{name} in checkpoint {place} contains NaN or infinity, so training diverged or the file is damaged; "
                "use an earlier checkpoint"
            )


def check_ends(config: Any, items: FrontEnd, labels: tuple[str, ...]) -> None:
    """Raises unless front end and labels fit the two ends of the model.

    Args:
        config: The model's, with `num_embeddings` and `num_classes`.
        items: The front end.
        labels: Names of the classes.

    Raises:
        UserError: If there are more tokens than embeddings, or another number of labels than classes.
    """
    if not all(isinstance(label, str) for label in labels) or len(labels) != config.num_classes:
        raise UserError(f"{len(labels)} class names do not fit {config.num_classes} classes; give one name for each")
    if items.vocabulary > config.num_embeddings:
        raise UserError(
            f"the front end makes {items.vocabulary} tokens, but the model knows {config.num_embeddings}; "
            "give the front end it was trained with"
        )


def check_kind(family: Family, items: FrontEnd) -> None:
    """Raises `UserError` if models of this family are fed by another kind of front end."""
    if items.kind != family.takes:
        raise UserError(
            f"its front end is {items.kind!r}, but {family.name} takes {family.takes!r}; "
            "give the front end it was trained with"
        )


def plain(dtype: torch.dtype) -> str:
    """The name of a dtype as numpy writes it."""
    return str(dtype).removeprefix("torch.")
