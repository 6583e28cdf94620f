"""Bundles: the folder that ships. Layout, hashes, and the reader that trusts no byte before its hash.

NAME.neuro/
manifest.json       what is inside, for whom, and the SHA-256 of every other file
manifest.sha256     the manifest's own hash
graphs/*.onnx       stages (targets onnx, trt)
device/*.onnx       stages for providers that compute in the target's precision (target onnx-bf16)
native/*.onnx       stages of plain layers, of those that have plugins (targets trt)
plugins/            plugins as images, or as C++ (targets trt)
golden_trace.npz    a real sequence with the float64 reference's answers
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from runtime.errors import UserError
from runtime.program import ProgramSpec

SCHEMA = 1
MANIFEST = "manifest.json"
MANIFEST_HASH = "manifest.sha256"
TRACE = "golden_trace.npz"
KEYS = {"name": str, "target": dict, "program": dict, "graphs": dict, "files": dict, "parity": dict}


@dataclass(frozen=True)
class Bundle:
    """An opened bundle whose manifest has been verified.

    Attributes:
        root: The folder.
        manifest: The manifest as parsed.
        program: The program's tables.
    """

    root: Path
    manifest: dict[str, Any]
    program: ProgramSpec

    @property
    def name(self) -> str:
        """The model's name."""
        return self.manifest["name"]

    @property
    def target(self) -> str:
        """The target it was built for, e.g. `onnx-fp32`."""
        return self.manifest["target"]["name"]

    @property
    def parity(self) -> dict[str, Any]:
        """The parity report of the export."""
        return self.manifest["parity"]

    def digest(self) -> str:
        """The SHA-256 of the manifest, which holds that of every other file."""
        return hashlib.sha256((self.root / MANIFEST).read_bytes()).hexdigest()

    def read(self, name: str) -> bytes:
        """The bytes of one file, after their hash was found to match.

        Raises:
            UserError: If the file is missing, was changed, or is not part of the bundle.
        """
        entry = self.manifest["files"].get(name)
        if entry is None:
            raise UserError(f"{self.root} does not list a file {name!r} in its manifest; export the model again")
        path = self.root / name
        try:
            data = path.read_bytes()
        except OSError as error:
            raise UserError(f"{path} of the bundle cannot be read ({error.strerror}); copy the bundle again") from error
        if hashlib.sha256(data).hexdigest() != entry["sha256"]:
            raise UserError(
                f"{path} is not the file that was exported (its SHA-256 differs); copy or export the bundle again"
            )
        return data

    def graphs(self, *, device: bool = False) -> dict[str, bytes]:
        """Stage name -> verified graph bytes.

        Args:
            device: Whether they are for an accelerator, which may have a form of its own.
        """
        paths = self.manifest.get("device_graphs") if device else None
        return {stage: self.read(path) for stage, path in (paths or self.manifest["graphs"]).items()}

    def verify_files(self) -> None:
        """Checks the hash of every file.

        Raises:
            UserError: At the first file that differs.
        """
        for name in self.manifest["files"]:
            self.read(name)


def open_bundle(path: str | Path) -> Bundle:
    """Opens a bundle and checks its manifest.

    Args:
        path: The folder `NAME.neuro`.

    Returns:
        The bundle; its other files are checked when they are read.

    Raises:
        UserError: If the folder is no bundle, was changed, or has a schema this version does not know.
    """
    root = Path(path)
    if not root.is_dir():
        raise UserError(f"{root} is not a bundle folder; give the NAME.neuro folder that `neurocompile export` wrote")
    try:
        data = (root / MANIFEST).read_bytes()
        recorded = (root / MANIFEST_HASH).read_text("ascii", "replace").split()
    except OSError as error:
        raise UserError(
            f"{root} is not a complete bundle ({error.filename}: {error.strerror}); export the model again"
        ) from error
    if not recorded or hashlib.sha256(data).hexdigest() != recorded[0]:
        raise UserError(
            f"{root / MANIFEST} is not the manifest that was exported (its SHA-256 differs); "
            "copy or export the bundle again"
        )
    try:
        manifest = json.loads(data)
        schema = manifest["schema"]
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{root / MANIFEST} is no manifest ({error}); export the model again") from error
    if schema != SCHEMA:
        raise UserError(
            f"{root} has manifest schema {schema}, this runtime reads schema {SCHEMA}; "
            "install the matching version or export again"
        )
    _check(manifest, root / MANIFEST)
    return Bundle(root, manifest, ProgramSpec.from_json(manifest["program"]))


def _check(manifest: dict[str, Any], where: Path) -> None:
    """Raises `UserError` unless every key is there, of its kind, and no file lies outside the bundle."""
    for key, kind in KEYS.items():
        if not isinstance(manifest.get(key), kind):
            raise UserError(f"{where} has no usable {key!r}; export the model again")
    for name, entry in manifest["files"].items():
        path = PurePosixPath(name)
        if path.is_absolute() or ".." in path.parts or "\\" in name or ":" in name:
            raise UserError(f"{where} lists {name!r}, which lies outside the bundle; do not trust this bundle")
        if not isinstance(entry, dict) or not isinstance(entry.get("sha256"), str):
            raise UserError(f"{where} has no SHA-256 for {name!r}; export the model again")
    if not {"name", "backend"} <= set(manifest["target"]):
        raise UserError(f"{where} does not say for which target it was built; export the model again")
