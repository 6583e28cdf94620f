"""The closed set of front ends, by the `kind` in their declaration."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from runtime.errors import UserError
from runtime.front_ends.token_dt import TokenDt
from runtime.front_ends.window import Window

__all__ = ["FRONT_ENDS", "FrontEnd", "TokenDt", "Window", "front_end"]

FrontEnd = TokenDt | Window
FRONT_ENDS: dict[str, type[TokenDt] | type[Window]] = {"token_dt": TokenDt, "window": Window}


def front_end(declaration: Mapping[str, Any]) -> FrontEnd:
    """The front end that a manifest declares.

    Raises:
        UserError: If this version does not know its kind.
    """
    kind = declaration.get("kind")
    if kind not in FRONT_ENDS:
        raise UserError(
            f"front end {kind!r} is unknown to this version of the runtime; it knows {', '.join(FRONT_ENDS)}"
        )
    return FRONT_ENDS[kind].from_json(declaration)
