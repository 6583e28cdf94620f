"""Which bundles may run here: those proved at export, and those verified on this very machine.

A verification is remembered in the user's cache under the SHA-256 of the manifest (which holds the hash of every
other file) and of the machine (processor and versions): another bundle or another ONNX Runtime needs its own.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from pathlib import Path

from runtime import machine
from runtime.bundle import MANIFEST, Bundle
from runtime.errors import UserError

PROVED = "proved"


def require(bundle: Bundle) -> None:
    """Lets a bundle pass that was proved at export or verified here.

    Raises:
        UserError: If neither holds.
    """
    status = bundle.parity.get("status", "not stated")
    if status == PROVED or verified(bundle):
        return
    reason = bundle.parity.get("reason")
    raise UserError(
        f"{bundle.root} was not proved on its target when it was exported (parity: {status}"
        f"{f', {reason}' if reason else ''}); run `python -m runtime.verify {bundle.root}` on this machine first"
    )


def verified(bundle: Bundle) -> bool:
    """Whether this bundle was verified on this machine."""
    try:
        record = json.loads(_record(bundle).read_text())
    except (OSError, ValueError):
        return False
    return isinstance(record, dict) and record.get("passed") is True


def remember(bundle: Bundle, passed: bool) -> None:
    """Notes the outcome of a verification; a cache that cannot be written is no error, it only forgets."""
    record = _record(bundle)
    with contextlib.suppress(OSError):
        record.parent.mkdir(parents=True, exist_ok=True)
        part = record.with_suffix(f".{os.getpid()}.part")
        part.write_text(json.dumps({"bundle": bundle.name, "passed": passed, "machine": _machine()}))
        part.replace(record)


def _record(bundle: Bundle) -> Path:
    manifest = hashlib.sha256((bundle.root / MANIFEST).read_bytes()).hexdigest()
    here = hashlib.sha256(json.dumps(_machine(), sort_keys=True).encode()).hexdigest()
    return machine.cache_folder() / "verified" / f"{manifest[:32]}-{here[:16]}.json"


def _machine() -> dict[str, str]:
    return {"cpu": machine.cpu_model(), **machine.versions()}
