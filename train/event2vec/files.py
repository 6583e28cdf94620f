"""Recordings in one file each, below a folder per class: `.npz` of arrays, or `.npy` of a structured array."""

from __future__ import annotations

import zipfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from runtime.errors import UserError
from train.event2vec.points import Points


class Recordings:
    """The recordings below a folder.

    Args:
        folder: Holds one folder per class.
        labels: Their names, in the order of the logits.
        pattern: Of file names.
        weighted: Whether files must tell the intensity of every event.

    Raises:
        UserError: If there are none.
    """

    def __init__(self, folder: Path, labels: Sequence[str], pattern: str, weighted: bool = False) -> None:
        self.weighted = weighted
        found = [(file, number) for number, name in enumerate(labels) for file in sorted((folder / name).glob(pattern))]
        if not found:
            raise UserError(f"{folder}: holds no CLASS/{pattern}; give --data.root the folder of the set")
        self.files = [file for file, _ in found]
        self.labels = np.array([number for _, number in found], np.int64)
        self.names = [file.relative_to(folder).as_posix() for file in self.files]

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, row: int) -> Points:
        return read(self.files[row], self.weighted)


def read(file: Path, weighted: bool = False) -> Points:
    """Reads one recording; events in time order, times as stored.

    Args:
        file: With t, x, y, p, and where asked for `intensity`.
        weighted: Whether it must tell the intensity.

    Raises:
        UserError: If it does not hold these, of one length.
    """
    names = ("t", "x", "y", "p", *(("intensity",) if weighted else ()))
    try:
        stored = np.load(file)
        columns = [np.asarray(stored[name]) for name in names]
    except (OSError, ValueError, KeyError, IndexError, EOFError, zipfile.BadZipFile) as error:
        # What is neither .npy nor .npz numpy takes for a pickle, and gives advice that nobody should follow.
        reason = "it is neither .npy nor .npz" if "allow_pickle" in str(error) else str(error)
        raise UserError(
            f"{file}: is no recording with {', '.join(names)} ({reason}); make or unpack it again"
        ) from error
    if any(column.shape != columns[0].shape or column.ndim != 1 for column in columns):
        raise UserError(f"{file}: its {', '.join(names)} are not of one length; make or unpack it again")
    points = Points(*columns)
    # Compared, not subtracted: unsigned times have no negative differences.
    if (points.t[1:] < points.t[:-1]).any():
        return points[np.argsort(points.t, kind="stable")]
    return points
