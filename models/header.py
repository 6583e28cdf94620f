"""The JSON that travels with the weights: which model they are, what it expects, and what its outputs mean."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from runtime.errors import UserError

SCHEMA = 1
_FIELDS = {"schema": int, "family": str, "config": dict, "front_end": dict, "labels": list, "metadata": dict}


@dataclass(frozen=True)
class Header:
    """Everything a checkpoint holds besides tensors.

    Attributes:
        family: Name of the model family.
        config: The model's hyperparameters, as its configuration's `to_json` gives them.
        front_end: The declaration of the front end, as its `to_json` gives it.
        labels: Names of the classes, in the order of the logits.
        metadata: Free facts: training step, scores, where the weights came from.
    """

    family: str
    config: Mapping[str, Any]
    front_end: Mapping[str, Any]
    labels: tuple[str, ...]
    metadata: Mapping[str, Any] = field(default_factory=dict)

    def to_text(self) -> str:
        """The header as JSON text.

        Raises:
            UserError: If the metadata holds something that JSON cannot express.
        """
        table = {
            "schema": SCHEMA,
            "family": self.family,
            "config": dict(self.config),
            "front_end": dict(self.front_end),
            "labels": list(self.labels),
            "metadata": dict(self.metadata),
        }
        try:
            return json.dumps(table, allow_nan=False)
        except (TypeError, ValueError) as error:
            raise UserError(
                f"the checkpoint's metadata cannot be written as JSON: {error}; use plain values"
            ) from error

    @classmethod
    def from_text(cls, text: str, where: str) -> Header:
        """Reads a header.

        Args:
            text: What `to_text` wrote.
            where: The file it comes from, for errors.

        Raises:
            UserError: If the text is damaged or was written by a later version.
        """
        try:
            table = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise UserError(
                f"the description inside {where} is not JSON ({error}); save the checkpoint again"
            ) from error
        schema = table.get("schema") if isinstance(table, dict) else None
        if isinstance(schema, int) and schema > SCHEMA:
            raise UserError(
                f"{where} was written by a later version (schema {schema}, this one reads up to {SCHEMA}); "
                "update neurocompile"
            )
        for name, kind in _FIELDS.items():
            if not isinstance(table, dict) or not isinstance(table.get(name), kind):
                raise UserError(f"the description inside {where} lacks a valid {name!r}; save the checkpoint again")
        return cls(table["family"], table["config"], table["front_end"], tuple(table["labels"]), table["metadata"])
