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
            path = self.root / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
            self._files[name] = {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)}

    def write_manifest(self, manifest: Mapping[str, Any]) -> None:
        """Writes (or rewrites) the manifest with the hashes of everything added so far."""
        table = {"schema": SCHEMA, **manifest, "files": self._files}
        data = (json.dumps(table, indent=1) + "\n").encode()
        (self.root / MANIFEST).write_bytes(data)
        (self.root / MANIFEST_HASH).write_text(f"{hashlib.sha256(data).hexdigest()}  {MANIFEST}\n")


@contextmanager
def staging(destination: Path) -> Iterator[Staging]:
    """A staged bundle that takes its final name when the block ends without an error.

    Args:
        destination: The folder `NAME.neuro`; an older bundle there is replaced, anything else is not touched.

    Yields:
        The staging area.

    Raises:
        UserError: If the destination cannot be written or is something other than a bundle.
    """
    destination = destination.absolute()
    if destination.exists() and not (destination / MANIFEST).is_file():
        raise UserError(f"{destination} exists and is no bundle; choose another name with -o or remove it yourself")
    try:
        destination.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=f".{destination.name}.", dir=destination.parent))
    except OSError as error:
        raise UserError(
            f"{destination.parent} cannot be written ({error.strerror}); choose another place with -o"
        ) from error
    try:
        yield Staging(temporary)
        temporary.chmod(0o755)
        _replace(temporary, destination)
    except OSError as error:
        raise UserError(
            f"{destination} cannot be written ({error.strerror}); free space or choose another place"
        ) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _replace(temporary: Path, destination: Path) -> None:
    if not destination.exists():
        os.rename(temporary, destination)
        return
    old = Path(tempfile.mkdtemp(prefix=f".{destination.name}.old.", dir=destination.parent))
    os.rename(destination, old / "bundle")
    try:
        os.rename(temporary, destination)
    except OSError:
        os.rename(old / "bundle", destination)
        raise
    finally:
        shutil.rmtree(old, ignore_errors=True)
