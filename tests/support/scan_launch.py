"""What `scan_kernel` of `diagonal_scan` does, over host memory: for drivers that compute instead of a GPU."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence

import numpy as np


def compute(blocks: int, places: Sequence[int], swap: bool = False) -> tuple[int, int, int, int]:
    """One launch: six inputs, four integers, two results, each where `places` says; returns the integers.

    `swap` exchanges the results, which is wrong.
    """
    pointers = [ctypes.c_uint64.from_address(places[n]).value for n in (*range(6), 10, 11)]
    steps, width, chunks, tiles = (ctypes.c_int32.from_address(places[n]).value for n in range(6, 10))
    batch = blocks // chunks

    def array(address: int, *shape: int) -> np.ndarray:
        count = int(np.prod(shape))
        return np.ctypeslib.as_array((ctypes.c_float * count).from_address(address)).reshape(shape)

    long = [array(address, batch, steps, width) for address in (*pointers[:4], *pointers[6:])]
    a, b = long[0] + 1j * long[1], long[2] + 1j * long[3]
    x = array(pointers[4], batch, width) + 1j * array(pointers[5], batch, width)
    for t in range(steps):
        x = a[:, t] * x + b[:, t]
        long[4 + swap][:, t], long[5 - swap][:, t] = x.real, x.imag
    return steps, width, chunks, tiles
