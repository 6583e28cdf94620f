"""N-MNIST as samples for Event2Vec; layouts as in `train.data.nmnist`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from runtime.events.formats import nmnist
from train.data.nmnist import NMNIST, Bins, Files, find
from train.event2vec.data import WindowData


class NMNISTWindows(WindowData):
    """N-MNIST.

    Args:
        root: Folder or zip archive, or `auto`.
        window: Events per sample.
        **options: See `WindowData`.
    """

    width = height = nmnist.SIDE
    attribution = NMNIST.attribution

    def __init__(self, root: str = "auto", window: int = 512, **options: Any) -> None:
        super().__init__(root, window, **options)
        self.files: Files | None = None

    @property
    def labels(self) -> tuple[str, ...]:
        """The digits."""
        return tuple(str(digit) for digit in range(10))

    def open_split(self, name: str) -> Bins:
        """Reads the list of files."""
        if self.files is None:
            path = find() if self.root == "auto" else Path(self.root)
            self.files = Files(path)
            if self.root == "auto":
                print(f"N-MNIST: {path} ({', '.join(f'{len(self.files.split(s))} {s}' for s in ('train', 'test'))})")
        return Bins(self.files, name)
