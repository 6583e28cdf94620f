"""From a checkpoint to a proved bundle: open, capture, passes, target, parity, rename."""

from __future__ import annotations

import hashlib
import platform
from collections.abc import Callable
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from export.bundle import Staging, staging
from models.checkpoint import Checkpoint, open_checkpoint
from neurocompile.capture import capture
from neurocompile.parity import prove
from neurocompile.passes import PASSES, run_passes
from neurocompile.sequences import fit_to_sensor, shipped_sequence
from neurocompile.targets import build, find_target
from runtime.bundle import TRACE, open_bundle
from runtime.events.container import Recording
from runtime.open import open_session

DEFAULT_EVENTS = 4000
FULL_EVENTS = 100_000
TOOLS = ("neurocompile", "torch", "onnx", "onnx-ir", "onnxscript", "onnxruntime", "numpy")


@dataclass(frozen=True)
class Export:
    """What an export did.

    Attributes:
        path: The bundle.
        manifest: Its manifest, without the file table.
        notes: Decisions that opening the checkpoint took.
    """

    path: Path
    manifest: dict[str, Any]
    notes: tuple[str, ...]


def export_model(
    model: Path,
    target: str,
    output: Path | None = None,
    *,
    preset: str | None = None,
    config: Path | None = None,
    trust_pickle: bool = False,
    recording: Recording | None = None,
    full: bool = False,
    passes: tuple[str, ...] = tuple(PASSES),
    progress: Callable[[str], None] = lambda step: None,
) -> Export:
    """Exports a checkpoint.

    Args:
        model: Any checkpoint that `models.checkpoint` opens.
        target: E.g. `onnx-fp32`.
        output: The bundle folder; the model's name with the suffix `.neuro` in the current folder by default.
        preset: See `open_checkpoint`.
        config: See `open_checkpoint`.
        trust_pickle: See `open_checkpoint`.
        recording: The sequence for parity; a shipped recording by default, mapped onto the model's sensor if need be.
        full: Prove parity over 100 000 events.
        passes: Passes to run, in order.
        progress: Called with a word on every step.

    Returns:
        What was written.

    Raises:
        UserError: If the checkpoint, target or output cannot be used; nothing is written then.
        GateError: If parity fails; no bundle is written.
    """
    spec = find_target(target)
    name = model.name.split(".")[0] or model.stem
    output = output or Path(f"{name}.neuro")
    progress("open checkpoint")
    checkpoint = open_checkpoint(model, preset=preset, config=config, trust_pickle=trust_pickle)
    with staging(output) as stage:
        program = checkpoint.model.stream_program(checkpoint.front_end, checkpoint.labels)
        progress("capture stages")
        captured = capture(program)
        progress("run passes")
        rewritten, changes = run_passes(captured, passes)
        progress(f"build {spec}")
        artefact = build(rewritten, spec)
        manifest = {
            "name": name,
            "created_by": _tools(),
            "model": _model(checkpoint, model),
            "target": {"name": str(spec), "backend": spec.backend, "dtype": spec.dtype, "device": spec.device},
            "program": program.spec.to_json(),
            "graphs": artefact.graphs,
            "build": artefact.report,
            "passes": [f"{change.rule} [{change.stage}] {change.what}" for change in changes],
        }
        stage.add(artefact.files)
        stage.write_manifest({**manifest, "parity": {"status": "not run: in the making"}})
        progress("prove parity")
        sequence = fit_to_sensor(
            recording or shipped_sequence(FULL_EVENTS if full else DEFAULT_EVENTS), checkpoint.front_end
        )
        parity = prove(program, lambda tick: _session(stage, tick), sequence, spec.dtype)
        parity.require()
        stage.add({TRACE: parity.trace.to_bytes()})
        manifest["parity"] = parity.report
        stage.write_manifest(manifest)
    return Export(output, manifest, tuple(checkpoint.notes))


def _session(stage: Staging, tick_us: float) -> Any:
    return open_session(open_bundle(stage.root), tick_us=tick_us, require_proof=False)


def _model(checkpoint: Checkpoint, path: Path) -> dict[str, Any]:
    table: dict[str, Any] = {
        "family": checkpoint.family,
        "source": path.name,
        "config": asdict(checkpoint.config),
        "metadata": checkpoint.metadata,
        "parameters": sum(parameter.numel() for parameter in checkpoint.model.parameters()),
    }
    if path.is_file():
        table["source_sha256"] = hashlib.sha256(path.read_bytes()).hexdigest()
    return table


def _tools() -> dict[str, str]:
    versions = {"python": platform.python_version(), "machine": platform.machine()}
    for tool in TOOLS:
        try:
            versions[tool] = version(tool)
        except PackageNotFoundError:
            versions[tool] = "not installed"
    return versions
