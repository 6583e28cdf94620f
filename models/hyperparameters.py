"""From a table of names and values to a family's dataclass of hyperparameters."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import MISSING, fields
from typing import Any, TypeVar

from runtime.errors import UserError

Config = TypeVar("Config")


def build(kind: type[Config], table: Mapping[str, Any], family: str) -> Config:
    """Makes a configuration.

    Args:
        kind: The dataclass.
        table: Its names and values.
        family: What messages call it.

    Returns:
        The configuration, which checks its own values.

    Raises:
        UserError: If a name is unknown or missing.
    """
    known = {field.name: field.default is MISSING for field in fields(kind)}  # type: ignore[arg-type]
    if unknown := sorted(set(table) - set(known)):
        raise UserError(f"{family} config: {', '.join(unknown)} is not known; known names: {', '.join(sorted(known))}")
    if missing := [name for name, required in known.items() if required and name not in table]:
        raise UserError(f"{family} config: {', '.join(missing)} is missing; add it")
    return kind(**table)
