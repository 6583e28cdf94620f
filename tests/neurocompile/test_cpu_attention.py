"""Forgetting attention in C against the op's float64 definition: odd lengths, extreme decay, strides, left-out keys."""

from __future__ import annotations

import ctypes
import platform

import numpy as np
import pytest
import torch

from neurocompile.lowering.access import Access, Buffer
from neurocompile.lowering.attention import Attention
from neurocompile.ops.forgetting_attention.reference import forgetting_attention as reference
from neurocompile.ops.forgetting_attention_suffixes.reference import forgetting_attention_suffixes as suffixes
from neurocompile.targets import cpu
from neurocompile.targets.cpu.code.attention import attention_kernels
from neurocompile.targets.cpu.code.attention import queries as queries_of
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
        passed = ", ".join(f"{name}, s_{name}" for name in ("q", "k", "v", "f"))
        sizes = "steps, from, keys, cut, width"
        whole = ", ".join(f"ptrdiff_t {name}" for name in sizes.split(", "))
        parts.append(
            f'__attribute__((visibility("default"))) void attend({whole}, {strided}, '
            f"const float *known, ptrdiff_t s_known, float *o, ptrdiff_t s_o, ptrdiff_t c_o, unsigned char *work) {{ "
            f"nc_attention({sizes}, {passed}, known, s_known, o, s_o, c_o, work); }}"
        )
        (folder / "a.c").write_text("\n".join(parts))
        find_compiler().library(folder / "a.c", folder / "a.so", flags)
        self.attend = ctypes.CDLL(str(folder / "a.so")).attend
        pairs = (ctypes.c_void_p, ctypes.c_ssize_t) * 6
        self.attend.argtypes = (ctypes.c_ssize_t,) * 5 + pairs + (ctypes.c_ssize_t, ctypes.c_void_p)

    def __call__(self, q, k, v, log_f, turned: bool = False) -> np.ndarray:
        """(T, H, D), (T, K, D) twice, (T, H) float32 -> (T, H, D); `turned`: through strides that run backwards."""
        return self.suffixes(q, k, v, log_f, None, len(q), turned)[0]

    def suffixes(self, q, k, v, log_f, known, cut: int, turned: bool = False) -> np.ndarray:
        """(Q, H, D), (M, K, D) twice, (T, H), (Q, H, D + 1) or `None` -> (M / C, Q, H, D or D + 1)."""
        (queries, heads, width), (keys, key_heads, _), steps = q.shape, k.shape, len(log_f)
        map_ = Access(Buffer("", "float32", 1, "local"), 0, ())
        op = Attention(*(map_,) * 5, None, steps, queries, keys, cut, heads, key_heads, width)
        size = attention_bytes(op, queries_of(self.shape))
        block = np.full(size + 128, 0xFF, np.uint8)
        start = -block.ctypes.data % 64
        out = np.full((keys // cut, queries, heads, width + (known is not None)), np.nan, np.float32)
        if turned:
            q, k, v, log_f = (np.ascontiguousarray(a[::-1])[::-1] for a in (q, k, v, log_f))
            known = known if known is None else np.ascontiguousarray(known[::-1])[::-1]
            out = out[:, ::-1]
        for head in range(heads):
            key = head // (heads // key_heads)
            columns = (q[:, head], k[:, key], v[:, key], log_f[:, head])
            places = [value for c in columns for value in (c.ctypes.data, c.strides[0] // 4)]
            places += (None, 0) if known is None else (known[:, head].ctypes.data, known.strides[0] // 4)
            places += (out[0, :, head].ctypes.data, out.strides[1] // 4, out.strides[0] // 4)
            self.attend(steps, steps - queries, keys, cut, width, *places, block.ctypes.data + start)
        assert (block[start + size :] == 0xFF).all() and (block[:start] == 0xFF).all()
        return out


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


def test_many_keys_that_each_weigh_next_to_nothing_add_up(library):
    """5000 keys of e^-18 each are 7.6e-5 of the softmax, where one of them is below the precision of its sum."""
    q, k, v = (np.zeros((5001, 1, 1), np.float32) for _ in "qkv")
    q[:], k[-1], v[:-1] = 1, 18, 1
    found = library(q, k, v, np.zeros((5001, 1), np.float32))[-1, 0, 0]
    wanted = 5000 * np.exp(-18.0) / (1 + 5000 * np.exp(-18.0))
    assert abs(found - wanted) <= 1e-5 * wanted


def test_a_score_that_is_no_number_reaches_the_answer(library):
    q, k, v, log_f = make(100)
    q[70, 0, 3] = np.nan
    found = library(q, k, v, log_f)
    assert np.isnan(found[70, 0]).all() and np.isfinite(np.delete(found, 70, 0)).all()


# Positions, queries, keys, keys from suffix to suffix.
SUFFIXES = [(1, 1, 1, 1), (60, 12, 60, 12), (60, 60, 12, 12), (61, 40, 21, 7), (300, 100, 300, 100), (300, 200, 77, 11)]


@pytest.mark.parametrize("gate", [6.0, -2.0], ids=["slow", "fast"])
@pytest.mark.parametrize("sizes", SUFFIXES)
def test_suffixes_of_the_keys_equal_the_definition(library, sizes, gate):
    steps, queries, keys, cut = sizes
    q, k, v, log_f = make(steps, 4, 2, 6, gate)
    q, k, v = q[-queries:], k[:keys], v[:keys]
    known = np.random.default_rng(1).normal(size=(queries, 4, 7)).astype(np.float32)
    known[::3, :, -1] = -1e30
    want = suffixes(*(torch.from_numpy(x.astype(np.float64))[None] for x in (q, k, v, log_f, known)), cut)[0].numpy()
    found = library.suffixes(q, k, v, log_f, known, cut)
    # Scores of queries that only see keys far behind are as large as their decay, and rounded as such.
    assert np.abs(found - want).max() <= 6e-6 + 3e-7 * np.abs(want).max()
    np.testing.assert_array_equal(library.suffixes(q, k, v, log_f, known, cut, turned=True), found)


def test_suffixes_leave_out_what_cannot_matter_and_still_answer_for_each(library):
    """Keys behind 100 steps of e^-0.5 are not read; their suffixes answer what the last one that matters does."""
    q, k, v, _ = make(640)
    steep = np.full((640, 2), -0.5, np.float32)
    v[:320] = np.nan
    known = np.zeros((64, 2, 9), np.float32)
    known[..., -1] = -1e30
    found = library.suffixes(q[-64:], k, v, steep, known, 64)
    assert np.isfinite(found).all()
    np.testing.assert_array_equal(found[:5], np.broadcast_to(found[5], found[:5].shape))
