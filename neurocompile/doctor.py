"""What this machine has for building and running, what is missing, and how to get it."""

from __future__ import annotations

import os
import platform
import shlex
import shutil
import subprocess
import sys
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version


@dataclass(frozen=True)
class Finding:
    """One thing looked for.

    Attributes:
        what: Its name.
        found: Version or description; empty if missing.
        needed_for: What it is good for.
        remedy: How to get it.
    """

    what: str
    found: str
    needed_for: str
    remedy: str = ""


PACKAGES = (
    ("torch", "opening checkpoints, exporting, training", "pip install 'neurocompile[compile]'"),
    ("onnx", "exporting", "pip install 'neurocompile[compile]'"),
    ("onnxscript", "exporting", "pip install 'neurocompile[compile]'"),
    ("onnxruntime", "running onnx-* bundles", "pip install onnxruntime"),
    ("safetensors", "our own checkpoints", "pip install 'neurocompile[compile]'"),
    ("msgpack", "official Flax checkpoints", "pip install 'neurocompile[compile]'"),
    ("tensorstore", "Flax checkpoints in OCDBT layout", "pip install 'neurocompile[flax]'"),
    ("pytorch-lightning", "training", "pip install 'neurocompile[train]'"),
    ("ziglang", "compiling for other processors (cpu-*@jetson-orin and others)", "pip install 'neurocompile[cross]'"),
    ("triton", "GPU kernels, and plugins of trt-* made of them", "pip install 'neurocompile[gpu]'"),
    ("tensorrt", "engines of trt-* bundles, 10.3 to 11", "python3-libnvinfer on a Jetson, else pip install tensorrt"),
    ("tensorrt-rtx", "checking trt-* graphs without a GPU", "pip install 'neurocompile[trt-check]'"),
    ("matplotlib", "plots", "pip install 'neurocompile[view]'"),
)


NOTE = "note"
PROVIDERS = ("cuda", "tensorrt")
EMULATORS = ("qemu-aarch64", "qemu-aarch64-static")


def examine() -> list[Finding]:
    """Looks for interpreter, packages and tools."""
    findings = [Finding("python", sys.version.split()[0], "everything"), Finding("machine", _machine(), "everything")]
    for package, purpose, remedy in PACKAGES:
        try:
            found = version(package)
        except PackageNotFoundError:
            found = ""
        findings.append(Finding(package, found, purpose, remedy))
    findings += _providers()
    compiler = _first_line([*(shlex.split(os.environ.get("CC", "")) or ["cc"]), "--version"])
    findings.append(Finding("C compiler", compiler, "building cpu-* bundles", "Debian: apt install gcc; or ziglang"))
    emulator = next((name for name in EMULATORS if shutil.which(name)), EMULATORS[0])
    purpose = "proving bundles for aarch64 on another machine"
    remedy = "Debian: apt install qemu-user-static libc6-arm64-cross"
    findings.append(Finding(EMULATORS[0], _first_line([emulator, "--version"]), purpose, remedy))
    gpu = _first_line(["nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader"])
    findings.append(Finding("NVIDIA GPU", gpu, "training and running on a GPU", "a machine with an NVIDIA driver"))
    return findings


def _providers() -> list[Finding]:
    """What onnxruntime can compute with besides the processor, and what is known of its versions."""
    try:
        from runtime.backends import ort_providers
    except ImportError:
        return []
    findings = []
    for name in PROVIDERS:
        found = "" if ort_providers.obstacle(name) else f"in this onnxruntime; takes {ort_providers.LIBRARIES[name]}"
        remedy = f"pip install onnxruntime-gpu in place of onnxruntime; it needs {ort_providers.LIBRARIES[name]}"
        findings.append(Finding(f"onnxruntime {name}", found, f"onnx-* bundles with --provider {name}", remedy))
    return findings + [Finding(NOTE, text, "onnx-* bundles on a GPU") for text in ort_providers.LIMITS]


def show(findings: list[Finding]) -> None:
    """Prints one line per finding, notes last."""
    width = max(len(finding.what) for finding in findings)
    for finding in sorted(findings, key=lambda finding: finding.what == NOTE):
        if finding.what == NOTE:
            print(f"note {finding.found}")
            continue
        state = finding.found or f"missing: needed for {finding.needed_for}; {finding.remedy}"
        print(f"{'ok ' if finding.found else '-  '} {finding.what:{width}} {state}")


def _machine() -> str:
    return f"{platform.system()} {platform.machine()}"


def _first_line(command: list[str]) -> str:
    if not shutil.which(command[0]):
        return ""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.splitlines()[0] if done.returncode == 0 and done.stdout else ""
