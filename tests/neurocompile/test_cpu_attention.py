"""Forgetting attention in C against the op's float64 definition: odd lengths, extreme decay, strides, left-out keys."""

from __future__ import annotations

import ctypes
import platform

import numpy as np
import pytest
import torch

from neurocompile.ops.forgetting_attention.reference import forgetting_attention as reference
from neurocompile.targets import cpu
from neurocompile.targets.cpu.code.attention import attention_kernels, queries
from neurocompile.targets.cpu.code.products import Shape
from neurocompile.targets.cpu.placement.arena import attention_bytes
from neurocompile.targets.cpu.toolchains.compiler import find_compiler

pytestmark = pytest.mark.skipif(bool(cpu.availability().build), reason="no C compiler")
KINDS = {
    "plain C": (Shape(8, 64), ("-DNC_LANES=8",)),
    "x86-64-v2": (Shape(4, 32), ("-march=x86-64-v2",)),
    "x86-64-v3": (Shape(8, 64), ("-march=x86-64-v3",)),
    "x86-64-v4": (Shape(16, 128), ("-march=x86-64-v4",)),
}
LENGTHS = [1, 2, 11, 12, 13, 47, 48, 49, 97, 300]


def can_run(kind: str) -> bool:
    if kind == "plain C":
        return True
    if platform.machine() != "x86_64":
        return False
    flags = {"x86-64-v2": "sse4_2", "x86-64-v3": "avx2", "x86-64-v4": "avx512bw"}
    try:
        with open("/proc/cpuinfo") as file:
            return flags[kind] in file.read()
    except OSError:
        return False


class Library:
    """The generated code for one kind of processor."""

    def __init__(self, kind: str, folder) -> None:
        self.shape, flags = KINDS[kind]
        parts = ["#include <stdint.h>\n#include <stddef.h>\n"]
        parts += [(cpu.PARTS / name).read_text() for name in ("vector.c", "mathematics.c")]
        parts += [*attention_kernels(self.shape), (cpu.PARTS / "attention.c").read_text()]
        strided = ", ".join(f"const float *{name}, ptrdiff_t s_{name}" for name in ("q", "k", "v", "f"))
        passed = ", ".join(f"{name}, s_{name}" for name in ("q", "k", "v", "f", "o"))
        parts.append(
            f'__attribute__((visibility("default"))) void attend(ptrdiff_t steps, ptrdiff_t width, {strided}, '
            f"float *o, ptrdiff_t s_o, unsigned char *work) {{ nc_attention(steps, width, {passed}, work); }}"
        )
        (folder / "a.c").write_text("\n".join(parts))
        find_compiler().library(folder / "a.c", folder / "a.so", flags)
        self.attend = ctypes.CDLL(str(folder / "a.so")).attend
        self.attend.argtypes = (ctypes.c_ssize_t,) * 2 + (ctypes.c_void_p, ctypes.c_ssize_t) * 5 + (ctypes.c_void_p,)

    def __call__(self, q, k, v, log_f, turned: bool = False) -> np.ndarray:
        """(T, H, D), (T, K, D) twice, (T, H) float32 -> (T, H, D); `turned`: through strides that run backwards."""
        from neurocompile.lowering.loops import Access, Attention, Buffer

        steps, heads, width = q.shape
        out, map_ = np.full_like(q, np.nan), Access(Buffer("", "float32", 1, "local"), 0, ())
        op = Attention(*(map_,) * 5, steps, heads, k.shape[1], width)
        size = attention_bytes(op, queries(self.shape))
        block = np.full(size + 128, 0xFF, np.uint8)
        start = -block.ctypes.data % 64
        arrays = [np.ascontiguousarray(a[::-1] if turned else a) for a in (q, k, v, log_f, out)]
        views = [a[::-1] if turned else a for a in arrays]
        for head in range(heads):
            own = (views[0][:, head], views[1][:, head // (heads // k.shape[1])])
            key = views[2][:, head // (heads // k.shape[1])]
            columns = (*own, key, views[3][:, head], views[4][:, head])
            places = [value for c in columns for value in (c.ctypes.data, c.strides[0] // 4)]
            self.attend(steps, width, *places, block.ctypes.data + start)
        assert (block[start + size :] == 0xFF).all() and (block[:start] == 0xFF).all()
        return views[4]


@pytest.fixture(scope="module", params=KINDS)
def library(request, tmp_path_factory) -> Library:
    if not can_run(request.param):
        pytest.skip(f"this processor does not run {request.param}")
    return Library(request.param, tmp_path_factory.mktemp("attention"))


def make(steps: int, heads: int = 2, keys: int = 1, width: int = 8, gate: float = 2.0, seed: int = 0):
    rng = np.random.default_rng(seed)
    q, k, v = (rng.normal(size=(steps, n, width)).astype(np.float32) for n in (heads, keys, keys))
    log_f = -np.log1p(np.exp(-(gate + 1.5 * rng.normal(size=(steps, heads)))))
    return q, k, v, log_f.astype(np.float32)


def defined(q, k, v, log_f) -> np.ndarray:
    return reference(*(torch.from_numpy(x.astype(np.float64))[None] for x in (q, k, v, log_f)))[0].numpy()


@pytest.mark.parametrize("steps", LENGTHS)
def test_every_length_equals_the_definition(library, steps):
    inputs = make(steps)
    assert np.abs(library(*inputs) - defined(*inputs)).max() <= 3e-6


@pytest.mark.parametrize(("heads", "keys", "width"), [(1, 1, 1), (2, 2, 5), (4, 2, 16), (6, 2, 32), (1, 1, 19)])
def test_every_width_and_grouping_of_heads(library, heads, keys, width):
    inputs = make(150, heads, keys, width)
    assert np.abs(library(*inputs) - defined(*inputs)).max() <= 3e-6


def test_strides_may_run_backwards(library):
    inputs = make(131, 2, 1, 8)
    np.testing.assert_array_equal(library(*inputs, turned=True), library(*inputs))


@pytest.mark.parametrize("kind", ["open", "shut", "by turns", "jump", "one shut", "growing"])
def test_extreme_decay(library, kind):
    q, k, v, log_f = make(400)
    log_f = {
        "open": np.zeros_like(log_f),
        "shut": np.full_like(log_f, -120),
        "by turns": np.where(np.arange(400)[:, None] % 7 == 0, np.float32(-90), np.float32(-1e-6)),
        "jump": np.where(np.arange(400)[:, None] < 5, np.float32(-3e4), np.float32(-1e-3)),
        "one shut": np.where(np.arange(400)[:, None] == 300, np.float32(-1e6), np.float32(0)),
        "growing": np.full_like(log_f, 0.25),
    }[kind]
    log_f = np.broadcast_to(log_f, (400, 2)).astype(np.float32)
    found = library(q, k, v, log_f)
    assert np.isfinite(found).all()
    # Where gates grow, scores of 100 are rounded to 8e-6.
    assert np.abs(found - defined(q, k, v, log_f)).max() <= (5e-5 if kind == "growing" else 5e-6)


def test_large_scores_do_not_overflow(library):
    q, k, v, log_f = make(200, gate=6.0)
    found, wanted = library(q * 60, k * 60, v, log_f), defined(q * 60, k * 60, v, log_f)
    assert np.abs(found - wanted).max() <= 2e-3


def test_keys_that_cannot_matter_are_not_read_and_those_that_can_are(library):
    q, k, v, _ = make(700)
    steep, slow = np.full((700, 2), -0.5, np.float32), np.full((700, 2), -1e-4, np.float32)
    poisoned = v.copy()
    poisoned[:96] = np.nan
    # 600 steps of 0.5 take e^-300; what is left out is less than half a unit in the last place, so nothing changes.
    np.testing.assert_array_equal(library(q, k, poisoned, steep)[-50:], library(q, k, v, steep)[-50:])
    assert np.isnan(library(q, k, poisoned, slow)[-50:]).all()


def test_long_keys_far_away_are_still_met(library):
    """The bound holds for the longest key that is left, not for those that were seen."""
    q, k, v, _ = make(600)
    log_f = np.full((600, 2), -0.05, np.float32)
    k[:48] *= 40
    assert np.abs(library(q, k, v, log_f) - defined(q, k, v, log_f)).max() <= 3e-5


def test_what_is_left_out_weighs_less_than_half_a_unit_in_the_last_place(library):
    q, k, v, _ = make(600)
    log_f = np.full((600, 2), -0.08, np.float32)
    v[:300] *= 1e4
    # At most 2 u max |v| is lost, u = 2^-24; the rest is rounding of values of that size.
    assert np.abs(library(q, k, v, log_f) - defined(q, k, v, log_f)).max() <= 8 * 2.0**-24 * np.abs(v).max()


def test_a_score_that_is_no_number_reaches_the_answer(library):
    q, k, v, log_f = make(100)
    q[70, 0, 3] = np.nan
    found = library(q, k, v, log_f)
    assert np.isnan(found[70, 0]).all() and np.isfinite(np.delete(found, 70, 0)).all()
