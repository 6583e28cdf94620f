"""From a checkpoint to a proved bundle: open, capture, passes, target, parity, rename."""

from __future__ import annotations

import hashlib
import platform
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from export.bundle import Staging, staging
from models.checkpoint import Checkpoint, open_checkpoint
from neurocompile.agreement import label_agreement
from neurocompile.calibration import Source, calibrate, shipped_source
from neurocompile.capture import capture
from neurocompile.parity import check_length, prove, shortest, window_ends
from neurocompile.passes import PASSES, run_passes
from neurocompile.sequences import fit_to_sensor, shipped_sequence, without_folder
from neurocompile.targets import CALIBRATED, TargetSpec, build, find_target, require
from runtime.bundle import TRACE, open_bundle
from runtime.errors import UserError
from runtime.events.checks import check_stream
from runtime.events.container import Recording
from runtime.front_ends import FrontEnd
from runtime.open import open_session
from runtime.program import ProgramSpec
from runtime.session import Session

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
    adapters: Sequence[Mapping[str, Any]] = (),
    full: bool = False,
    passes: tuple[str, ...] = tuple(PASSES),
    progress: Callable[[str], None] = lambda step: None,
    announce: Callable[[str], None] = lambda text: None,
    tensorrt: str | None = None,
    smooth: bool = False,
    plugins: str | None = None,
    calibrate_on: Sequence[Recording] = (),
) -> Export:
    """Exports a checkpoint.

    Args:
        model: Any checkpoint that `models.checkpoint` opens.
        target: E.g. `onnx-fp32`.
        output: The bundle folder; the model's name with the suffix `.neuro` in the current folder by default.
        preset: See `open_checkpoint`.
        config: See `open_checkpoint`.
        trust_pickle: See `open_checkpoint`.
        recording: The sequence for parity, of the model's sensor; shipped recordings by default, mapped onto that
            sensor where it differs.
        adapters: What was done to `recording`, for the report.
        full: Prove parity over 100 000 events.
        passes: Passes to run, in order.
        progress: Called with a word on every step.
        announce: Called with what a target has to say before it builds.
        tensorrt: TensorRT version to export for, where the target is one of TensorRT.
        smooth: Spread rare work over the events that follow, for `cpu-*` targets.
        calibrate_on: Recordings of the model's sensor that the rounding of the targets `CALIBRATED` is fitted to; the
            first shipped training recording of every class by default.
        plugins: Which plugins compute ops, `none`, `aot`, `cpp` or `auto`, for `trt-*` targets; none by default.

    Returns:
        What was written.

    Raises:
        UserError: If the checkpoint, target, recording or output cannot be used; nothing is written then.
        GateError: If parity fails; no bundle is written.
    """
    spec = find_target(target, tensorrt, smooth, plugins)
    require(spec)
    if calibrate_on and spec.name not in CALIBRATED:
        raise UserError(f"--calibrate is for {', '.join(CALIBRATED)}, and {target!r} is none of them; leave it out")
    place = model.resolve()
    output = output or Path(f"{place.name if place.is_dir() else place.stem}.neuro")
    progress("open checkpoint")
    checkpoint = open_checkpoint(model, preset=preset, config=config, trust_pickle=trust_pickle)
    if not hasattr(checkpoint.model, "stream_program"):
        raise UserError(
            f"{model} is of the family {checkpoint.family}, which has no event-by-event form yet, "
            "so there is nothing to export; train or convert to a family that has one"
        )
    program = checkpoint.model.stream_program(checkpoint.front_end, checkpoint.labels)
    sequence = _sequence(recording, full, checkpoint.front_end, program.spec)
    source = _calibration_source(calibrate_on, program.spec, spec, checkpoint.front_end)
    with staging(output) as stage:
        progress("capture stages")
        captured = capture(program)
        progress("run passes")
        rewritten, changes = run_passes(captured, passes)
        calibration = None
        if source:
            progress("calibrate")
            # C derives its own bulk form.
            only = spec.backend == "cpu"
            calibration = calibrate(rewritten.spec, rewritten.graphs, source, announce, stages_only=only)
        progress(f"build {spec}")
        artefact = build(rewritten, spec, announce, calibration)
        table = {"name": str(spec), "backend": spec.backend, "dtype": spec.dtype, "device": spec.device}
        manifest = {
            "name": output.resolve().name.removesuffix(".neuro"),
            "created_by": _tools(),
            "model": _model(checkpoint, model),
            "target": {**table, **artefact.needs},
            "program": program.spec.to_json(),
            "graphs": artefact.graphs,
            **({"device_graphs": artefact.device_graphs} if artefact.device_graphs else {}),
            "build": artefact.report,
            "passes": [f"{change.rule} [{change.stage}] {change.what}" for change in changes],
        }
        stage.add(artefact.files)
        stage.write_manifest({**manifest, "parity": {"status": "not run: in the making"}})
        stand_in = artefact.stand_in
        progress(f"prove parity{f' in {stand_in.name}' if stand_in else ''}")
        session: Callable[[float], Session] | None = partial(_session, stage)
        if artefact.obstacle:
            session = stand_in.open if stand_in else None
        yardstick = artefact.yardstick(program) if artefact.yardstick else None
        parity = prove(program, session, sequence, spec.dtype, yardstick=yardstick)
        parity.require()
        stage.add({TRACE: parity.trace.to_bytes()})
        manifest["parity"] = {**parity.report, "adapters": list(adapters)}
        if session is not None:
            manifest["parity"]["labels"] = label_agreement(program, session, spec.dtype)
        if artefact.obstacle and not stand_in:
            manifest["parity"]["status"] = f"not run: {artefact.obstacle}"
        elif proxy := stand_in.name if stand_in else artefact.proxy:
            manifest["parity"]["status"] = f"proxy: {proxy}"
        stage.write_manifest(manifest)
    return Export(output, manifest, tuple(checkpoint.notes))


def _sequence(recording: Recording | None, full: bool, front_end: FrontEnd, spec: ProgramSpec) -> Recording:
    """What parity is proved on."""
    if recording is None:
        usual = 0 if window_ends(spec) else DEFAULT_EVENTS
        events = FULL_EVENTS if full else usual
        return fit_to_sensor(shipped_sequence(max(events, shortest(spec))), front_end)
    check_stream(recording, width=front_end.width, height=front_end.height)
    check_length(recording, spec)
    return without_folder(recording)


def _calibration_source(
    given: Sequence[Recording], spec: ProgramSpec, target: TargetSpec, front_end: FrontEnd
) -> Source | None:
    """What the rounding is fitted to, if the target takes a calibration; more recordings where they are run in bulk."""
    if target.name not in CALIBRATED:
        return None
    for recording in given:
        check_stream(recording, width=front_end.width, height=front_end.height)
    if given:
        return Source(tuple(without_folder(recording) for recording in given), given=True)
    return shipped_source(front_end, 2 if target.backend == "cpu" and spec.chunk else 1)


def _session(stage: Staging, tick_us: float) -> Any:
    return open_session(open_bundle(stage.root), tick_us=tick_us, require_proof=False)


def _model(checkpoint: Checkpoint, path: Path) -> dict[str, Any]:
    table: dict[str, Any] = {
        "family": checkpoint.family,
        "source": path.resolve().name,
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
