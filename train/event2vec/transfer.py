"""Begins training with the weights of another network, wherever names agree."""

from __future__ import annotations

from pathlib import Path

from torch import nn

from models.formats import read
from models.soundness import check_numbers
from models.zoo import shipped_checkpoint
from runtime.errors import UserError

PREFIX = "classifier."


def load_weights(model: nn.Module, path: str) -> str:
    """Copies every weight whose name both have.

    Args:
        model: What is to be trained.
        path: Any checkpoint of Event2Vec, the published and self-supervised ones included; or the name of a shipped
            model.

    Returns:
        The report: how many were taken, which names were missing and which unexpected.

    Raises:
        UserError: If nothing agrees, a weight of the same name has another shape or is no finite float32 number, or no
            model of that name is shipped.
    """
    # A name without folder and suffix is no file of weights.
    file = Path(path) if Path(path).suffix or len(Path(path).parts) > 1 else shipped_checkpoint(path)
    given = {name.removeprefix(PREFIX): tensor for name, tensor in read(file).tensors.items()}
    own = model.state_dict()
    shared = [name for name in own if name in given]
    if not shared:
        raise UserError(f"model.load {path}: none of its {len(given)} tensors has a name of this network's")
    for name in shared:
        if given[name].shape != own[name].shape:
            raise UserError(
                f"model.load {path}: {name} has the shape {tuple(given[name].shape)}, this network's is "
                f"{tuple(own[name].shape)}; give both the same widths"
            )
    check_numbers({name: given[name] for name in shared}, file)
    model.load_state_dict({name: given[name] for name in shared}, strict=False)
    lines = [f"loaded {len(shared)} of {len(own)} tensors from {path}"]
    for what, names in (
        ("missing", [n for n in own if n not in given]),
        ("unexpected", [n for n in given if n not in own]),
    ):
        lines.append(f"  {what} ({len(names)}): {', '.join(names) if names else 'none'}")
    return "\n".join(lines)
