"""The recordings that a command is given: which ones, their true labels, and how they are fitted to the model."""

from __future__ import annotations

import argparse
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any

from runtime.errors import UserError
from runtime.events import Recording, check_stream, parse_roi, parse_size, read_recording, resize, roi, sort_by_time
from runtime.events.formats import FORMATS

SPLITS = ("train", "validation", "test")
SUFFIXES = frozenset(suffix for kind in FORMATS for suffix in kind.suffixes)


@dataclass(frozen=True)
class Sample:
    """One recording by its path.

    Attributes:
        path: A file, or `archive.zip:member`.
        label: Its class by the folder it lies in, or `None`.
        split: `train`, `validation` or `test` where a folder above says so.
    """

    path: str
    label: str | None = None
    split: str | None = None


def add_options(parser: argparse.ArgumentParser) -> None:
    """The options by which recordings are read and fitted to the model's sensor."""
    group = parser.add_argument_group("reading recordings and fitting them to the model's sensor")
    group.add_argument("--roi", type=parse_roi, metavar="X,Y,W,H", help="crop to this region of the sensor")
    group.add_argument("--resize", type=parse_size, metavar="WxH", help="scale coordinates to this size (after --roi)")
    group.add_argument("--sort", action="store_true", help="sort events by time, for files in which it goes back")
    group.add_argument("--format", metavar="NAME", help="file format, where neither content nor suffix says")
    group.add_argument("--size", type=parse_size, metavar="WxH", help="sensor size, where the file does not say")
    group.add_argument("--tick-us", type=float, metavar="US", help="length of a tick, where the file does not say")
    group.add_argument("--limit", type=count, metavar="N", help="use only the first N events of a recording")


def load(
    path: str, options: argparse.Namespace, front_end: Mapping[str, Any]
) -> tuple[Recording, list[dict[str, Any]]]:
    """Reads one recording, does with it what the options ask, and checks that the model may take it.

    Args:
        path: A file, or `archive.zip:member`.
        options: Parsed options of `add_options`.
        front_end: The program's declaration, for the sensor's size.

    Returns:
        The recording and what was done to it, for reports.

    Raises:
        UserError: If it cannot be read, is of another sensor than the model's, or goes back in time.
    """
    recording = read_recording(path, format=options.format, size=options.size, tick_us=options.tick_us)
    done: list[dict[str, Any]] = []
    if options.sort:
        recording, what = sort_by_time(recording)
        done.append(what)
    if options.roi:
        recording, what = roi(recording, *options.roi)
        done.append(what)
    if options.resize:
        recording, what = resize(recording, *options.resize)
        done.append(what)
    if options.limit and options.limit < len(recording.events):
        done.append({"adapter": "limit", "events": options.limit, "of": len(recording.events)})
        recording = replace(recording, events=recording.events[: options.limit])
    check_stream(recording, width=front_end.get("width"), height=front_end.get("height"))
    return recording, done


def describe(recording: Recording, done: Sequence[Mapping[str, Any]] = ()) -> str:
    """One line on a recording and what was done to it."""
    events = recording.events
    span = float(events.t[-1] - events.t[0]) * recording.tick_us / 1000
    line = (
        f"{recording.source}  {recording.width or '?'} x {recording.height or '?'}  {len(events)} events  {span:.1f} ms"
    )
    for what in done:
        line += f"\n          {what['adapter']}: " + ", ".join(f"{k} {v}" for k, v in what.items() if k != "adapter")
    return line


def find(paths: Sequence[str], labels: Sequence[str] = ()) -> list[Sample]:
    """The recordings that paths stand for: files, zip members, or all that folders and archives hold.

    Args:
        paths: What was given to `-i`.
        labels: The model's classes; a folder of such a name labels what lies in it.

    Raises:
        UserError: If a folder or archive holds no recording.
    """
    samples: list[Sample] = []
    for path in paths:
        if Path(path).is_dir():
            names = [file.relative_to(path).as_posix() for file in Path(path).rglob("*") if file.is_file()]
            prefix = f"{path}/"
        elif PurePosixPath(path).suffix.lower() not in SUFFIXES and zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                names, prefix = archive.namelist(), f"{path}:"
        else:
            samples.append(_sample(path, labels))
            continue
        chosen = sorted(name for name in names if PurePosixPath(name).suffix.lower() in SUFFIXES)
        if not chosen:
            raise UserError(f"{path}: holds no recording; known suffixes are {', '.join(sorted(SUFFIXES))}")
        samples += [_sample(prefix + name, labels) for name in chosen]
    return samples


def spread(samples: Sequence[Sample], number: int | None) -> list[Sample]:
    """`number` of the samples, evenly spaced, so that every folder has its share; all where `None`."""
    if number is None or number >= len(samples):
        return list(samples)
    return [samples[k * len(samples) // number] for k in range(number)]


def count(text: str) -> int:
    """A positive whole number, for argparse."""
    if not text.isdecimal() or not int(text):
        raise argparse.ArgumentTypeError(f"{text!r} is no positive whole number")
    return int(text)


def _sample(path: str, labels: Sequence[str]) -> Sample:
    folders = PurePosixPath(path.replace("\\", "/").replace(":", "/")).parts[:-1]
    label = folders[-1] if folders and folders[-1] in labels else None
    return Sample(path, label, next((folder for folder in reversed(folders) if folder in SPLITS), None))
