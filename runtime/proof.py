"""Which bundles may run here: those proved at export, and those verified on this very machine.

A verification is remembered in the user's cache under the SHA-256 of the manifest (which holds the hash of every
other file) and of the machine (processor and versions): another bundle or another ONNX Runtime needs its own. So does
another provider of ONNX Runtime than the processor, which is what bundles are proved on.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from pathlib import Path

from runtime import machine
from runtime.bundle import Bundle
from runtime.errors import UserError
from runtime.providers import CPU

PROVED = "proved"


def require(bundle: Bundle, provider: str = CPU) -> None:
    """Lets a bundle pass that was proved at export, where it is the processor that runs it, or verified here.

    Args:
        bundle: The bundle.
        provider: What ONNX Runtime computes with.

    Raises:
        UserError: If neither holds.
    """
    status = bundle.parity.get("status", "not stated")
    if (status == PROVED and provider == CPU) or verified(bundle, provider):
        return
    if provider != CPU:
        raise UserError(
            f"{bundle.root} was not verified with {provider} on this machine; "
            f"run `python -m runtime.verify {bundle.root} --provider {provider}` first"
        )
    reason = bundle.parity.get("reason")
    raise UserError(
        f"{bundle.root} was not proved on its target when it was exported (parity: {status}"
        f"{f', {reason}' if reason else ''}); run `python -m runtime.verify {bundle.root}` on this machine first"
    )


def verified(bundle: Bundle, provider: str = CPU) -> bool:
    """Whether this bundle was verified on this machine with this provider."""
    try:
        record = json.loads(_record(bundle, provider).read_text())
    except (OSError, ValueError):
        return False
    return isinstance(record, dict) and record.get("passed") is True


def remember(bundle: Bundle, passed: bool, provider: str = CPU) -> None:
    """Notes the outcome of a verification; a cache that cannot be written is no error, it only forgets."""
    record = _record(bundle, provider)
    with contextlib.suppress(OSError):
        record.parent.mkdir(parents=True, exist_ok=True)
        part = record.with_suffix(f".{os.getpid()}.part")
        part.write_text(json.dumps({"bundle": bundle.name, "passed": passed, "machine": _machine(provider)}))
        part.replace(record)


def _record(bundle: Bundle, provider: str) -> Path:
    here = hashlib.sha256(json.dumps(_machine(provider), sort_keys=True).encode()).hexdigest()
    return machine.cache_folder() / "verified" / f"{bundle.digest()[:32]}-{here[:16]}.json"


def _machine(provider: str) -> dict[str, str]:
    found = {"cpu": machine.cpu_model(), **machine.versions()}
    return found if provider == CPU else {**found, "provider": provider, "gpu": machine.gpus()}
