"""The model families whose checkpoints can be opened, by name."""

from __future__ import annotations

from collections.abc import Collection

from models.families.base import Family, Identity, Request
from models.families.event2vec import Event2VecFamily
from models.families.event2vec_causal import CausalEvent2VecFamily
from models.families.event_ssm import EventSSMFamily
from models.families.event_ssm_port import EventSSMPortFamily
from runtime.errors import UserError

__all__ = ["FAMILIES", "Family", "Identity", "Request", "family_named", "family_of"]

FAMILIES: dict[str, Family] = {
    family.name: family
    for family in (EventSSMFamily(), EventSSMPortFamily(), Event2VecFamily(), CausalEvent2VecFamily())
}


def family_named(name: str, where: str) -> Family:
    """The family that the checkpoint at `where` names.

    Raises:
        UserError: If this version does not know it.
    """
    if name not in FAMILIES:
        raise UserError(
            f"checkpoint {where} is of the model family {name!r}, which this version does not know; "
            f"it knows {', '.join(FAMILIES)}"
        )
    return FAMILIES[name]


def family_of(names: Collection[str]) -> Family | None:
    """The family to which tensors of these names belong, if it is known."""
    return next((family for family in FAMILIES.values() if family.recognises(names)), None)
