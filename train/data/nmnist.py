"""N-MNIST (Orchard et al. 2015): MNIST digits on a screen before a moving 34 x 34 sensor, about 0.3 s a sample.

Layouts, as a folder or as a zip archive of it (names of folders in any case):

    {train,test}/{label}/{id}.bin          the original Train.zip and Test.zip, unpacked side by side
    NAME/{train,test}/{label}/{id}.bin     nmnist_small.zip and the mini set that ships with this package

A `.bin` file has five bytes an event, see `runtime.events.formats.nmnist`.

`root: auto` takes the first that exists of: the folder that $NEUROCOMPILE_DATA names, ./data, ../shared/data (there
`nmnist_small.zip`, `nmnist/nmnist_small.zip`, or a folder `nmnist` or `NMNIST`), and at last the shipped mini set.
"""

from __future__ import annotations

import os
import re
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from runtime.errors import UserError
from runtime.events.formats import File, nmnist
from runtime.events.shipped import mini_set
from train.augment import AugmentVision, Columns
from train.data.module import EventData

CACHED_BYTES = 1 << 28
"""Sets up to this size are kept in memory, as the files' bytes."""


class NMNIST(EventData):
    """N-MNIST; see the module for the layouts.

    Args:
        root: Folder or zip archive, or `auto`.
        rule: How coordinates become a token.
        dt: Gap after (`next`) or before (`previous`) an event.
        classes: The digits to tell apart, in the order of the logits; all ten by default. The other digits' recordings
            are left out of every split.
        pad_unit: See `EventData`.
        augment: What training recordings go through.
        **options: See `EventData`.
    """

    width = height = nmnist.SIDE
    polarities = 2
    attribution = "N-MNIST, G. Orchard, A. Jayawant, G. Cohen, N. Thakor 2015, CC BY-SA 4.0"

    def __init__(
        self,
        root: str = "auto",
        rule: str = "linear",
        dt: str = "previous",
        classes: list[int] | None = None,
        pad_unit: int = 64,
        augment: AugmentVision | None = None,
        **options: Any,
    ) -> None:
        super().__init__(root, rule, dt, pad_unit=pad_unit, augment=augment, **options)
        self.classes = list(range(10)) if classes is None else classes
        if (
            len(set(self.classes)) != len(self.classes)
            or len(self.classes) < 2
            or not set(self.classes) <= set(range(10))
        ):
            raise UserError(f"data.classes is {self.classes}; give two or more different digits, such as [3,7]")
        self.files: Files | None = None

    @property
    def labels(self) -> tuple[str, ...]:
        """The digits."""
        return tuple(str(digit) for digit in self.classes)

    def open_split(self, name: str) -> Bins:
        """Reads the list of files."""
        if self.files is None:
            self.files = open_files(self.root)
        return Bins(self.files, name, self.classes)


def find() -> Path:
    """The place that `root: auto` stands for."""
    folders = [Path(folder) for folder in (os.environ.get("NEUROCOMPILE_DATA"), "data", "../shared/data") if folder]
    names = ("nmnist_small.zip", "nmnist/nmnist_small.zip", "nmnist", "NMNIST")
    return next((folder / name for folder in folders for name in names if (folder / name).exists()), mini_set())


def open_files(root: str) -> Files:
    """The sample files at `root`; says where they are if that is `auto`."""
    if root != "auto":
        return Files(Path(root))
    files = Files(find())
    print(f"N-MNIST: {files.path} ({', '.join(f'{len(files.split(name))} {name}' for name in ('train', 'test'))})")
    return files


class Files:
    """The sample files of a folder or zip archive.

    Args:
        path: Where they are.

    Raises:
        UserError: If there are none in a known layout.
    """

    pattern = re.compile(r"(?:^|/)(train|test)/(\d)/([^/]+)\.bin$", re.IGNORECASE)

    def __init__(self, path: Path) -> None:
        self.path = path
        self._opened: tuple[int, zipfile.ZipFile] | None = None
        if path.is_dir():
            names = {file.relative_to(path).as_posix(): file.stat().st_size for file in sorted(path.rglob("*.bin"))}
        else:
            try:
                with zipfile.ZipFile(path) as archive:
                    names = {member.filename: member.file_size for member in archive.infolist()}
            except FileNotFoundError:
                raise UserError(
                    f"N-MNIST: {path} does not exist; give --data.root a folder or zip archive, or `auto`"
                ) from None
            except (OSError, zipfile.BadZipFile) as error:
                raise UserError(f"N-MNIST: {path} is no readable zip archive ({error}); copy it again") from None
        self.members = {name: match for name in names if (match := self.pattern.search(name))}
        if not self.members:
            raise UserError(f"N-MNIST: {path} holds no train/LABEL/NAME.bin; give --data.root the folder above `train`")
        self.cache: dict[str, bytes] | None = {} if sum(names[name] for name in self.members) <= CACHED_BYTES else None

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_opened": None}

    def split(self, name: str) -> list[tuple[str, int]]:
        """File name and label of the samples of `train` or `test`."""
        return [(file, int(match[2])) for file, match in sorted(self.members.items()) if match[1].lower() == name]

    def read(self, name: str) -> bytes:
        """The bytes of one sample."""
        if self.cache is not None and name in self.cache:
            return self.cache[name]
        if self.path.is_dir():
            data = (self.path / name).read_bytes()
        else:
            # Processes that share an open file share its position, so each opens its own.
            if self._opened is None or self._opened[0] != os.getpid():
                self._opened = os.getpid(), zipfile.ZipFile(self.path)
            data = self._opened[1].read(name)
        if self.cache is not None:
            self.cache[name] = data
        return data


class Bins:
    """The samples of one split.

    Args:
        files: All files.
        split: `train` or `test`.
        classes: The digits to keep; a sample's label is its digit's place in here.
    """

    def __init__(self, files: Files, split: str, classes: Sequence[int] = range(10)) -> None:
        members = files.split(split)
        if not members:
            raise UserError(
                f"N-MNIST: {files.path} has no {split} samples; give --data.root the folder above `{split}`"
            )
        place = {digit: number for number, digit in enumerate(classes)}
        kept = [(name, place[digit]) for name, digit in members if digit in place]
        if not kept:
            raise UserError(
                f"N-MNIST: {files.path} has no {split} samples of the digits {list(classes)}; choose others"
            )
        self.files, self.names = files, [name for name, _ in kept]
        self.labels = np.array([label for _, label in kept], np.int64)

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, row: int) -> Columns:
        name = self.names[row]
        return Columns.of(nmnist.decode(File(self.files.read(name), f"{self.files.path}:{name}")).events)
