"""The machine this runs on: what reports say of it, and whether it can run what a bundle was built for."""

from __future__ import annotations

import os
import platform
import sys
import time
from collections.abc import Collection, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

# What each level of the x86-64 psABI adds, by Linux's names.
_V2 = {"cx16", "lahf_lm", "popcnt", "pni", "sse4_1", "sse4_2", "ssse3"}
_V3 = _V2 | {"avx", "avx2", "bmi1", "bmi2", "f16c", "fma", "abm", "movbe", "xsave"}
_V4 = _V3 | {"avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl"}
LEVELS = {"x86-64-v2": _V2, "x86-64-v3": _V3, "x86-64-v4": _V4}
_ARCHITECTURES = {"x86-64": ("x86_64", "amd64"), "aarch64": ("aarch64", "arm64"), "jetson": ("aarch64",)}


def describe() -> dict[str, Any]:
    """Model and settings of the machine, as far as they can be read; a figure without them says little."""
    return {
        "cpu": cpu_model(),
        "gpus": gpus() or "none",
        "architecture": platform.machine(),
        "logical_cores": os.cpu_count(),
        "affinity": affinity(),
        "governor": _text("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor") or "not readable",
        "virtual_machine": "hypervisor" in cpu_features() if cpu_features() else "not readable",
        "load_average": [round(load, 2) for load in os.getloadavg()] if hasattr(os, "getloadavg") else None,
        "system": f"{platform.system()} {platform.release()}",
        "clock_resolution_ns": time.get_clock_info("perf_counter").resolution * 1e9,
        "versions": versions(),
    }


def versions() -> dict[str, str]:
    """Versions of what takes part in running a bundle, as far as it is installed."""
    found = {"python": platform.python_version()}
    for package in ("neurocompile", "numpy", "onnxruntime", "onnxruntime-gpu", "tensorrt"):
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found


def affinity() -> list[int] | None:
    """The cores this process may use, or `None` where the system does not say."""
    return sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else None


def pin(core: int) -> bool:
    """Keeps this process on one core.

    Returns:
        Whether the system allowed it.
    """
    if not hasattr(os, "sched_setaffinity"):
        return False
    try:
        os.sched_setaffinity(0, {core})
    except OSError:
        return False
    return True


def cpu_model() -> str:
    """The processor's name."""
    for line in _text("/proc/cpuinfo").splitlines():
        key, _, value = line.partition(":")
        if key.strip() in ("model name", "Model"):
            return value.strip()
    return platform.processor() or platform.machine()


def gpus() -> str:
    """NVIDIA's GPUs and their driver's version, as far as the driver tells; empty where there is none."""
    places = sorted(Path("/proc/driver/nvidia/gpus").glob("*/information"))
    models = [
        line.partition(":")[2].strip()
        for place in places
        for line in _text(str(place)).splitlines()
        if line.startswith("Model:")
    ]
    driver = _text("/proc/driver/nvidia/version").partition("\n")[0]
    return ", ".join([*models, *([driver] if driver else [])])


def cpu_features() -> frozenset[str]:
    """The processor's instruction sets by Linux's names; empty where the system does not list them."""
    for line in _text("/proc/cpuinfo").splitlines():
        key, _, value = line.partition(":")
        if key.strip() in ("flags", "Features"):
            return frozenset(value.split())
    return frozenset()


def obstacle(
    device: str,
    present: frozenset[str] | None = None,
    *,
    architecture: str = "",
    system: str = "",
    features: Collection[str] = (),
) -> str | None:
    """Why this machine cannot run code built for `device`.

    Args:
        device: The target's device, e.g. `native`, `x86-64-v3`, `aarch64`, `jetson-orin`, `sm90`.
        present: Instruction sets to judge by; this machine's where not given.
        architecture: As `platform.machine` names it, where the bundle says more than its device does.
        system: As `platform.system` names it; likewise.
        features: Instruction sets that the code was compiled with, by Linux's names; likewise.

    Returns:
        The reason, or `None` if nothing speaks against it. What cannot be found out does not speak against it.
    """
    here = platform.machine().lower()
    # `native` alone says nothing to whoever runs the bundle.
    built = f"{architecture} processors like the one that built it" if device == "native" else device
    for prefix, names in _ARCHITECTURES.items():
        alike = device.startswith(prefix) or architecture.replace("_", "-") == prefix
        if alike and here not in names:
            also = f" ({architecture})" if architecture and architecture != device and device != "native" else ""
            return f"it was built for {built}{also}, and this is {_article(here)} {here} machine ({cpu_model()})"
    if system and system != platform.system():
        return f"it was built for {built} under {system}, and this machine runs {platform.system()}"
    present = cpu_features() if present is None else present
    missing = sorted((LEVELS.get(device, set()) | set(features)) - present)
    if present and missing:
        return f"it was built for {built}, and this processor ({cpu_model()}) lacks {', '.join(missing)}"
    return None


def obstacle_of(target: Mapping[str, Any]) -> str | None:
    """`obstacle` for a manifest's target table."""
    keys = ("architecture", "system", "features")
    return obstacle(target.get("device", "native"), **{key: target[key] for key in keys if key in target})


def _article(word: str) -> str:
    return "an" if word[:1] in "aeiox" else "a"


def cache_folder() -> Path:
    """Where this user's cache of the project lies: below `XDG_CACHE_HOME`, or the system's usual place."""
    if root := os.environ.get("XDG_CACHE_HOME"):
        return Path(root) / "neurocompile"
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA", Path.home())) / "neurocompile"
    return Path.home() / ("Library/Caches" if sys.platform == "darwin" else ".cache") / "neurocompile"


def _text(path: str) -> str:
    try:
        return Path(path).read_text("utf-8", "replace").strip()
    except OSError:
        return ""
