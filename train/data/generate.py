"""Made-up recordings in the exact layout of a data set, to try a configuration without the set.

    python -m train generate {shd,ssc,dvs_gesture,dvs_lip,asl_dvs,nmnist} --root FOLDER [--samples 10] [--events 2000]

A recording of class k is a spot that moves across the sensor: its path depends on k, its polarity on which side of the
spot an event lies. The classes can be learnt, but accuracies on them say nothing about the real set.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

import numpy as np

from runtime.errors import UserError
from train.augment import Columns


def spot(rng: np.random.Generator, label: int, count: int, width: int, height: int, duration_us: int) -> Columns:
    """A recording of class `label`.

    Args:
        rng: Source of randomness.
        label: Class.
        count: Number of events.
        width: Sensor columns, or channels.
        height: Sensor rows, 1 for audio.
        duration_us: Length in microseconds.

    Returns:
        The events, in time order.
    """
    t = np.sort(rng.integers(0, duration_us, count))
    progress = t / duration_us
    # Golden-ratio steps keep the paths of all classes apart, however many there are.
    start, speed = (label * 0.618034) % 1, ((label * 0.754878) % 1 - 0.5)
    offset = rng.normal(0.0, 0.05, (2, count))
    x = (start + speed * progress + offset[0]) % 1
    y = (start * 7 % 1 + speed * progress + offset[1]) % 1
    p = (offset[0] > 0).astype(np.int64) if height > 1 else np.ones(count, np.int64)
    return Columns(t, (x * width).astype(np.int64), (y * height).astype(np.int64), p)


def heidelberg(name: str, classes: int, splits: tuple[str, ...]) -> Callable[..., None]:
    """Writer of `{name}_{split}.h5` files."""

    def write(root: Path, rng: np.random.Generator, samples: int, events: int) -> None:
        import h5py

        folder = root / name.upper()
        folder.mkdir(parents=True, exist_ok=True)
        for split in splits:
            labels = np.repeat(np.arange(classes), samples)
            recordings = [spot(rng, int(label), events, 700, 1, 1_000_000) for label in labels]
            with h5py.File(folder / f"{name}_{split}.h5", "w") as file:
                times = file.create_dataset("spikes/times", (len(labels),), h5py.vlen_dtype(np.float32))
                units = file.create_dataset("spikes/units", (len(labels),), h5py.vlen_dtype(np.int64))
                for row, recording in enumerate(recordings):
                    times[row], units[row] = (recording.t / 1e6).astype(np.float32), recording.x
                file["labels"] = labels
                file["extra/keys"] = np.array([f"word{label}" for label in range(classes)], "S")

    return write


def dvs_gesture(root: Path, rng: np.random.Generator, samples: int, events: int) -> None:
    """Writes the original layout: AEDAT 3.1, one user per sample, all gestures one after the other in a recording."""
    from train.data import aedat31

    folder = root / "DvsGesture"
    folder.mkdir(parents=True, exist_ok=True)
    for split, first in (("train", 1), ("test", 24)):
        names = [f"user{first + number:02d}_led" for number in range(samples)]
        (folder / f"trials_to_{split}.txt").write_text("".join(f"{name}.aedat\n" for name in names))
        for name in names:
            trials, rows, begin = [], ["class,startTime_usec,endTime_usec"], 1000
            for label in range(11):
                trial = spot(rng, label, events, 128, 128, 500_000)
                trials.append(Columns(trial.t + begin, trial.x, trial.y, trial.p))
                rows.append(f"{label + 1},{begin},{begin + 500_000}")
                begin += 600_000
            whole = Columns(*(np.concatenate([getattr(trial, column) for trial in trials]) for column in "txyp"))
            aedat31.write(folder / f"{name}.aedat", whole)
            (folder / f"{name}_labels.csv").write_text("\n".join(rows) + "\n")


def dvs_lip(root: Path, rng: np.random.Generator, samples: int, events: int) -> None:
    """Writes 100 words."""
    kind = np.dtype([("t", np.int64), ("x", np.int16), ("y", np.int16), ("p", np.int8)])
    for split in ("train", "test"):
        for label in range(100):
            folder = root / "DVS-Lip" / split / f"word{label:02d}"
            folder.mkdir(parents=True, exist_ok=True)
            for number in range(samples):
                recording = spot(rng, label, events, 128, 128, 1_000_000)
                clip = np.empty(events, kind)
                for name in "txyp":
                    clip[name] = getattr(recording, name)
                np.save(folder / f"{number}.npy", clip)


def asl_dvs(root: Path, rng: np.random.Generator, samples: int, events: int) -> None:
    """Writes 24 letters; a set without splits, so both splits' recordings lie in one folder."""
    from models.event2vec.presets import LETTERS

    for label, letter in enumerate(LETTERS):
        folder = root / letter
        folder.mkdir(parents=True, exist_ok=True)
        for number in range(2 * samples):
            recording = spot(rng, label, events, 240, 180, 200_000)
            file = folder / f"{letter}_{number + 1:04d}.npz"
            np.savez(file, t=recording.t, x=recording.x, y=recording.y, p=recording.p)


def nmnist(root: Path, rng: np.random.Generator, samples: int, events: int) -> None:
    """Writes `{Train,Test}/{label}/{id}.bin`."""
    for split, first in (("Train", 1), ("Test", 60001)):
        for label in range(10):
            folder = root / split / str(label)
            folder.mkdir(parents=True, exist_ok=True)
            for number in range(samples):
                recording = spot(rng, label, events, 34, 34, 300_000)
                t = recording.t
                record = [recording.x, recording.y, (recording.p << 7) | (t >> 16), (t >> 8) & 0xFF, t & 0xFF]
                file = folder / f"{first + label * samples + number:05d}.bin"
                file.write_bytes(np.stack(record, 1).astype(np.uint8).tobytes())


WRITERS: dict[str, Callable[..., None]] = {
    "shd": heidelberg("shd", 20, ("train", "test")),
    "ssc": heidelberg("ssc", 35, ("train", "valid", "test")),
    "dvs_gesture": dvs_gesture,
    "dvs_lip": dvs_lip,
    "asl_dvs": asl_dvs,
    "nmnist": nmnist,
}


def main(arguments: list[str]) -> int:
    """Runs `generate`."""
    parser = argparse.ArgumentParser(
        prog="python -m train generate", description="Write made-up recordings in the layout of a data set."
    )
    parser.add_argument("name", choices=sorted(WRITERS), help="data set whose layout to write")
    parser.add_argument("--root", type=Path, required=True, help="folder to write into; must not hold a set yet")
    parser.add_argument(
        "--samples", type=int, default=10, help="recordings per class and split (gesture: users per split)"
    )
    parser.add_argument("--events", type=int, default=2000, help="events per recording")
    parser.add_argument("--seed", type=int, default=0, help="of the random numbers")
    options = parser.parse_args(arguments)
    if options.samples < 1 or options.events < 2:
        raise UserError("generate needs at least 1 sample of 2 events")
    if options.root.exists() and (not options.root.is_dir() or any(options.root.iterdir())):
        raise UserError(
            f"{options.root} is not an empty folder, and made-up recordings must not mix with real ones; name another"
        )
    try:
        WRITERS[options.name](options.root, np.random.default_rng(options.seed), options.samples, options.events)
    except OSError as error:
        raise UserError(f"{error.filename}: {error.strerror}; name a folder that can be written") from error
    print(f"made-up {options.name} recordings: {options.root}")
    return 0
