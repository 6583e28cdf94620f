"""Packages that take minutes to compile, kept in the user's cache for the next run."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

from runtime import machine


def kept(model: bytes, package: str, options: str, make: Callable[[], bytes]) -> bytes:
    """What `make` yields, from the cache where the same was made before.

    Args:
        model: The graph.
        package: The distribution that compiles it; another version compiles again, as does another processor.
        options: Whatever else the result depends on.
        make: Compiles.
    """
    processor = " ".join((machine.cpu_model(), *sorted(machine.cpu_features())))
    parts = (version(package).encode(), processor.encode(), options.encode(), model)
    name = hashlib.sha256(b"".join(hashlib.sha256(part).digest() for part in parts)).hexdigest()
    path: Path = machine.cache_folder() / "step_latency" / name
    if path.is_file():
        return path.read_bytes()
    data = make()
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part")
    part.write_bytes(data)
    part.replace(path)
    return data
