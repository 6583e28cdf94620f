"""The Jetson kit: a folder to copy to the device, with everything that can be made without one."""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import replace
from importlib.resources import files
from pathlib import Path
from typing import Any

import runtime
from export.pipeline import Export, export_model
from neurocompile.targets import TargetSpec, find_target
from runtime.bundle import TRACE, open_bundle
from runtime.errors import GateError, UserError
from runtime.events.container import Recording
from runtime.events.write import write_recording
from runtime.front_ends import front_end
from runtime.trace import Trace

SUFFIX = ".kit"
FALLBACK = "cpu-fp32"
SCRIPTS = ("install.sh", "build.sh", "bench.sh")
TEXTS = ("README.md", "neurocompile.service")
SUMS = "SHA256SUMS"


def wants_kit(target: TargetSpec, output: Path | None) -> bool:
    """Whether a target is exported as a kit: TensorRT on a Jetson, unless a bundle is asked for by its name."""
    bundle = output is not None and output.suffix == ".neuro"
    return target.backend == "trt" and target.device.startswith("jetson") and not bundle


def export_kit(
    model: Path,
    target: str,
    output: Path | None = None,
    *,
    tensorrt: str | None = None,
    progress: Callable[[str], None] = lambda step: None,
    **options: Any,
) -> Export:
    """Exports a checkpoint for a Jetson and writes the kit around it.

    Args:
        model: See `export_model`.
        target: E.g. `trt-bf16@jetson-orin`.
        output: The kit's folder; the model's name with the suffix `.kit` in the current folder by default.
        tensorrt: See `export_model`.
        progress: See `export_model`.
        options: The other options of `export_model`; they hold for the fallback too.

    Returns:
        What was written; `path` is the kit.

    Raises:
        UserError: As `export_model`; nothing is written then.
        GateError: If parity of the bundle fails.
    """
    spec = find_target(target, tensorrt)
    place = model.resolve()
    name = place.name if place.is_dir() else place.stem
    output = (output or Path(f"{name}{SUFFIX}")).absolute()
    if output.exists() and not (output / SUMS).is_file():
        raise UserError(f"{output} exists and is no kit; choose another name with -o or remove it yourself")
    ground = next(folder for folder in output.parents if folder.exists())
    try:
        temporary = Path(tempfile.mkdtemp(prefix=f".{output.name}.", dir=ground))
    except OSError as error:
        raise UserError(f"{ground} cannot be written ({error.strerror}); choose another place with -o") from error
    try:
        kit = temporary / "kit"
        result = export_model(model, target, kit / f"{name}.neuro", tensorrt=tensorrt, progress=progress, **options)
        progress("library for the processor")
        missing = _fallback(model, spec, kit / f"{name}.cpu.neuro", options)
        progress("write the kit")
        _write(kit, name, result, missing)
        _replace(kit, output)
    except OSError as error:
        raise UserError(f"{output} cannot be written ({error.strerror or error}); choose another with -o") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    note = (
        f"the kit has no library for the processor: {missing}" if missing else "the kit holds one for the processor too"
    )
    return replace(result, path=output, notes=(*result.notes, note))


def _fallback(model: Path, spec: TargetSpec, output: Path, options: dict[str, Any]) -> str:
    """Exports for the device's processor.

    Returns:
        Empty, or why there is none.
    """
    known = ("preset", "config", "trust_pickle", "recording", "adapters")
    try:
        export_model(
            model,
            f"{FALLBACK}@{spec.device}",
            output,
            **{option: value for option, value in options.items() if option in known},
        )
    except (UserError, GateError) as error:
        return str(error)
    return ""


def _write(kit: Path, name: str, result: Export, missing: str) -> None:
    """Everything around the bundles."""
    target = result.manifest["target"]
    fallback = f"| `{name}.cpu.neuro` | the same network as a C library for the device's processor, `{FALLBACK}` |"
    words = {
        "NAME": name,
        "DEVICE": target["device"],
        "TARGET": target["name"],
        "TENSORRT": target["tensorrt"],
        "CAPABILITY": str(target["capability"]),
        "PLUGINS": _plugins(name, target),
        "FALLBACK": f"| (no library for the processor) | {missing} |" if missing else fallback,
    }
    templates = files("export") / "kit"
    for file in (*SCRIPTS, *TEXTS):
        text = (templates / file).read_text("utf-8")
        for word, value in words.items():
            text = text.replace(f"@{word}@", value)
        (kit / file).write_text(text, "utf-8")
    for file in SCRIPTS:
        (kit / file).chmod(0o755)
    source = Path(runtime.__file__).parent
    shutil.copytree(source, kit / "runtime", ignore=shutil.ignore_patterns("shipped", "__pycache__", "*.pyc"))
    _recording(kit, name)
    sums = [
        f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.relative_to(kit).as_posix()}\n"
        for path in sorted(kit.rglob("*"))
        if path.is_file()
    ]
    (kit / SUMS).write_text("".join(sums))


def _plugins(name: str, target: dict[str, Any]) -> str:
    """The row of the README's table about plugins; empty where there are none."""
    names = ", ".join(f"`{plugin}`" for plugin in target.get("plugin_names", []))
    how = {"cpp": "C++ that `build.sh` compiles with JetPack's headers", "aot": "kernels that go into the engines"}
    return f"| `{name}.neuro/plugins/` | {names}: {how[target['plugin_kind']]} |\n" if names else ""


def _recording(kit: Path, name: str) -> None:
    bundle = open_bundle(kit / f"{name}.neuro")
    trace = Trace.from_bytes(bundle.read(TRACE))
    sensor = front_end(bundle.program.front_end)
    write_recording(
        kit / "recording.npz", Recording(trace.events, sensor.width, sensor.height, trace.tick_us, "golden trace")
    )


def _replace(kit: Path, output: Path) -> None:
    """Puts the new kit where an old one may be, which is not lost whatever happens in between."""
    output.parent.mkdir(parents=True, exist_ok=True)
    aside = kit.parent / "old"
    if output.exists():
        os.rename(output, aside)
    try:
        os.rename(kit, output)
    except BaseException:
        if aside.exists():
            os.rename(aside, output)
        raise
