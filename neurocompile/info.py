"""What any file is: checkpoint, bundle, ONNX file or recording."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from runtime.bundle import MANIFEST, open_bundle
from runtime.errors import UserError
from runtime.program import StateSpec

CHECKPOINTS = {".safetensors", ".ckpt", ".pt", ".pth", ".msgpack"}


def describe(path: Path, preset: str | None = None, config: Path | None = None) -> dict[str, Any]:
    """Facts about a file, by its content first and its suffix second.

    Args:
        path: The file or folder.
        preset: For checkpoints, see `models.checkpoint.open_checkpoint`.
        config: For checkpoints, see there.

    Returns:
        A table for people or JSON; `kind` comes first.

    Raises:
        UserError: If the file does not exist or is nothing known.
    """
    archive = Path(str(path).split(".zip:")[0] + ".zip") if ".zip:" in str(path) else path
    if not archive.exists():
        raise UserError(f"{path} does not exist; give a checkpoint, bundle, ONNX file or recording")
    if path.is_dir():
        return _bundle(path) if (path / MANIFEST).exists() else _checkpoint(path, preset, config)
    if path.suffix == ".onnx":
        return _onnx(path)
    if path.suffix in CHECKPOINTS:
        return _checkpoint(path, preset, config)
    try:
        return _recording(path)
    except UserError as recording_error:
        try:
            return _checkpoint(path, preset, config)
        except UserError:
            raise recording_error from None


def _bundle(path: Path) -> dict[str, Any]:
    bundle = open_bundle(path)
    bundle.verify_files()
    program, manifest = bundle.program, bundle.manifest
    return {
        "kind": "bundle",
        "name": bundle.name,
        "family": program.family,
        "target": bundle.target,
        "front_end": dict(program.front_end),
        "labels": ", ".join(program.labels) or "not named",
        "stages": {s.name: f"after {s.trigger.after}, every {s.trigger.every}" for s in program.stages},
        "state": f"{sum(_bytes(state) for state in program.states)} bytes in {len(program.states)} tensors",
        "first_readout": f"after {program.first_readout} items",
        "parity": bundle.parity["status"],
        "model": {k: v for k, v in manifest["model"].items() if k in ("source", "parameters", "metadata")},
        "built_with": manifest["created_by"],
        "files": f"{len(manifest['files'])}, all hashes match",
    }


def _bytes(state: StateSpec) -> int:
    return state.size * (2 if state.dtype == "bfloat16" else np.dtype(state.dtype).itemsize)


def _checkpoint(path: Path, preset: str | None, config: Path | None) -> dict[str, Any]:
    from models.checkpoint import describe_checkpoint

    return {"kind": "checkpoint", **describe_checkpoint(path, preset=preset, config=config)}


def _onnx(path: Path) -> dict[str, Any]:
    import onnx

    try:
        model = onnx.load(path)
    except Exception as error:  # protobuf's own kinds
        raise UserError(f"{path} is not a readable ONNX file ({error}); export it again") from error
    kinds = Counter(node.op_type for node in model.graph.node)
    return {
        "kind": "ONNX graph",
        "name": model.graph.name,
        "producer": model.producer_name,
        "opsets": ", ".join(f"{opset.domain or 'ai.onnx'} {opset.version}" for opset in model.opset_import),
        "inputs": ", ".join(_signature(value) for value in model.graph.input),
        "outputs": ", ".join(_signature(value) for value in model.graph.output),
        "nodes": ", ".join(f"{count} {kind}" for kind, count in kinds.most_common()),
        "parameters": sum(_size(tensor.dims) for tensor in model.graph.initializer),
    }


def _signature(value: Any) -> str:
    dims = [dim.dim_param or dim.dim_value for dim in value.type.tensor_type.shape.dim]
    return f"{value.name}{dims}"


def _size(dims: Any) -> int:
    size = 1
    for dim in dims:
        size *= dim
    return size


def _recording(path: Path) -> dict[str, Any]:
    from runtime.events.read import read_recording

    recording = read_recording(path)
    events = recording.events
    table: dict[str, Any] = {"kind": "recording", "format": recording.format, "events": len(events)}
    table["sensor"] = f"{recording.width} x {recording.height}" if recording.width else "not stated in the file"
    table["tick"] = f"{recording.tick_us} us"
    if len(events):
        span = (int(events.t[-1]) - int(events.t[0])) * recording.tick_us / 1e6
        table |= {
            "first_tick": int(events.t[0]),
            "duration": f"{span:.6f} s",
            "rate": f"{len(events) / span:.0f} events/s" if span else "all at once",
            "x": f"{events.x.min()} to {events.x.max()}",
            "y": f"{events.y.min()} to {events.y.max()}",
            "on": f"{events.p.mean():.1%}",
        }
    return table
