"""DVS128 Gesture (Amir et al. 2017): 11 gestures of 29 people under 5 lights before a 128 x 128 camera.

Three layouts, each below `root` or one folder further down (`DvsGesture`, `DVSGesture`):

    original   trials_to_train.txt, trials_to_test.txt: one name of a recording a line
               userNN_LIGHT.aedat                       AEDAT 3.1, see `train.data.aedat31`
               userNN_LIGHT_labels.csv                  class,startTime_usec,endTime_usec; classes 1..11, end excluded
    npy        ibmGestureTrain/userNN_LIGHT/K.npy, ibmGestureTest/..   as tonic's download unpacks: class K in 0..10,
               (N, 4) numbers x, y, p, t; t in milliseconds
    npz        {train,test}/K/NAME.npz                  as SpikingJelly splits it: arrays t (microseconds), x, y, p

The original is cut into its trials once, into `ROOT/trials/{train,test}/K/NAME.npz`, and read from there.

Recordings are cut into windows of a number of events (published: 65536, overlapping by half, the last one kept short).
"""

from __future__ import annotations

import csv
import re
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from runtime.errors import UserError
from train.augment import AugmentVision, Columns
from train.data import aedat31
from train.data.module import EventData
from train.data.source import Sliced, Source

LABELS = (
    "hand_clapping right_hand_wave left_hand_wave right_arm_clockwise right_arm_counter_clockwise left_arm_clockwise "
    "left_arm_counter_clockwise arm_roll air_drums air_guitar other_gestures"
)
NPY = {"train": "ibmGestureTrain", "test": "ibmGestureTest"}
TRIALS, COMPLETE = "trials", "complete"


class DVSGesture(EventData):
    """DVS128 Gesture; see the module for the layouts.

    Args:
        root: Folder with one of the layouts.
        rule: How coordinates become a token.
        dt: Gap after (`next`) or before (`previous`) an event.
        pad_unit: See `EventData`.
        augment: What training windows go through.
        slice_events: Events per training window; 0 leaves recordings whole.
        slice_overlap: Events that neighbouring windows share.
        **options: See `EventData`.
    """

    width = height = 128
    polarities = 2

    def __init__(
        self,
        root: str = "data",
        rule: str = "product",
        dt: str = "next",
        pad_unit: int = 65536,
        augment: AugmentVision | None = None,
        slice_events: int = 65536,
        slice_overlap: int = 32768,
        **options: Any,
    ) -> None:
        super().__init__(root, rule, dt, pad_unit=pad_unit, augment=augment, **options)
        if slice_events and not 0 <= slice_overlap < slice_events:
            raise UserError(f"data.slice_overlap {slice_overlap} must be less than data.slice_events {slice_events}")
        self.slice_events, self.slice_overlap = slice_events, slice_overlap

    @property
    def labels(self) -> tuple[str, ...]:
        """The gestures."""
        return tuple(LABELS.split())

    def prepare_data(self) -> None:
        """Cuts original recordings into trials, once."""
        cut_once(Path(self.root))

    def open_split(self, name: str) -> Trials:
        """Opens the recordings, whole."""
        return Trials(Path(self.root), name)

    def training(self, source: Source) -> Source:
        """Cuts training recordings into windows, after whole ones were held back for validation."""
        if not self.slice_events:
            return source
        return Sliced(source, self.slice_events, self.slice_overlap)


class Trials:
    """The recordings of one split, one file each.

    Args:
        root: Folder with one of the layouts, whose trials are cut.
        split: `train` or `test`.

    Raises:
        UserError: If there are none.
    """

    def __init__(self, root: Path, split: str) -> None:
        places = [place for base in _bases(root) for place in (base / TRIALS / split, base / split, base / NPY[split])]
        files = next((files for place in places if (files := sorted(place.glob("*/*.np[yz]")))), [])
        if not files:
            raise UserError(
                f"{root}: holds no {split} split of DVS128 Gesture (neither trials_to_{split}.txt, "
                f"{NPY[split]}/USER/K.npy nor {split}/K/NAME.npz); fetch the set, or make recordings up with: "
                f"python -m train generate dvs_gesture --root {root}"
            )
        labels = [file.stem if file.suffix == ".npy" else file.parent.name for file in files]
        if wrong := [file for file, label in zip(files, labels, strict=True) if not re.fullmatch(r"\d|10", label)]:
            raise UserError(f"{wrong[0]}: its name does not say which class 0..10 it is; unpack the set again")
        self.files, self.labels = files, np.array([int(label) for label in labels], np.int64)
        self.names = [str(file.relative_to(root)) for file in files]

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, row: int) -> Columns:
        file = self.files[row]
        try:
            if file.suffix == ".npy":
                x, y, p, t = np.load(file)[:, :4].astype(np.int64).T
                t = t * 1000
            else:
                with np.load(file) as arrays:
                    t, x, y, p = (arrays[name].astype(np.int64) for name in "txyp")
        except (OSError, ValueError, KeyError, IndexError) as error:
            raise UserError(f"{file}: is no recording of DVS128 Gesture ({error}); unpack the set again") from error
        return Columns(t, x, y, p).sorted()

    def count(self, row: int) -> int:
        """Number of events of a recording, without reading it."""
        file = self.files[row]
        if file.suffix == ".npy":
            return len(np.load(file, mmap_mode="r"))
        with zipfile.ZipFile(file) as archive, archive.open("t.npy") as member:
            read = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
            return read[np.lib.format.read_magic(member)](member)[0][0]


def cut_once(root: Path) -> None:
    """Cuts the original recordings at or below `root` into trials, if they are there and were not cut before.

    Raises:
        UserError: See `cut`.
    """
    base = next((base for base in _bases(root) if (base / "trials_to_train.txt").is_file()), None)
    if base is not None and not (base / TRIALS / COMPLETE).exists():
        cut(base, base / TRIALS)


def cut(root: Path, target: Path) -> None:
    """Cuts original recordings into one file per trial.

    Args:
        root: Folder of the original recordings.
        target: Folder to write `{train,test}/K/NAME.npz` into, and at last the empty file `complete`.

    Raises:
        UserError: If a recording is damaged or the folder cannot be written.
    """
    print(f"DVS128 Gesture: cutting {root} into trials (once)")
    try:
        for split in ("train", "test"):
            for name in (root / f"trials_to_{split}.txt").read_text().split():
                for number, (label, trial) in enumerate(_trials(root / name)):
                    file = target / split / str(label) / f"{Path(name).stem}_{number}.npz"
                    file.parent.mkdir(parents=True, exist_ok=True)
                    # Small integers: a recording of 400 k events takes 5 MB.
                    x, y, p = (column.astype(np.uint8) for column in (trial.x, trial.y, trial.p))
                    np.savez(file, t=trial.t, x=x, y=y, p=p)
        (target / COMPLETE).touch()
    except OSError as error:
        raise UserError(
            f"{error.filename}: {error.strerror}; the trials of the set need a complete, writable folder"
        ) from error


def _trials(path: Path) -> Iterator[tuple[int, Columns]]:
    """Label 0..10 and events of every labelled trial of a recording."""
    events = aedat31.read(path).sorted()
    with path.with_name(f"{path.stem}_labels.csv").open(newline="") as file:
        for row in csv.DictReader(file):
            begin, end = np.searchsorted(events.t, [int(row["startTime_usec"]), int(row["endTime_usec"])])
            yield int(row["class"]) - 1, events[begin:end]


def _bases(root: Path) -> list[Path]:
    return [root, root / "DvsGesture", root / "DVSGesture"]
