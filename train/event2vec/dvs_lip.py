"""DVS-Lip as samples for Event2Vec: its events, or clusters of them.

{train,test}/WORD/NAME.npy                    events, as in `train.data.dvs_lip`
kmeans_N/{train,test}/WORD/NAME.npy.npz       N clusters a clip, as `python -m train prepare cluster` writes them
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from runtime.errors import UserError
from train.data.dvs_lip import CLASSES, Clips, folder
from train.data.source import Source
from train.event2vec.data import WindowData
from train.event2vec.files import Recordings


class DVSLipWindows(WindowData):
    """DVS-Lip.

    Args:
        root: Folder that holds `train` and `test`, or `DVS-Lip` with them.
        window: Events per sample; for clusters their number per clip.
        clusters: Whether to read the clusters, with their intensities; then sampler should be `none`.
        **options: See `WindowData`.
    """

    width = height = 128

    def __init__(self, root: str = "data", window: int = 1024, clusters: bool = False, **options: Any) -> None:
        super().__init__(root, window, **options)
        self.front_end = replace(self.front_end, intensity=clusters)
        self.clusters = clusters
        self._labels = tuple(str(number) for number in range(CLASSES))

    @property
    def labels(self) -> tuple[str, ...]:
        """The words, as soon as a split has been opened; numbers before."""
        return self._labels

    def open_split(self, name: str) -> Source:
        """Lists the clips."""
        base = folder(Path(self.root))
        place = base / f"kmeans_{self.front_end.window}" if self.clusters else base
        self._labels = tuple(sorted(word.name for word in place.glob("train/*") if word.is_dir()))
        if len(self._labels) != CLASSES:
            make = f"prepare cluster --root {base} --clusters {self.front_end.window}"
            hint = make if self.clusters else f"generate dvs_lip --root {self.root}"
            raise UserError(
                f"{place}: train holds {len(self._labels)} folders of words, DVS-Lip has {CLASSES}; "
                f"{'make the clusters' if self.clusters else 'unpack DVS-Lip.zip there, or make clips up'} with: "
                f"python -m train {hint}"
            )
        if self.clusters:
            return Recordings(place / name, self._labels, "*.npz", weighted=True)
        return Clips(place / name, self._labels)
