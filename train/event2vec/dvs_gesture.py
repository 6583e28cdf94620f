"""DVS128 Gesture as samples for Event2Vec; layouts as in `train.data.dvs_gesture`.

Classes are in the published order, that of the folders' names as text: 0, 1, 10, 2, .. 9.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from models.event2vec.presets import GESTURE_ORDER, GESTURES
from train.data.dvs_gesture import Trials, cut_once
from train.event2vec.data import WindowData


class DVSGestureWindows(WindowData):
    """DVS128 Gesture.

    Args:
        root: Folder with one of the layouts.
        window: Events per sample.
        **options: See `WindowData`.
    """

    width = height = 128

    def __init__(self, root: str = "data", window: int = 4096, **options: Any) -> None:
        super().__init__(root, window, **options)

    @property
    def labels(self) -> tuple[str, ...]:
        """The gestures."""
        return GESTURES

    def prepare_data(self) -> None:
        """Cuts original recordings into trials, once."""
        cut_once(Path(self.root))

    def open_split(self, name: str) -> Trials:
        """Opens the recordings, whole."""
        trials = Trials(Path(self.root), name)
        trials.labels = np.argsort(GESTURE_ORDER)[trials.labels]
        return trials
