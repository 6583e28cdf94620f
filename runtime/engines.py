"""Engines on disk: which bundle, TensorRT and GPU they were built for, and why they may not be loaded.

FOLDER/
engines.json      key, TensorRT version, compute capability, SHA-256 of every plan
STAGE.plan        one serialised engine per stage

Everything is compared before a byte of a plan reaches TensorRT. Engines lie beside the bundle in `NAME.engines` where
somebody put them there, otherwise in the user's cache under their key.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from runtime import machine
from runtime.bundle import Bundle
from runtime.errors import UserError

TABLE = "engines.json"
SETTINGS = {"strongly_typed": True, "tf32": False}
"""What builds are made with; part of the key."""


@dataclass(frozen=True)
class Host:
    """What engines are bound to.

    Attributes:
        tensorrt: Full version, e.g. `10.3.0.30`.
        capability: Compute capability as one number, e.g. 87.
    """

    tensorrt: str
    capability: int


def check_host(bundle: Bundle, host: Host) -> None:
    """Raises `UserError` if the bundle was exported for another TensorRT or another GPU."""
    target = bundle.manifest["target"]
    wanted, capability = str(target.get("tensorrt", "")), target.get("capability")
    if wanted and not _reads(wanted, host.tensorrt):
        raise UserError(
            f"{bundle.root} was exported for TensorRT {wanted} and this machine has {host.tensorrt}; "
            f"export it with --tensorrt {host.tensorrt.split('.')[0]}"
        )
    if capability is not None and capability != host.capability:
        raise UserError(
            f"{bundle.root} was exported for sm_{capability} and the GPU here is sm_{host.capability}; "
            f"export it for {target['name'].split('@')[0]}@sm{host.capability}"
        )
    least = target.get("least_capability")
    if least is not None and host.capability < least:
        raise UserError(
            f"{bundle.root} computes in {target.get('dtype')}, which needs sm_{least} or newer, and the GPU here is "
            f"sm_{host.capability}; export it for {target['backend']}-fp16@sm{host.capability}"
        )
    if plugins := plugins_of(bundle):
        missing = sorted(name for name in plugins if name not in bundle.manifest["files"])
        if missing:
            raise UserError(f"{bundle.root} needs the plugin {missing[0]}, which it does not hold; export it again")


def plugins_of(bundle: Bundle) -> list[str]:
    """Paths in the bundle of the plugin libraries that its graphs need."""
    return list(bundle.manifest["target"].get("plugins", []))


def key_of(bundle: Bundle, host: Host) -> str:
    """The key of a bundle's engines: graphs (their weights are in them), plugins, settings, TensorRT and GPU."""
    files = bundle.manifest["files"]
    table = {
        "graphs": {stage: files[path]["sha256"] for stage, path in bundle.manifest["graphs"].items()},
        "plugins": {path: files[path]["sha256"] for path in plugins_of(bundle)},
        "settings": SETTINGS,
        "tensorrt": host.tensorrt,
        "capability": host.capability,
    }
    return hashlib.sha256(json.dumps(table, sort_keys=True).encode()).hexdigest()


def folder_of(bundle: Bundle, host: Host) -> Path:
    """Where the engines of a bundle are, or would be."""
    beside = bundle.root.with_suffix(".engines")
    return beside if beside.is_dir() else machine.cache_folder() / "engines" / key_of(bundle, host)[:32]


def load(folder: Path, bundle: Bundle, host: Host) -> dict[str, bytes] | None:
    """Stage name -> plan, after everything was found to fit; `None` if nothing was built there yet.

    Raises:
        UserError: If the engines are for another TensorRT, GPU or bundle, incomplete, or changed.
    """
    try:
        text = (folder / TABLE).read_text()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise UserError(f"{folder / TABLE} cannot be read ({error.strerror}); remove the folder") from error
    again = "remove the folder and they are built anew"
    try:
        table = json.loads(text)
        tensorrt, capability, key = table["tensorrt"], table["capability"], table["key"]
        plans = {stage: (entry["file"], entry["sha256"]) for stage, entry in table["plans"].items()}
        if any(Path(file).name != file for file, _ in plans.values()):
            raise ValueError("a plan lies outside the folder")
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{folder / TABLE} is no table of engines ({error}); {again}") from error
    if tensorrt != host.tensorrt:
        raise UserError(
            f"the engines in {folder} were built by TensorRT {tensorrt} and this machine has {host.tensorrt}; {again}"
        )
    if capability != host.capability:
        raise UserError(
            f"the engines in {folder} were built for sm_{capability} and the GPU here is sm_{host.capability}; {again}"
        )
    if key != key_of(bundle, host) or set(plans) != set(bundle.manifest["graphs"]):
        raise UserError(f"the engines in {folder} were built from other graphs than those of {bundle.root}; {again}")
    return {stage: _plan(folder / file, digest, again) for stage, (file, digest) in plans.items()}


def save(folder: Path, bundle: Bundle, host: Host, plans: Mapping[str, bytes]) -> None:
    """Writes engines so that a reader sees all of them or none.

    Raises:
        UserError: If the folder cannot be written.
    """
    entries = {}
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
        try:
            for number, (stage, plan) in enumerate(plans.items()):
                name = f"{number:02}.{stage.replace(os.sep, '_')}.plan"
                (temporary / name).write_bytes(plan)
                entries[stage] = {"file": name, "sha256": hashlib.sha256(plan).hexdigest(), "bytes": len(plan)}
            table: dict[str, Any] = {
                "bundle": bundle.name,
                "key": key_of(bundle, host),
                "tensorrt": host.tensorrt,
                "capability": host.capability,
                "settings": SETTINGS,
                "plans": entries,
            }
            (temporary / TABLE).write_text(json.dumps(table, indent=1) + "\n")
            if folder.is_dir():  # An empty one that was made to receive them; anything else stays and fails below.
                with contextlib.suppress(OSError):
                    folder.rmdir()
            temporary.rename(folder)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
    except OSError as error:
        raise UserError(
            f"engines cannot be kept in {folder} ({error.strerror or error}); make room there or set XDG_CACHE_HOME"
        ) from error


def _plan(path: Path, digest: str, again: str) -> bytes:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}); {again}") from error
    if hashlib.sha256(data).hexdigest() != digest:
        raise UserError(f"{path} is not the engine that was built (its SHA-256 differs); {again}")
    return data


def _reads(wanted: str, present: str) -> bool:
    """Whether TensorRT `present` reads graphs for `wanted`: the same major version and no older."""
    try:
        want, have = ([int(part) for part in text.split(".")[:2]] for text in (wanted, present))
    except ValueError:
        return False
    return have[0] == want[0] and have >= want
