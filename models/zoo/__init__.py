"""Trained models that come with the package, each with its configuration, metrics and data attribution."""

from __future__ import annotations

from pathlib import Path

from runtime.errors import UserError

ZOO = Path(__file__).parent
DEFAULT = "nmnist_ssm"


def shipped_checkpoint(name: str = DEFAULT) -> Path:
    """Path of a shipped checkpoint.

    Args:
        name: File name without suffix.

    Raises:
        UserError: If it is not there; names those that are.
    """
    path = ZOO / f"{name}.safetensors"
    if not path.is_file():
        there = ", ".join(sorted(found.stem for found in ZOO.glob("*.safetensors"))) or "none"
        raise UserError(f"no shipped model is called {name!r}; these come with the package: {there}")
    return path
