"""The vector mathematics of generated code against float64, over the whole of float32."""

from __future__ import annotations

import ctypes
import platform

import numpy as np
import pytest

from neurocompile.targets import cpu
from neurocompile.targets.cpu.toolchains.compiler import find_compiler

FUNCTIONS = ("exp", "sin", "cos", "tanh", "sigmoid")
EVERY = 997  # of the 2^32 bit patterns; prime, so that all exponents and low bits occur


@pytest.fixture(scope="module", params=["-march=x86-64-v2", "-march=native"])
def library(request, tmp_path_factory) -> ctypes.CDLL:
    """A library with one function per operation over arrays."""
    if platform.machine() != "x86_64" and "x86" in request.param:
        pytest.skip("another processor")
    folder = tmp_path_factory.mktemp("mathematics")
    parts = ["#include <stdint.h>\n#include <stddef.h>\n"]
    parts += [(cpu.PARTS / name).read_text() for name in ("vector.c", "mathematics.c")]
    for name in FUNCTIONS:
        parts.append(
            f'__attribute__((visibility("default"))) void all_{name}(const float *x, float *y, size_t n) {{'
            f" for (size_t i = 0; i < n; i += NC_LANES) nc_store(y + i, nc_{name}(nc_load(x + i))); }}"
        )
    parts.append(
        '__attribute__((visibility("default"))) void near(const float *x, float *e, float *s, float *c, size_t n) {'
        " for (size_t i = 0; i < n; i += NC_LANES) { vf a, b; nc_store(e + i, nc_exp_near(nc_load(x + i)));"
        " nc_sincos_near(nc_load(x + i), &a, &b); nc_store(s + i, a); nc_store(c + i, b); } }"
    )
    (folder / "m.c").write_text("\n".join(parts))
    find_compiler().library(folder / "m.c", folder / "m.so", (request.param,))
    return ctypes.CDLL(str(folder / "m.so"))


def call(library: ctypes.CDLL, name: str, x: np.ndarray) -> np.ndarray:
    padded = np.concatenate([x, np.zeros(-len(x) % 16, np.float32)]).astype(np.float32)
    y = np.full_like(padded, np.nan)
    getattr(library, f"all_{name}")(
        padded.ctypes.data_as(ctypes.c_void_p), y.ctypes.data_as(ctypes.c_void_p), ctypes.c_size_t(len(padded))
    )
    return y[: len(x)]


def patterns() -> np.ndarray:
    """Finite floats of every size and sign."""
    x = np.arange(0, 1 << 32, EVERY, dtype=np.uint64).astype(np.uint32).view(np.float32)
    return x[np.isfinite(x)]


def exact(name: str, x: np.ndarray) -> np.ndarray:
    x = x.astype(np.float64)
    with np.errstate(over="ignore"):
        return 1 / (1 + np.exp(-x)) if name == "sigmoid" else getattr(np, name)(x)


def units(found: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Errors in units in the last place of the exact result."""
    with np.errstate(over="ignore"):
        narrow = wanted.astype(np.float32)
    spacing = np.spacing(np.maximum(np.abs(narrow), np.finfo(np.float32).tiny)).astype(np.float64)
    same = found == narrow  # infinities
    return np.where(same, 0, np.abs(found.astype(np.float64) - wanted) / spacing)


@pytest.mark.parametrize(("name", "bound"), [("exp", 2), ("tanh", 3), ("sigmoid", 3)])
def test_errors_stay_within_the_stated_units(library, name, bound):
    x = patterns()
    if name == "sigmoid":
        assert (call(library, name, x[x < -88.7]) <= 3e-38).all()
        x = x[x >= -88.7]
    error = units(call(library, name, x), exact(name, x))
    worst = int(np.nanargmax(error))
    assert not np.isnan(error).any()
    assert error[worst] <= bound, f"{name}({x[worst]!r}) is off by {error[worst]} units"


@pytest.mark.parametrize("name", ["sin", "cos"])
def test_sines_stay_within_the_stated_error_for_every_angle(library, name):
    x = np.concatenate([patterns(), np.random.default_rng(0).uniform(-8192, 8192, 200_000).astype(np.float32)])
    error = np.abs(call(library, name, x).astype(np.float64) - exact(name, x))
    worst = int(np.argmax(error))
    assert error[worst] <= 2 * 2.0**-24, f"{name}({x[worst]!r}) is off by {error[worst]}"


def test_special_values(library):
    x = np.array([np.inf, -np.inf, np.nan, 0.0, -0.0, 88.8, -104.5, -100.0], np.float32)
    exp = call(library, "exp", x)
    assert exp[0] == np.inf and exp[1] == 0 and np.isnan(exp[2]) and exp[3] == exp[4] == 1
    assert exp[5] == np.inf and exp[6] == 0 and 0 < exp[7] < 1e-43
    tanh, sigmoid = call(library, "tanh", x), call(library, "sigmoid", x)
    assert tanh[0] == 1 and tanh[1] == -1 and np.isnan(tanh[2]) and np.signbit(tanh[4])
    assert sigmoid[0] == 1 and sigmoid[1] == 0 and np.isnan(sigmoid[2])
    assert np.isnan(call(library, "sin", x)[:3]).all()


@pytest.mark.parametrize(("name", "bound"), [("exp", np.log(2) / 2), ("sin", np.pi / 2), ("cos", np.pi / 2)])
def test_functions_for_small_arguments_are_as_good(library, name, bound):
    small = np.linspace(-bound, bound, 1 << 16)
    x = np.concatenate([small, small * 1e-3, small * 1e-30, [0, -0.0]]).astype(np.float32)
    x = np.clip(x, -np.float32(bound), np.float32(bound))[: len(x) // 16 * 16]
    found = {key: np.full_like(x, np.nan) for key in ("exp", "sin", "cos")}
    pointers = [array.ctypes.data_as(ctypes.c_void_p) for array in (x, *found.values())]
    library.near(*pointers, ctypes.c_size_t(len(x)))
    error = np.abs(found[name].astype(np.float64) - exact(name, x))
    assert error.max() <= (2.0**-22 if name == "exp" else 2.0**-22.9)
    assert np.abs(found[name] - call(library, name, x)).max() <= 2.0**-22
