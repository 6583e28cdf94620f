"""NumPy files: `.npz` with arrays t, x, y, p, and `.npy` or `.npz` with one structured array of those fields.

Optional scalars in an `.npz`: width, height, tick_us. Polarity may be bool, 0/1 or -1/1; y may be missing (audio: 0).
Times must be whole ticks. Pickled objects are never loaded.
"""

from __future__ import annotations

import io
import struct
import zipfile
import zlib

import numpy as np

from runtime.events.container import Recording
from runtime.events.formats.columns import recording_of
from runtime.events.formats.format import File, Format

NPY = b"\x93NUMPY"
HEADERS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
SCALARS = ("width", "height", "tick_us")


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
    return recording_of(file, _fields(structured[0]) if len(structured) == 1 else arrays, about)


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
    return recording_of(file, _fields(array), {})


def _array(data: bytes) -> np.ndarray:
    """The array of an npy file; takes no more memory than the file has bytes."""
    stream = io.BytesIO(data)
    version = np.lib.format.read_magic(stream)
    if version not in HEADERS:
        raise ValueError(f"npy version {version[0]}.{version[1]} is not read")
    try:
        shape, by_column, dtype = HEADERS[version](stream)
    except Exception as error:
        # NumPy parses the header as Python source: damage shows as almost any exception.
        raise ValueError(f"its header is damaged ({type(error).__name__})") from None
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


NPZ_FORMAT = Format("npz", "NumPy archive with t, x, y, p", (".npz",), is_npz, decode_npz)
NPY_FORMAT = Format("npy", "NumPy structured array", (".npy",), lambda head: head.startswith(NPY), decode_npy)
