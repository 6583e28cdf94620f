"""What the models' tests share: the golden cases of Event2Vec."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch

from models.event2vec import Event2Vec, Event2VecConfig
from models.event2vec.recovery import Event2VecRecovery

PREFIX = "classifier."


@dataclass(frozen=True)
class Event2VecCase:
    """Weights, a collated batch, and what the published network computed from them."""

    config: Event2VecConfig
    arrays: dict[str, np.ndarray]
    weights: dict[str, torch.Tensor]

    def model(self, dtype: torch.dtype = torch.float64) -> Event2Vec | Event2VecRecovery:
        """The network with the case's weights, in evaluation mode."""
        kind = Event2VecRecovery if self.config.mask_ratio else Event2Vec
        model = kind(self.config)
        model.load_state_dict({name.removeprefix(PREFIX): value for name, value in self.weights.items()})
        return model.to(dtype).eval()

    def batch(self) -> dict[str, torch.Tensor]:
        """The network's arguments by name."""
        names = {"p": "p", "y": "y", "x": "x", "t": "t", "mask": "valid_mask", "intensity": "intensity"}
        names |= {"uniform": "mask_uniform"}
        return {name: torch.from_numpy(self.arrays[key]) for name, key in names.items() if key in self.arrays}

    def tensor(self, key: str) -> torch.Tensor:
        """One array of the case."""
        return torch.from_numpy(self.arrays[key])


@pytest.fixture(scope="session")
def event2vec_case(shared: Path) -> Callable[[str], Event2VecCase]:
    """Loads the Event2Vec case of a name."""
    folder = shared / "golden"

    def load(name: str) -> Event2VecCase:
        with np.load(folder / f"event2vec_{name}.npz", allow_pickle=False) as file:
            arrays = {key: file[key] for key in file.files}
        weights = {"dvs_gesture_full": "dvs_gesture"}.get(name, name)
        saved = torch.load(folder / f"event2vec_{weights}.ckpt", weights_only=True)
        return Event2VecCase(Event2VecConfig.from_json(json.loads(str(arrays["config"]))), arrays, saved["state_dict"])

    return load
