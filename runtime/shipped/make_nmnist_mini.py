"""Rebuilds `nmnist_mini.zip`: `python runtime/shipped/make_nmnist_mini.py nmnist_small.zip`.

Takes every test sample and, class by class in turn, the training samples of lowest id until the archive is full.
The same input and zlib give the same bytes: members in a fixed order, all dated 1980-01-01.
"""

from __future__ import annotations

import csv
import io
import sys
import zipfile
import zlib
from itertools import zip_longest
from pathlib import Path

LIMIT = 3_600_000
HERE = Path(__file__).parent
NAME = "nmnist_mini"


def main(source: str) -> None:
    """Writes the archive beside this file."""
    with zipfile.ZipFile(source) as archive:
        old = next(name for name in archive.namelist() if name.endswith("/index.csv")).split("/")[0]
        rows = list(csv.DictReader(io.StringIO(archive.read(f"{old}/index.csv").decode())))
        data = {row["sample"]: archive.read(f"{old}/{member(row)}") for row in rows}
    test = [row for row in rows if row["split"] == "test"]
    classes = [[row for row in rows if row["split"] == "train" and row["label"] == str(label)] for label in range(10)]
    rounds = [list(turn) for turn in zip_longest(*classes) if None not in turn]
    # Whole rounds of ten classes only, so that the classes stay balanced.
    chosen, room = list(test), LIMIT - 8192 - sum(cost(data[row["sample"]]) for row in test)
    for turn in rounds:
        room -= sum(cost(data[row["sample"]]) for row in turn)
        if room < 0:
            break
        chosen += turn
    chosen.sort(key=lambda row: (row["split"] == "test", int(row["sample"])))
    table = io.StringIO()
    writer = csv.DictWriter(table, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(chosen)
    members = {f"{NAME}/NMNIST_LICENSE.md": (HERE / "NMNIST_LICENSE.md").read_bytes()}
    members[f"{NAME}/index.csv"] = table.getvalue().encode()
    members |= {f"{NAME}/{member(row)}": data[row["sample"]] for row in chosen}
    target = HERE / f"{NAME}.zip"
    with zipfile.ZipFile(target, "w") as archive:
        for name, content in members.items():
            info = zipfile.ZipInfo(name)
            info.external_attr = 0o644 << 16
            info.create_system = 3
            archive.writestr(info, content, zipfile.ZIP_DEFLATED, compresslevel=9)
    print(f"{target}: {len(test)} test and {len(chosen) - len(test)} training samples, {target.stat().st_size} bytes")


def member(row: dict[str, str]) -> str:
    """Path of a sample below the archive's top folder."""
    return f"{row['split']}/{row['label']}/{int(row['sample']):05d}.bin"


def cost(content: bytes) -> int:
    """Bytes that a sample takes in the archive: deflated content, two headers with its name, its line in the index."""
    return len(zlib.compress(content, 9)) + 30 + 46 + 2 * len(f"{NAME}/train/0/00000.bin") + 60


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: make_nmnist_mini.py nmnist_small.zip")
    main(sys.argv[1])
