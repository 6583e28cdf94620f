"""Where an op finds the launches of its Triton kernels, without importing Triton before they are needed."""

from __future__ import annotations

from functools import cache
from importlib import import_module
from importlib.util import find_spec
from types import ModuleType


@cache
def triton_launch(op: str) -> ModuleType | None:
    """The file `triton_launch` of an op's folder, or `None` where Triton is not installed."""
    return import_module(f"neurocompile.ops.{op}.triton_launch") if find_spec("triton") else None
