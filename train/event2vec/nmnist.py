"""N-MNIST as samples for Event2Vec; layouts as in `train.data.nmnist`."""

from __future__ import annotations

from typing import Any

from runtime.events.formats import nmnist
from train.data.nmnist import NMNIST, Bins, Files, open_files
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
            self.files = open_files(self.root)
        return Bins(self.files, name)
