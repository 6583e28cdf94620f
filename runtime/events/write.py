"""Writes a recording as `.npz` or as N-MNIST `.bin`."""

from __future__ import annotations

import contextlib
import io
import os
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from runtime.errors import UserError
from runtime.events.container import Recording
from runtime.events.formats import nmnist

WRITERS = (".npz", ".bin")


def write_recording(path: str | Path, recording: Recording) -> None:
    """Writes a recording; the suffix says how. A failed write leaves what was there before.

    `.npz` keeps everything but the source: arrays t, x, y, p and scalars tick_us and, where known, width and height.
    `.bin` (N-MNIST) keeps events up to x, y = 255 and 8.388 s, and no sensor size.

    Args:
        path: Where to write.
        recording: What to write.

    Raises:
        UserError: If the suffix is another one, the format cannot hold the recording, or the file cannot be written.
    """
    path = Path(path)
    suffix = path.suffix.lower()
    if suffix not in WRITERS:
        raise UserError(
            f"{path}: recordings are written as {' or '.join(WRITERS)}, not as {suffix or 'a nameless type'}"
        )
    data = _npz(recording) if suffix == ".npz" else _bin(path, recording)
    try:
        _replace(path, data)
    except OSError as error:
        raise UserError(f"{path}: cannot be written ({error.strerror or error})") from None


def _npz(recording: Recording) -> bytes:
    events = recording.events
    arrays: dict[str, Any] = {name: getattr(events, name) for name in "txyp"}
    if events.intensity is not None:
        arrays["intensity"] = events.intensity
    arrays["tick_us"] = np.array(recording.tick_us, np.float64)
    for name, side in (("width", recording.width), ("height", recording.height)):
        if side is not None:
            arrays[name] = np.array(side)
    out = io.BytesIO()
    np.savez_compressed(out, **arrays)
    return out.getvalue()


def _bin(path: Path, recording: Recording) -> bytes:
    t, x, y, p = (getattr(recording.events, name) for name in "txyp")
    if recording.events.intensity is not None:
        raise UserError(f"{path}: N-MNIST files hold single events, the recording has intensities; use .npz")
    limit = 1 << nmnist.TIME_BITS
    if recording.tick_us != 1:
        raise UserError(
            f"{path}: N-MNIST files count microseconds, the recording's tick is {recording.tick_us} us; use .npz"
        )
    for name, fits in (
        (f"times from 0 to {limit - 1} us", (t >= 0) & (t < limit)),
        ("x up to 255", x < 256),
        (f"y up to 255 but {nmnist.OVERFLOW_ROW}", (y < 256) & (y != nmnist.OVERFLOW_ROW)),
    ):
        if not fits.all():
            row = int((~fits).argmax())
            raise UserError(
                f"{path}: N-MNIST files hold {name}, but event {row} is t={t[row]} x={x[row]} y={y[row]}; use .npz"
            )
    rows = np.stack([x, y, p * 0x80 + (t >> 16), (t >> 8) & 0xFF, t & 0xFF], axis=1)
    return rows.astype(np.uint8).tobytes()


def _replace(path: Path, data: bytes) -> None:
    """Writes beside the target, then renames, so that nobody ever sees half a file."""
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
        # mkstemp makes files for the owner only; a recording gets what any new file gets.
        mask = os.umask(0)
        os.umask(mask)
        os.chmod(name, 0o666 & ~mask)
        os.replace(name, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(name)
        raise
