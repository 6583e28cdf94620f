"""Fixtures that every room's tests share."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[1]
SHARED = Path(os.environ.get("NEUROCOMPILE_SHARED", ROOT.parent / "shared"))


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of reference data beside the checkout."""
    if not SHARED.is_dir():
        pytest.skip(f"reference data is not at {SHARED} (set NEUROCOMPILE_SHARED)")
    return SHARED


class Golden:
    """Reads one published-implementation case: arrays, weights and configuration."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def arrays(self, name: str) -> dict[str, np.ndarray]:
        with np.load(self.folder / f"{name}.npz", allow_pickle=False) as file:
            return {key: file[key] for key in file.files}

    def json(self, name: str) -> dict:
        return json.loads((self.folder / f"{name}.json").read_text())


@pytest.fixture(scope="session")
def golden(shared: Path) -> Golden:
    """The golden cases."""
    return Golden(shared / "golden")
