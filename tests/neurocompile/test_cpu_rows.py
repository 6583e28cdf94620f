"""Table rows and what goes with them: small gaps, rows that are fetched along the way, huge pages."""

from __future__ import annotations

import subprocess
from math import log, pi
from pathlib import Path

import numpy as np
import pytest

from neurocompile.lowering import lower
from neurocompile.lowering.loops import Access, Apply, Buffer, Let, Load, Nest, Store
from neurocompile.targets import TargetSpec, cpu
from neurocompile.targets.cpu.code.near import near
from neurocompile.targets.cpu.code.prefetch import ahead, reader, row_bytes
from neurocompile.targets.cpu.placement.formats import FORMATS
from neurocompile.targets.cpu.placement.layout import Weights, lay_out
from neurocompile.targets.cpu.placement.memory import Memory
from neurocompile.targets.cpu.toolchains.compiler import find_compiler
from runtime.backends.native import NativeModel

pytestmark = pytest.mark.skipif(bool(cpu.availability().build), reason="no C compiler")
RATES, DT, OUT = (
    Buffer("w", "float32", 32, "weight"),
    Buffer("dt", "float32", 1, "item"),
    Buffer("y", "float32", 32, "local"),
)


def exponential(operation: str, vector: Buffer = RATES) -> Nest:
    """y = f(dt w)."""
    lets = [Let("s", Load(Access(DT, 0, (0,)))), Let("w", Load(Access(vector, 0, (1,))))]
    lets += [Let("x", Apply("mul", ("s", "w"), "float32")), Let("y", Apply(operation, ("x",), "float32"))]
    return Nest((32,), (*lets, Store(Access(OUT, 0, (1,)), "y")))


def bound(condition: str) -> float:
    return float.fromhex(condition.removeprefix("fabsf(s) <= ").removesuffix("f"))


@pytest.mark.parametrize(("operation", "reach"), [("exp", log(2) / 2), ("sin", pi / 2), ("cos", pi / 2)])
def test_a_nest_knows_up_to_which_gap_arguments_are_small(operation, reach):
    condition, names = near(exponential(operation), {"s"}, Weights(b"", {}, {}, {"w": 3.0}))
    assert names == {"y"}
    assert 0.999 * reach / 3 < bound(condition) < reach / 3


def test_a_nest_has_one_form_where_nothing_bounds_the_argument():
    state = Buffer("x", "float32", 32, "state")
    weights = Weights(b"", {}, {}, {"w": 3.0})
    for nest, steady in ((exponential("exp"), set()), (exponential("exp", state), {"s"}), (exponential("tanh"), {"s"})):
        assert near(nest, steady, weights) == ("", frozenset())


def test_constants_that_are_zero_ask_for_a_number_only():
    condition, _ = near(exponential("cos"), {"s"}, Weights(b"", {}, {}, {"w": 0.0}))
    assert bound(condition) == float(np.finfo(np.float32).max)


@pytest.mark.parametrize("lanes", [4, 8])
def test_every_line_of_the_next_row_is_asked_for_while_one_event_is_worked_on(lanes, compiled, tmp_path):
    graphs = compiled("two_stages")
    loops = lower(graphs)
    memory = Memory(lay_out(loops, 8 * lanes, FORMATS["fp32"]))
    tables = row_bytes(list(loops.stages.values()), memory)
    nest = reader(graphs.spec, loops, memory, lanes)
    assert nest is not None and len(tables) == 1
    (name, stride), begin = next(iter(tables.items())), 0
    begin = memory.weights.offsets[name] + 7 * stride
    lines = ahead(nest, tables, memory, lanes)
    program = "\n".join(
        [
            "#include <stdio.h>",
            "#include <stddef.h>",
            "#include <stdint.h>",
            '#define __builtin_prefetch(p) printf("%td\\n", (p) - w)',
            "int main(void) { struct { struct { int64_t pending; } position; } one = {{7}}, *s = &one;",
            f"const char *w = 0; for (ptrdiff_t i = 0; i + {lanes} <= {nest.shape[0]}; i += {lanes}) {{",
            *lines,
            "} return 0; }",
        ]
    )
    (tmp_path / "p.c").write_text(program)
    find_compiler().run("-std=c17", str(tmp_path / "p.c"), "-o", str(tmp_path / "p"))
    asked = subprocess.run([tmp_path / "p"], capture_output=True, text=True, check=True).stdout.split()
    assert {int(byte) for byte in asked} == set(range(begin, begin + stride, 64))


def test_rows_are_fetched_along_the_way_only_where_the_next_token_is_known(compiled):
    graphs = compiled("two_stages")
    loops = lower(graphs)
    memory = Memory(lay_out(loops, 64, FORMATS["fp32"]))
    spec = graphs.spec
    assert reader(spec, loops, memory, 8)
    spec.front_end["dt"], before = "previous", spec.front_end["dt"]
    try:
        assert reader(spec, loops, memory, 8) is None
    finally:
        spec.front_end["dt"] = before


@pytest.mark.skipif(not Path("/proc/self/smaps").exists(), reason="no /proc/self/smaps")
def test_weights_ask_for_huge_pages(compiled, tmp_path):
    """The flag `hg` of a mapping: -std=c17 hides madvise unless the source asks for it."""
    if not Path("/sys/kernel/mm/transparent_hugepage").exists():
        pytest.skip("a kernel without huge pages")
    graphs = compiled("two_stages")
    artefact = cpu.build(graphs, TargetSpec("cpu", "fp32"))
    (tmp_path / "libmodel.so").write_bytes(artefact.files["libmodel.so"])
    model = NativeModel(graphs.spec, tmp_path / "libmodel.so", artefact.files["model.weights"])
    # A model is its weights, the header first.
    assert model.handle.value is not None
    assert "hg" in _flags(model.handle.value)


def _flags(address: int) -> list[str]:
    """What the kernel notes of the mapping that holds an address of this process."""
    inside = False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        first, _, rest = line.partition(" ")
        if "-" in first:
            begin, end = (int(number, 16) for number in first.split("-"))
            inside = begin <= address < end
        elif inside and first == "VmFlags:":
            return rest.split()
    raise AssertionError(f"no mapping holds {address:#x}")
