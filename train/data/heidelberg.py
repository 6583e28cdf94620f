"""The Heidelberg spiking sets (Cramer et al. 2020): spoken words through a model of the inner ear, 700 channels.

A file `{set}_{split}.h5` holds, for N recordings,

    spikes/times   (N,) variable-length float16 or float32, seconds, in time order
    spikes/units   (N,) variable-length integers, the channel 0..699
    labels         (N,) integers
    extra/keys     (C,) names of the classes

Files may lie in `root` or in a folder of it named after the set (SHD, SSC, in either case), as their zips unpack and as
tonic stores them.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from runtime.errors import UserError
from train.augment import AugmentAudio, Columns
from train.data.module import EventData

CHANNELS = 700


class Heidelberg(EventData):
    """What SHD and SSC share.

    Attributes:
        name: `shd` or `ssc`.
        files: Split -> how the file's name calls it.
        classes: Number of classes.

    Args:
        root: Folder that holds the files, or a folder `SHD` or `SSC` with them.
        dt: Gap after (`next`) or before (`previous`) an event.
        pad_unit: See `EventData`.
        augment: What training recordings go through.
        **options: See `EventData`.
    """

    width = CHANNELS
    name: ClassVar[str]
    files: ClassVar[dict[str, str]]
    classes: ClassVar[int]

    def __init__(
        self,
        root: str = "data",
        dt: str = "next",
        pad_unit: int = 8192,
        augment: AugmentAudio | None = None,
        **options: Any,
    ) -> None:
        super().__init__(root, "channel", dt, pad_unit=pad_unit, augment=augment, **options)
        self._labels = tuple(str(number) for number in range(self.classes))

    @property
    def labels(self) -> tuple[str, ...]:
        """The words, as soon as a file has been opened; numbers before."""
        return self._labels

    @property
    def has_validation(self) -> bool:
        """Always, if the set brings it."""
        return "validation" in self.files or super().has_validation

    def open_validation(self) -> Spikes | None:
        """Opens the file for validation of a set that has one."""
        return self.open_split("validation") if "validation" in self.files else None

    def open_split(self, name: str) -> Spikes:
        """Opens a file."""
        spikes = Spikes(self._find(f"{self.name}_{self.files[name]}.h5"), self.classes)
        self._labels = spikes.keys or self._labels
        return spikes

    def _find(self, file: str) -> Path:
        root = Path(self.root)
        for folder in (root, root / self.name.upper(), root / self.name):
            if (folder / file).is_file():
                return folder / file
        raise UserError(
            f"{root} holds neither {file} nor {self.name.upper()}/{file}; unpack it there from zenkelab.org/datasets, "
            f"or make recordings up with: python -m train generate {self.name} --root {root}"
        )


class Spikes:
    """The recordings of one file; times become whole microseconds, truncated.

    Attributes:
        keys: Names of the classes, `None` if the file has none.

    Args:
        path: The file.
        classes: Number of classes of the set.

    Raises:
        UserError: If the file is not one of the set.
    """

    def __init__(self, path: Path, classes: int) -> None:
        self.path = path
        self._opened: tuple[int, Any] | None = None
        try:
            file = self._file()
            self.labels = np.asarray(file["labels"], np.int64)
            counts = {len(file["spikes/times"]), len(file["spikes/units"]), len(self.labels)}
        except (OSError, KeyError) as error:
            raise UserError(
                f"{path}: is no Heidelberg set with spikes/times, spikes/units and labels ({error}); fetch it again"
            ) from error
        if len(counts) > 1 or not len(self.labels) or not 0 <= self.labels.min() <= self.labels.max() < classes:
            raise UserError(
                f"{path}: times, units and labels do not belong to one set of {classes} classes; fetch it again"
            )
        keys = file["extra/keys"][()] if "extra/keys" in file else ()
        names = tuple(key.decode() if isinstance(key, bytes) else str(key) for key in keys)
        self.keys = names if len(names) == classes else None
        self.names = [f"{path.name}[{row}]" for row in range(len(self.labels))]

    def __len__(self) -> int:
        return len(self.labels)

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_opened": None}

    def __getitem__(self, row: int) -> Columns:
        file = self._file()
        t = np.trunc(np.asarray(file["spikes/times"][row], np.float64) * 1e6).astype(np.int64)
        x = np.asarray(file["spikes/units"][row]).astype(np.int64)
        return Columns(t, x, np.zeros_like(x), np.ones_like(x)).sorted()

    def _file(self) -> Any:
        # HDF5 files do not survive a fork, so every process opens its own.
        if self._opened is None or self._opened[0] != os.getpid():
            import h5py

            self._opened = os.getpid(), h5py.File(self.path, "r")
        return self._opened[1]
