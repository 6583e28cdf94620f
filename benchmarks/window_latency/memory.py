"""Peak memory of one call, from Linux's own count of resident pages."""

from __future__ import annotations

import ctypes
import gc
from collections.abc import Callable
from pathlib import Path

_STATUS, _CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def peak_bytes(call: Callable[[], object]) -> int | None:
    """How far resident memory rises above where it was while `call` runs; `None` where the system does not tell."""
    gc.collect()
    try:
        ctypes.CDLL(None).malloc_trim(0)
        _CLEAR.write_text("5")  # sets the peak back to what is resident now
        before = _field("VmRSS")
        call()
        return max(_field("VmHWM") - before, 0)
    except (OSError, AttributeError):
        call()
        return None


def _field(name: str) -> int:
    line = next(line for line in _STATUS.read_text().splitlines() if line.startswith(name + ":"))
    return int(line.split()[1]) * 1024
