"""Finds what a module remembers from one run to the next: tensors, numbers and lists in its attributes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

PLAIN = frozenset(vars(nn.Module())) - {"_parameters", "_buffers"}
"""What every module has and no run changes."""

Attributes = Mapping[str, tuple[Any, ...]]


def attributes(module: nn.Module) -> Attributes:
    """Every parameter, buffer and attribute of a module and its submodules by its dotted name.

    Returns:
        For each the object, the objects inside it if it is a collection, and how often each tensor was overwritten.
    """
    found = {}
    for path, part in module.named_modules():
        own = {name: value for name, value in vars(part).items() if name not in PLAIN}
        named = {**own.pop("_parameters"), **own.pop("_buffers"), **own}
        for name, value in named.items():
            objects = (value, *_inside(value))
            versions = tuple(tensor._version for tensor in objects if isinstance(tensor, Tensor))
            found[f"{path}.{name}" if path else name] = (*objects, *versions)
    return found


def changed(before: Attributes, after: Attributes) -> list[str]:
    """Names of the attributes that are other objects, or hold other objects or values, than before."""
    return [
        name
        for name, objects in after.items()
        if name not in before
        or len(before[name]) != len(objects)
        or any(old is not new for old, new in zip(before[name], objects, strict=True))
    ]


def _inside(value: Any) -> tuple[Any, ...]:
    if isinstance(value, Mapping):
        return tuple(value.values())
    return tuple(value) if isinstance(value, list | set | tuple) else ()
