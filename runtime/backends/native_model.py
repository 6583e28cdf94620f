"""The C interface of a generated library, through ctypes: its structures, its functions, and a loaded model."""

from __future__ import annotations

import ctypes
from pathlib import Path
from typing import Any

import numpy as np

from runtime.backends import native_window
from runtime.errors import UserError
from runtime.program import ProgramSpec

ABI = 1


class _Info(ctypes.Structure):
    _fields_ = (
        ("abi", ctypes.c_uint32),
        ("classes", ctypes.c_uint32),
        ("states", ctypes.c_uint32),
        ("first_readout", ctypes.c_uint32),
        ("width", ctypes.c_uint32),
        ("height", ctypes.c_uint32),
        ("bulk_items", ctypes.c_uint32),
        ("delay_items", ctypes.c_uint32),
        ("session_bytes", ctypes.c_uint64),
        ("snapshot_bytes", ctypes.c_uint64),
        ("weights_bytes", ctypes.c_uint64),
        ("name", ctypes.c_char * 64),
    )


class _StateInfo(ctypes.Structure):
    _fields_ = (("name", ctypes.c_char_p), ("dtype", ctypes.c_char_p), ("bytes", ctypes.c_uint64))


class Position(ctypes.Structure):
    """Where a stream is: `nc_position` of the C header."""

    _fields_ = (
        ("events", ctypes.c_int64),
        ("last", ctypes.c_int64),
        ("pending", ctypes.c_int64),
        ("items", ctypes.c_int64),
        ("token", ctypes.c_int64),
        ("elapsed", ctypes.c_double),
        ("dt", ctypes.c_float),
        ("elapsed_item", ctypes.c_float),
    )


SIGNATURES: dict[str, tuple[Any, ...]] = {
    "nc_query": (ctypes.POINTER(_Info), ctypes.c_size_t),
    "nc_describe_state": (ctypes.c_uint32, ctypes.POINTER(_StateInfo)),
    "nc_model_from_memory": (ctypes.c_char_p, ctypes.c_size_t, ctypes.POINTER(ctypes.c_void_p)),
    "nc_session_open": (ctypes.c_void_p, ctypes.c_double, ctypes.POINTER(ctypes.c_void_p)),
    "nc_reset": (ctypes.c_void_p,),
    "nc_push": (ctypes.c_void_p, ctypes.c_int64, ctypes.c_int32, ctypes.c_int32, ctypes.c_int32),
    "nc_push_many": (ctypes.c_void_p, ctypes.c_size_t, *(ctypes.c_void_p,) * 4),
    "nc_push_singly": (ctypes.c_void_p, ctypes.c_size_t, *(ctypes.c_void_p,) * 4),
    "nc_settle": (ctypes.c_void_p,),
    "nc_readout": (ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t),
    "nc_get_state": (ctypes.c_void_p, ctypes.c_uint32, ctypes.c_void_p, ctypes.c_size_t),
    "nc_set_state": (ctypes.c_void_p, ctypes.c_uint32, ctypes.c_void_p, ctypes.c_size_t),
    "nc_get_position": (ctypes.c_void_p, ctypes.POINTER(Position), ctypes.c_size_t),
    "nc_set_position": (ctypes.c_void_p, ctypes.POINTER(Position), ctypes.c_size_t),
    **native_window.SIGNATURES,
}


class NativeModel:
    """A library and its weights; any number of sessions share it.

    Args:
        spec: The program's tables, which must be those that the library was generated from.
        library: Path of the shared library.
        weights: The bytes of `model.weights`.

    Raises:
        UserError: If the library cannot run here or does not belong to the weights or the tables.
    """

    def __init__(self, spec: ProgramSpec, library: Path, weights: bytes) -> None:
        try:
            self.library = ctypes.CDLL(str(library.resolve()))
            for name, arguments in SIGNATURES.items():
                getattr(self.library, name).argtypes = arguments
            for name, arguments in native_window.CLUSTERS.items() if native_window.has_intensity(spec) else ():
                getattr(self.library, name).argtypes = arguments
                getattr(self.library, name).restype = ctypes.c_int64
        except (OSError, AttributeError) as error:
            raise UserError(f"{library} cannot be loaded on this machine ({error}); export for this machine") from error
        self.library.nc_push_many.restype = self.library.nc_push_singly.restype = ctypes.c_int64
        self.library.nc_message.restype = ctypes.c_char_p
        self.library.nc_model_close.argtypes = (ctypes.c_void_p,)
        self.library.nc_session_close.argtypes = (ctypes.c_void_p,)
        self.handle = ctypes.c_void_p()
        self.info = _Info()
        self.check(self.library.nc_query(ctypes.byref(self.info), ctypes.sizeof(_Info)), str(library))
        if self.info.abi != ABI:
            raise UserError(
                f"{library} speaks version {self.info.abi} of the C interface, this runtime version {ABI}; export again"
            )
        if self._states() != [(s.name, s.dtype, s.size * np.dtype(s.dtype).itemsize) for s in spec.states]:
            raise UserError(f"{library} was generated from another program than the manifest's; export the model again")
        code = self.library.nc_model_from_memory(weights, len(weights), ctypes.byref(self.handle))
        self.check(code, str(library))

    def __del__(self) -> None:
        if getattr(self, "handle", None):
            self.library.nc_model_close(self.handle)

    def check(self, code: int, where: str) -> None:
        """Raises `UserError` for an error code."""
        if code < 0:
            raise UserError(f"{where}: {self.library.nc_message(code).decode()}")

    def _states(self) -> list[tuple[str, str, int]]:
        found, one = [], _StateInfo()
        for number in range(self.info.states):
            self.check(self.library.nc_describe_state(number, ctypes.byref(one)), "state")
            found.append((one.name.decode(), one.dtype.decode(), int(one.bytes)))
        return found
