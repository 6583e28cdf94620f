"""Writes bundles: staged under a temporary name beside the destination, renamed when complete, gone when not."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from runtime.bundle import MANIFEST, MANIFEST_HASH, SCHEMA
from runtime.errors import UserError


class Staging:
    """A bundle in the making.

    Attributes:
        root: The temporary folder; a valid bundle after every `write_manifest`.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self._files: dict[str, dict[str, Any]] = {}

    def add(self, files: Mapping[str, bytes]) -> None:
        """Adds files by their path inside the bundle."""
        for name, data in files.items():
            self._write(name, data)
            self._files[name] = {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)}

    def write_manifest(self, manifest: Mapping[str, Any]) -> None:
        """Writes (or rewrites) the manifest with the hashes of everything added so far."""
        table = {"schema": SCHEMA, **manifest, "files": self._files}
        data = (json.dumps(table, indent=1) + "\n").encode()
        self._write(MANIFEST, data)
        self._write(MANIFEST_HASH, f"{hashlib.sha256(data).hexdigest()}  {MANIFEST}\n".encode())

    def _write(self, name: str, data: bytes) -> None:
        path = self.root / name
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
        except OSError as error:
            raise _unwritable(self.root.parent, error) from error


@contextmanager
def staging(destination: Path) -> Iterator[Staging]:
    """A staged bundle that takes its final name when the block ends without an error.

    It is staged in the nearest folder that exists, so that a failure leaves no folder behind either.

    Args:
        destination: The folder `NAME.neuro`; an older bundle there is replaced, anything else is not touched.

    Yields:
        The staging area.

    Raises:
        UserError: If the destination cannot be written or is something other than a bundle.
    """
    destination = destination.absolute()
    try:
        if destination.exists() and not (destination / MANIFEST).is_file():
            raise UserError(f"{destination} exists and is no bundle; choose another name with -o or remove it yourself")
        ground = next(folder for folder in destination.parents if folder.exists())
        temporary = Path(tempfile.mkdtemp(prefix=f".{destination.name}.", dir=ground))
    except OSError as error:
        raise _unwritable(destination.parent, error) from error
    try:
        yield Staging(temporary)
        try:
            temporary.chmod(0o755)
            destination.parent.mkdir(parents=True, exist_ok=True)
            _replace(temporary, destination)
        except OSError as error:
            raise _unwritable(destination, error) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _unwritable(place: Path, error: OSError) -> UserError:
    return UserError(f"{place} cannot be written ({error.strerror or error}); choose another place with -o")


def _replace(temporary: Path, destination: Path) -> None:
    """Puts the new bundle where the old one was; whatever happens in between, the old one is not lost."""
    if not destination.exists():
        os.rename(temporary, destination)
        return
    aside = Path(tempfile.mkdtemp(prefix=f".{destination.name}.old.", dir=destination.parent)) / "bundle"
    try:
        os.rename(destination, aside)
        os.rename(temporary, destination)
    except BaseException:
        if aside.exists() and not destination.exists():
            os.rename(aside, destination)
        aside.parent.rmdir()
        raise
    shutil.rmtree(aside.parent, ignore_errors=True)
