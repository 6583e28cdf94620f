"""The recordings that come with the package: a small part of N-MNIST, see `runtime/shipped/NMNIST_LICENSE.md`."""

from __future__ import annotations

import csv
import hashlib
import io
import zipfile
from collections.abc import Iterator
from pathlib import Path

from runtime.errors import UserError
from runtime.events.container import Recording
from runtime.events.formats import File, nmnist

SPLITS = ("train", "test")


def mini_set() -> Path:
    """Path of the archive: `nmnist_mini/{train,test}/{label}/{id:05d}.bin`, `index.csv` and the licence."""
    return Path(__file__).parents[1] / "shipped" / "nmnist_mini.zip"


def index(path: str | Path | None = None) -> list[dict[str, str]]:
    """The rows of the archive's `index.csv`: split, sample, label, events, t_first_us, t_last_us, on_events, sha256.

    Args:
        path: An archive of the same layout (`NAME/index.csv`, `NAME/{split}/{label}/{id:05d}.bin`); the mini set by
            default.
    """
    with _open(path) as archive:
        return _index(archive)


def samples(split: str, path: str | Path | None = None) -> Iterator[tuple[int, Recording]]:
    """Label and recording of every sample of a split, in the order of the index.

    Args:
        split: `train` or `test`.
        path: As for `index`.

    Raises:
        UserError: If the split does not exist, or a sample is not the one that the index describes.
    """
    if split not in SPLITS:
        raise UserError(f"split {split!r} does not exist; choose one of {', '.join(SPLITS)}")
    with _open(path) as archive:
        root = _root(archive)
        for row in _index(archive):
            if row["split"] != split:
                continue
            member = f"{root}/{split}/{row['label']}/{int(row['sample']):05d}.bin"
            data = archive.read(member)
            if hashlib.sha256(data).hexdigest() != row["sha256"]:
                raise UserError(
                    f"{archive.filename}: {member} is not the file its index describes; copy the archive again"
                )
            name = f"{archive.filename}:{member}"
            events = nmnist.decode(File(data, name)).events
            yield int(row["label"]), Recording(events, nmnist.SIDE, nmnist.SIDE, 1.0, name, nmnist.FORMAT.name)


def _open(path: str | Path | None) -> zipfile.ZipFile:
    path = mini_set() if path is None else path
    try:
        return zipfile.ZipFile(path)
    except (OSError, zipfile.BadZipFile) as error:
        raise UserError(f"{path}: is not a readable zip archive ({error})") from None


def _root(archive: zipfile.ZipFile) -> str:
    roots = {name.split("/")[0] for name in archive.namelist() if name.count("/") == 1 and name.endswith("/index.csv")}
    if len(roots) != 1:
        raise UserError(f"{archive.filename}: has no single NAME/index.csv, so it is not a labelled set")
    return roots.pop()


def _index(archive: zipfile.ZipFile) -> list[dict[str, str]]:
    text = archive.read(f"{_root(archive)}/index.csv").decode()
    return list(csv.DictReader(io.StringIO(text)))
