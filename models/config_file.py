"""Configuration files that users pass beside foreign weights: JSON, or YAML as Hydra writes it."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from runtime.errors import UserError

_NEARBY = ("config.json", "*_config.json", "config.yaml", ".hydra/config.yaml")
# YAML 1.1 reads 5e-6 as text; every training configuration means the number.
_FLOAT = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)")


def read_config(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Reads a JSON or YAML file that holds one table.

    Args:
        path: The file.

    Returns:
        The table.

    Raises:
        UserError: If the file is missing, unreadable, or not a table.
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
    except OSError as error:
        raise UserError(f"config {path} cannot be read: {error.strerror}; check the path") from error
    except UnicodeDecodeError as error:
        raise UserError(f"config {path} is not text; give a JSON or YAML file") from error
    try:
        table = json.loads(text)
    except ValueError as error:
        if Path(path).suffix == ".json":
            raise UserError(f"config {path} is not valid JSON: {error}; correct it") from error
        table = _yaml(text, path)
    except RecursionError as error:
        raise UserError(f"config {path} is nested too deeply to be a configuration; give another file") from error
    if not isinstance(table, dict):
        raise UserError(f"config {path} holds a {type(table).__name__}, not a table of settings; give another file")
    return table


def nearby(path: Path, limit: int = 3) -> list[Path]:
    """Configuration files that lie where trainers put them, the most alike in name first; none is ever used unasked.

    Args:
        path: The checkpoint as the user named it.
        limit: How many to return at most.
    """
    folders = [path, path.parent, path.parent.parent] if path.is_dir() else [path.parent, path.parent.parent]
    found = [file for folder in folders for pattern in _NEARBY for file in sorted(folder.glob(pattern))]
    alike = sorted(found, key=lambda file: -_common(file.name, path.name))
    return alike[:limit]


def _common(a: str, b: str) -> int:
    """How many characters two names share at their beginning."""
    return next((n for n, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))


def _yaml(text: str, path: str | os.PathLike[str]) -> Any:
    try:
        import yaml
    except ModuleNotFoundError as error:
        raise UserError(
            f"config {path} is YAML, which needs the package PyYAML; install it with: pip install pyyaml"
        ) from error
    try:
        return _numbers(yaml.safe_load(text))
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"config {path} is neither JSON nor YAML: {reason}; correct it") from error


def _numbers(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _numbers(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_numbers(item) for item in value]
    return float(value) if isinstance(value, str) and _FLOAT.fullmatch(value) else value
