"""The few calls of the CUDA driver that launch a kernel from its code, through ctypes."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import Any

LIBRARY = "libcuda.so.1"


class Driver:
    """Loads code and launches kernels in the context that is current, which is torch's.

    Args:
        library: The driver; that of this machine where not given.

    Raises:
        OSError: If this machine has none.
    """

    def __init__(self, library: Any = None) -> None:
        self._library = ctypes.CDLL(LIBRARY) if library is None else library
        self._functions: dict[tuple[bytes, str], ctypes.c_void_p] = {}
        self._call("cuInit", ctypes.c_uint(0))

    def function(self, code: bytes, entry: str) -> ctypes.c_void_p:
        """A kernel, loaded once.

        Args:
            code: PTX text or a cubin.
            entry: The kernel's name.
        """
        if (code, entry) not in self._functions:
            module, function = ctypes.c_void_p(), ctypes.c_void_p()
            self._call("cuModuleLoadData", ctypes.byref(module), ctypes.c_char_p(code))
            self._call("cuModuleGetFunction", ctypes.byref(function), module, ctypes.c_char_p(entry.encode()))
            self._functions[code, entry] = function
        return self._functions[code, entry]

    def launch(
        self,
        function: ctypes.c_void_p,
        grid: Sequence[int],
        threads: int,
        shared: int,
        arguments: Sequence[tuple[str, int]],
        stream: int,
    ) -> None:
        """Launches a kernel.

        Args:
            function: From `function`.
            grid: Blocks along x, y, z.
            threads: Threads of a block.
            shared: Bytes of dynamic shared memory.
            arguments: `pointer` and an address, or `int32` and a number, in the kernel's order.
            stream: A stream's handle.
        """
        cells = [ctypes.c_uint64(value) if kind == "pointer" else ctypes.c_int32(value) for kind, value in arguments]
        places = (ctypes.c_void_p * len(cells))(*(ctypes.addressof(cell) for cell in cells))
        sizes = [ctypes.c_uint(size) for size in (*grid, threads, 1, 1, shared)]
        self._call("cuLaunchKernel", function, *sizes, ctypes.c_void_p(stream), places, None)

    def _call(self, name: str, *arguments: Any) -> None:
        code = getattr(self._library, name)(*arguments)
        if code:
            text = ctypes.c_char_p()
            self._library.cuGetErrorString(code, ctypes.byref(text))
            raise RuntimeError(f"{name}: {(text.value or b'').decode()} ({code})")
