"""NumPy files: `.npz` with arrays t, x, y, p, and `.npy` or `.npz` with one structured array of those fields.

Optional scalars in an `.npz`: width, height, tick_us. Polarity may be bool, 0/1 or -1/1; y may be missing (audio: 0).
Times must be whole ticks. Pickled objects are never loaded.
"""

from __future__ import annotations

import io
import struct
import zipfile
import zlib
from collections.abc import Mapping

import numpy as np

from runtime.events.container import Events, Recording
from runtime.events.formats.format import File, Format

NPY = b"\x93NUMPY"
SCALARS = ("width", "height", "tick_us")
ALIASES = {
    "t": ("t", "ts", "time", "timestamp", "timestamps", "times"),
    "x": ("x", "xs", "units", "channel"),
    "y": ("y", "ys"),
    "p": ("p", "ps", "pol", "polarity", "on"),
}


def is_npz(head: bytes) -> bool:
    """Whether the first member of a zip archive is a NumPy array."""
    if len(head) < 30 or head[:4] != b"PK\x03\x04":
        return False
    (size,) = struct.unpack_from("<H", head, 26)
    return head[30 : 30 + size].endswith(b".npy")


def decode_npz(file: File) -> Recording:
    """Reads an `.npz`."""
    arrays = {}
    try:
        with zipfile.ZipFile(io.BytesIO(file.data)) as archive:
            for info in archive.infolist():
                if info.filename.endswith(".npy"):
                    # A deflated byte yields at most 1032; a header that promises more is not believed.
                    if info.file_size > 1032 * info.compress_size + 1024:
                        raise ValueError(f"member {info.filename} promises more bytes than it can hold")
                    arrays[info.filename[: -len(".npy")]] = _array(archive.read(info))
    except (ValueError, EOFError, OSError, RuntimeError, NotImplementedError, zipfile.BadZipFile, zlib.error) as error:
        raise file.error(f"is no readable npz file ({error}); write it again with numpy.savez") from None
    structured = [array for array in arrays.values() if array.dtype.names]
    about: dict[str, np.ndarray] = {name: arrays.pop(name) for name in SCALARS if name in arrays}
    return _recording(file, _fields(structured[0]) if len(structured) == 1 else arrays, about)


def decode_npy(file: File) -> Recording:
    """Reads an `.npy`."""
    try:
        array = _array(file.data)
    except ValueError as error:
        raise file.error(f"is no readable npy file ({error}); write it again with numpy.save") from None
    if array.dtype.names is None:
        raise file.error(
            f"holds a plain array of shape {array.shape}, whose columns have no names; "
            "save a structured array with fields t, x, y, p, or an npz with arrays of those names"
        )
    return _recording(file, _fields(array), {})


def _array(data: bytes) -> np.ndarray:
    """The array of an npy file; takes no more memory than the file has bytes."""
    stream = io.BytesIO(data)
    version = np.lib.format.read_magic(stream)
    if version == (1, 0):
        shape, by_column, dtype = np.lib.format.read_array_header_1_0(stream)
    elif version == (2, 0):
        shape, by_column, dtype = np.lib.format.read_array_header_2_0(stream)
    else:
        raise ValueError(f"npy version {version[0]}.{version[1]} is not read")
    if dtype.hasobject:
        raise ValueError("it holds Python objects, which are never loaded")
    count, begin = 1, stream.tell()
    for side in shape:
        count *= side
    if count < 0 or begin + count * dtype.itemsize > len(data):
        raise ValueError(
            f"it breaks off at byte {len(data)}; its header promises {count * dtype.itemsize} bytes of data"
        )
    return np.frombuffer(data, dtype, count, begin).reshape(shape, order="F" if by_column else "C")


def _fields(array: np.ndarray) -> dict[str, np.ndarray]:
    return {name: array[name] for name in array.dtype.names or ()}


def _recording(file: File, arrays: Mapping[str, np.ndarray], about: Mapping[str, np.ndarray]) -> Recording:
    lower = {name.lower(): array for name, array in arrays.items()}
    columns = {}
    for column, names in ALIASES.items():
        found = [name for name in names if name in lower]
        if found:
            columns[column] = lower[found[0]]
    if "t" not in columns or "x" not in columns:
        raise file.error(f"has arrays {', '.join(sorted(arrays)) or 'none'}; it needs t, x, y and p")
    length = columns["t"].shape
    for name in "yp":
        columns.setdefault(name, np.zeros(length, np.uint8) if name == "y" else np.ones(length, np.uint8))
    for name, array in columns.items():
        if array.ndim != 1 or array.shape != length:
            raise file.error(
                f"column {name} has shape {array.shape}, but t has {length}; all must be one-dimensional and equal"
            )
        columns[name] = _whole(file, name, array)
    for name in "xy":
        if len(columns[name]) and not (columns[name].min() >= 0 and columns[name].max() < 1 << 16):
            raise file.error(
                f"column {name} goes from {columns[name].min()} to {columns[name].max()}; it must be 0 to 65535"
            )
    if not np.isin(columns["p"], (-1, 0, 1)).all():
        raise file.error("column p holds other values than 0 and 1 (or -1 and 1)")
    values = {}
    for name, array in about.items():
        value = float(array) if array.shape == () and array.dtype.kind in "iuf" else 0.0
        if not 0 < value < 1 << 32 or (name != "tick_us" and value != int(value)):
            raise file.error(f"{name} must be one positive number")
        values[name] = value
    events = Events(columns["t"], columns["x"], columns["y"], columns["p"] > 0)
    width, height = (int(values[name]) if name in values else None for name in ("width", "height"))
    return Recording(events, width, height, values.get("tick_us", 1.0))


def _whole(file: File, name: str, array: np.ndarray) -> np.ndarray:
    """The column as int64, if it loses nothing by that."""
    if array.dtype.kind in "iub":
        if array.dtype == np.uint64 and len(array) and array.max() >= 1 << 63:
            raise file.error(f"column {name} reaches {array.max()}, beyond 63 bits")
        return array.astype(np.int64)
    if array.dtype.kind == "f":
        if len(array) and not (
            np.isfinite(array).all() and np.abs(array).max() < 1 << 53 and (array == np.rint(array)).all()
        ):
            raise file.error(f"column {name} is not whole numbers; give times in ticks (microseconds) as integers")
        return array.astype(np.int64)
    raise file.error(f"column {name} is of type {array.dtype}; it must be numbers")


NPZ_FORMAT = Format("npz", "NumPy archive with t, x, y, p", (".npz",), is_npz, decode_npz)
NPY_FORMAT = Format("npy", "NumPy structured array", (".npy",), lambda head: head.startswith(NPY), decode_npy)
