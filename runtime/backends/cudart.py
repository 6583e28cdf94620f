"""The few calls of the CUDA runtime that a session needs, through ctypes: memory, one stream, captured graphs."""

from __future__ import annotations

import ctypes
from typing import Any

from runtime.errors import UserError

LIBRARIES = ("libcudart.so.13", "libcudart.so.12", "libcudart.so")
ANY_DIRECTION = 4
THREAD_LOCAL = 1
MAJOR, MINOR = 75, 76

Address = int


def open_library() -> Any:
    """The CUDA runtime of this machine.

    Raises:
        UserError: If there is none.
    """
    for name in LIBRARIES:
        try:
            return ctypes.CDLL(name)
        except OSError:
            continue
    raise UserError(f"the CUDA runtime ({LIBRARIES[0]} or {LIBRARIES[1]}) is not installed here; install CUDA 12 or 13")


class Cuda:
    """One device, one stream.

    Args:
        library: The CUDA runtime; that of this machine where not given.
    """

    def __init__(self, library: Any = None) -> None:
        self._library = open_library() if library is None else library
        self._library.cudaGetErrorString.restype = ctypes.c_char_p
        count = ctypes.c_int()
        self._call("cudaGetDeviceCount", ctypes.byref(count))
        if not count.value:
            raise UserError("this machine has no CUDA device")
        stream = ctypes.c_void_p()
        self._call("cudaStreamCreateWithFlags", ctypes.byref(stream), ctypes.c_uint(1))
        self.stream = int(stream.value or 0)

    def capability(self) -> int:
        """Compute capability of the first device as one number, e.g. 87."""
        number = []
        for attribute in (MAJOR, MINOR):
            value = ctypes.c_int()
            self._call("cudaDeviceGetAttribute", ctypes.byref(value), ctypes.c_int(attribute), ctypes.c_int(0))
            number.append(value.value)
        return 10 * number[0] + number[1]

    def device_memory(self, size: int) -> Address:
        """New memory on the device, all zero."""
        pointer = ctypes.c_void_p()
        self._call("cudaMalloc", ctypes.byref(pointer), ctypes.c_size_t(max(size, 1)))
        self._call("cudaMemset", pointer, ctypes.c_int(0), ctypes.c_size_t(max(size, 1)))
        self._call("cudaDeviceSynchronize")  # It runs on another stream than everything else here.
        return int(pointer.value or 0)

    def pinned_memory(self, size: int) -> Address:
        """New memory on the host that the device can read while the host goes on."""
        pointer = ctypes.c_void_p()
        self._call("cudaHostAlloc", ctypes.byref(pointer), ctypes.c_size_t(size), ctypes.c_uint(0))
        return int(pointer.value or 0)

    def free(self, address: Address) -> None:
        """Gives device memory back."""
        self._call("cudaFree", ctypes.c_void_p(address))

    def free_pinned(self, address: Address) -> None:
        """Gives pinned memory back."""
        self._call("cudaFreeHost", ctypes.c_void_p(address))

    def copy(self, target: Address, source: Address, size: int) -> None:
        """Copies on the stream, in any direction; the host goes on."""
        self._call(
            "cudaMemcpyAsync",
            ctypes.c_void_p(target),
            ctypes.c_void_p(source),
            ctypes.c_size_t(size),
            ctypes.c_int(ANY_DIRECTION),
            ctypes.c_void_p(self.stream),
        )

    def synchronise(self) -> None:
        """Waits until the stream is empty."""
        self._call("cudaStreamSynchronize", ctypes.c_void_p(self.stream))

    def begin_capture(self) -> None:
        """From here on calls on the stream are recorded instead of executed."""
        self._call("cudaStreamBeginCapture", ctypes.c_void_p(self.stream), ctypes.c_int(THREAD_LOCAL))

    def end_capture(self) -> Address:
        """The recorded calls as an executable graph."""
        graph, executable = ctypes.c_void_p(), ctypes.c_void_p()
        self._call("cudaStreamEndCapture", ctypes.c_void_p(self.stream), ctypes.byref(graph))
        # This form of the call is that of CUDA 12 and later.
        self._call("cudaGraphInstantiate", ctypes.byref(executable), graph, ctypes.c_ulonglong(0))
        self._call("cudaGraphDestroy", graph)
        return int(executable.value or 0)

    def launch(self, executable: Address) -> None:
        """Replays a captured graph on the stream."""
        self._call("cudaGraphLaunch", ctypes.c_void_p(executable), ctypes.c_void_p(self.stream))

    def _call(self, name: str, *arguments: Any) -> None:
        code = getattr(self._library, name)(*arguments)
        if code:
            said = self._library.cudaGetErrorString(code)
            raise UserError(f"CUDA cannot go on ({name}: {said.decode() if said else code}); see `nvidia-smi`")
