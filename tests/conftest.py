"""Fixtures that every room's tests share."""

from __future__ import annotations

import json
import os
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

if TYPE_CHECKING:  # `runtime` is tested without torch, too.
    import torch

    from models.event_ssm import EventSSM, EventSSMConfig

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


Arrays = dict[str, np.ndarray]


@dataclass(frozen=True)
class EventSSMCase:
    """What the published implementation computed from which weights and inputs."""

    table: dict
    config: EventSSMConfig
    flat: Arrays
    arrays: Arrays

    def model(self, dtype: torch.dtype | None = None) -> EventSSM:
        """The network with the case's weights, in evaluation mode and float32."""
        from models.event_ssm import EventSSM
        from models.event_ssm.flax import state_dict_from_flax

        model = EventSSM(self.config)
        model.load_state_dict(state_dict_from_flax(self.flat, self.config))
        return model.to(dtype).eval()

    def batch(self, prefix: str = "") -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Tokens, gaps and lengths."""
        import torch

        tokens, dt, lengths = (
            torch.from_numpy(self.arrays[prefix + key]) for key in ("tokens", "timesteps", "lengths")
        )
        return tokens.long(), dt, lengths.long()


def recipe(path: str, shape: list[int], seed: int, init: dict) -> np.ndarray:
    """The weights of a golden case that stores only their recipe."""
    random = np.random.RandomState(zlib.crc32(path.encode()) ^ seed)
    n = random.standard_normal(shape)
    leaf = path.rpartition("/")[2]
    low, high = np.log(init["dt_min"]), np.log(init["dt_max"])
    values = {
        "embedding": lambda: n,
        "scale": lambda: 1 + 0.3 * n,
        "bias": lambda: 0.2 * n,
        "kernel": lambda: n / np.sqrt(shape[0]),
        "Lambda_re": lambda: np.where((n > 1) & init["clip_eigs"], 0.05 * n, -np.exp(0.7 * n - 0.7)),
        "Lambda_im": lambda: 6 * n,
        "B": lambda: n / np.sqrt(shape[1]),
        "C": lambda: n / np.sqrt(shape[1]),
        "D": lambda: n / np.sqrt(shape[1]) if len(shape) == 2 else n,
        "log_step": lambda: low + (high - low) * random.uniform(size=shape),
    }
    return values[leaf]().astype(np.float32)


@pytest.fixture(scope="session")
def event_ssm_case(shared: Path) -> Callable[[str], EventSSMCase]:
    """Loads the event-ssm case of a name."""
    from models.event_ssm import EventSSMConfig

    folder = shared / "golden"

    def read(name: str) -> Arrays:
        with np.load(folder / f"event_ssm_{name}.npz", allow_pickle=False) as file:
            return {key: file[key] for key in file.files}

    def load(name: str) -> EventSSMCase:
        table = json.loads((folder / f"event_ssm_{name}_config.json").read_text())
        if table.get("weights") == "recipe":
            init = table["model"]["ssm_init"]
            flat = {path: recipe(path, shape, table["seed"], init) for path, shape in table["shapes"].items()}
            for path, array in flat.items():
                assert zlib.crc32(array.tobytes()) == table["crc32_of_float32_bytes"][path], path
        else:
            flat = read(f"{name}_weights")
        return EventSSMCase(table, EventSSMConfig.from_upstream(table), flat, read(name))

    return load
