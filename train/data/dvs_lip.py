"""DVS-Lip (Tan et al. 2022): 100 spoken English words, the speaker's mouth before a 128 x 128 camera.

    {train,test}/WORD/NAME.npy    structured array with the fields x, y, p, t (microseconds), one clip a file

below `root` or `root/DVS-Lip`, as DVS-Lip.zip unpacks. Classes are the folders of `train` in alphabetical order. The
set has no validation split.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from runtime.errors import UserError
from train.augment import AugmentVision, Columns
from train.data.module import EventData

CLASSES = 100


class DVSLip(EventData):
    """DVS-Lip.

    Args:
        root: Folder that holds `train` and `test`, or `DVS-Lip` with them.
        rule: How coordinates become a token.
        dt: Gap after (`next`) or before (`previous`) an event.
        pad_unit: See `EventData`.
        augment: What training clips go through.
        validation_fraction: Random part of every training class that is held back for validation.
        **options: See `EventData`.
    """

    width = height = 128
    polarities = 2

    def __init__(
        self,
        root: str = "data",
        rule: str = "linear",
        dt: str = "previous",
        pad_unit: int = 8192,
        augment: AugmentVision | None = None,
        validation_fraction: float = 0.2,
        **options: Any,
    ) -> None:
        super().__init__(
            root, rule, dt, pad_unit=pad_unit, augment=augment, validation_fraction=validation_fraction, **options
        )
        self._labels = tuple(str(number) for number in range(CLASSES))

    @property
    def labels(self) -> tuple[str, ...]:
        """The words, as soon as a split has been opened; numbers before."""
        return self._labels

    def open_split(self, name: str) -> Clips:
        """Lists the clips."""
        base = folder(Path(self.root))
        self._labels = tuple(sorted(folder.name for folder in base.glob("train/*") if folder.is_dir()))
        if len(self._labels) != CLASSES:
            raise UserError(
                f"{base}: train holds {len(self._labels)} folders of words, DVS-Lip has {CLASSES}; unpack DVS-Lip.zip "
                f"there, or make clips up with: python -m train generate dvs_lip --root {self.root}"
            )
        return Clips(base / name, self._labels)


def folder(root: Path) -> Path:
    """The folder that holds `train`: `DVS-Lip` in `root`, or `root`."""
    return next((base for base in (root / "DVS-Lip", root) if (base / "train").is_dir()), root)


class Clips:
    """The clips of one split.

    Args:
        folder: Holds one folder per word.
        labels: The words.

    Raises:
        UserError: If there are no clips.
    """

    def __init__(self, folder: Path, labels: tuple[str, ...]) -> None:
        self.files = [file for label in labels for file in sorted((folder / label).glob("*.npy"))]
        if not self.files:
            raise UserError(f"{folder}: holds no WORD/NAME.npy; unpack DVS-Lip.zip again")
        number = {label: row for row, label in enumerate(labels)}
        self.labels = np.array([number[file.parent.name] for file in self.files], np.int64)
        self.names = [file.relative_to(folder).as_posix() for file in self.files]

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, row: int) -> Columns:
        try:
            clip = np.load(self.files[row])
            return Columns(*(clip[name].astype(np.int64) for name in "txyp")).sorted()
        except (OSError, ValueError, IndexError) as error:
            raise UserError(
                f"{self.files[row]}: is no clip with the fields x, y, p, t ({error}); unpack it again"
            ) from error
