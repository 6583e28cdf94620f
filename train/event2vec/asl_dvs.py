"""ASL-DVS (Bi et al. 2019): 24 letters of American sign language before a 240 x 180 camera, 100 800 recordings.

    LETTER/NAME.npz   arrays t (microseconds), x, y, p; folders a to y without j

The set has no splits. As published, the first 80 % of each class by file name are trained on; the others are the test
split here. Validation is a random part of the training files.

The published run validates on a fifth of a list in which every file stands `val_repeats` times, made before the list is
cut: with 10 repeats those are two copies of every file, so 80 % of validation was trained on.
`leak_training_into_validation` repeats that, to compare with the published 99.84 %.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from models.event2vec.presets import LETTERS
from runtime.errors import UserError
from train.data.source import Source, Subset
from train.event2vec.data import WindowData
from train.event2vec.files import Recordings

TRAINED = 0.8


class ASLDVS(WindowData):
    """ASL-DVS; see the module for its layout.

    Args:
        root: Folder that holds the letters, or a folder `ASLDVS` or `ASL-DVS` that does.
        window: Events per sample.
        leak_training_into_validation: Validate as published, on samples of which most were trained on.
        **options: See `WindowData`.
    """

    width, height = 240, 180

    def __init__(
        self, root: str = "data", window: int = 1024, leak_training_into_validation: bool = False, **options: Any
    ) -> None:
        super().__init__(root, window, **options)
        self.leaks = leak_training_into_validation

    @property
    def labels(self) -> tuple[str, ...]:
        """The letters."""
        return LETTERS

    @property
    def has_validation(self) -> bool:
        """Whether anything is held back, or leaks."""
        return self.leaks or super().has_validation

    def open_split(self, name: str) -> Source:
        """The first 80 % of every letter's files, or the others."""
        every = self._every()
        rows = [cut(np.flatnonzero(every.labels == label)) for label in range(len(LETTERS))]
        return Subset(every, np.concatenate([part[name == "test"] for part in rows]))

    def open_validation(self) -> Source | None:
        """Nothing, so that a part of training is held back; where it may leak, what the published run validates on."""
        if not self.leaks:
            return None
        print(
            f"ASL-DVS: validation leaks, {TRAINED:.0%} of its recordings are trained on (repeats: {self.val_repeats})"
        )
        every = self._every()
        rows = [np.tile(np.flatnonzero(every.labels == label), self.val_repeats) for label in range(len(LETTERS))]
        # The repeats are in this list already.
        self.val_repeats = 1
        return Subset(every, np.concatenate([cut(part)[1] for part in rows]))

    def _every(self) -> Recordings:
        root = Path(self.root)
        base = next((base for base in (root / "ASLDVS", root / "ASL-DVS", root) if (base / "a").is_dir()), root)
        found = sorted(folder.name for folder in base.iterdir() if folder.is_dir()) if base.is_dir() else []
        if found != list(LETTERS):
            raise UserError(
                f"{base}: ASL-DVS has 24 folders a to y without j, here are {len(found)}; unpack the set as npz files "
                f"there, or make recordings up with: python -m train generate asl_dvs --root {root}"
            )
        return Recordings(base, LETTERS, "*.npz")


def cut(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The first 80 %, rounded down, and the others."""
    count = int(TRAINED * len(rows))
    return rows[:count], rows[count:]
