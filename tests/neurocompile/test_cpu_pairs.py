"""Matrices in bfloat16 that are rounded so that results change least, and which tables are kept in it at all."""

from __future__ import annotations

import numpy as np
import pytest

from neurocompile.calibration import Calibration, Source, calibrate
from neurocompile.compensated import loss
from neurocompile.lowering import lower
from neurocompile.lowering.loops import MatVec
from neurocompile.products import find_products
from neurocompile.reference import reference_session
from neurocompile.targets import TargetSpec, cpu
from neurocompile.targets.cpu.placement.formats import FORMATS
from neurocompile.targets.cpu.placement.layout import SMALL_TABLE, lay_out, table_storage
from neurocompile.targets.cpu.placement.pairs import compensate_pairs, compensated_words, nearest_words
from runtime.backends.native import NativeModel, NativeSession
from runtime.events import Recording
from runtime.trace import push_singly

NAME = "two_stages"
PIECES = [5, 8, 1, 49]


@pytest.fixture(scope="module")
def seen(compiled, stream) -> Calibration:
    program = compiled(NAME)
    recordings = (Recording(stream(program, 700, seed), 20, 1, 1.0, f"made up {seed}") for seed in (1, 2))
    return calibrate(program.spec, program.graphs, Source(tuple(recordings), given=True))


def correlated(rows: int, channels: int) -> np.ndarray:
    rng = np.random.default_rng(0)
    return rng.normal(size=(rows, channels // 3)) @ rng.normal(size=(channels // 3, channels)) + rng.normal(
        size=channels
    )


def unpacked(data: bytes, pieces: list[int], outputs: int) -> np.ndarray:
    """The numbers in a panel's words, read as the generated code reads them."""
    words = np.frombuffer(data, "<u4").reshape(-1, outputs)
    rows, begin = [], 0
    for length in pieces:
        own = words[begin : begin + -(-length // 2)]
        both = np.stack([(own << 16).view(np.float32), own.view(np.float32)], 1).reshape(-1, outputs)
        rows.append(both[:length])
        begin += len(own)
    assert begin == len(words)
    return np.concatenate(rows)


@pytest.mark.parametrize("scale", [1e-3, 1.0, 300.0])
def test_words_lose_less_of_other_inputs_and_survive_packing(scale):
    x = correlated(4000, sum(PIECES))
    matrix = (np.random.default_rng(1).normal(size=(sum(PIECES), 17)) * scale).astype(np.float32)
    moments = x[:3000].T @ x[:3000]
    found, plain = compensated_words(matrix, moments, PIECES), nearest_words(matrix, PIECES)
    np.testing.assert_array_equal(unpacked(FORMATS["bf16"].pack(found, PIECES), PIECES, 17), found)
    np.testing.assert_array_equal(unpacked(FORMATS["bf16"].pack(matrix, PIECES), PIECES, 17), plain)
    assert (loss(matrix, found, moments) <= loss(matrix, plain, moments)).all()
    others = x[3000:].T @ x[3000:]
    before, after = (np.sqrt(loss(matrix, rounded, others).sum()) for rounded in (plain, found))
    assert 2 * after < before


def test_inputs_that_were_never_active_leave_the_nearest_words():
    matrix = np.random.default_rng(0).normal(size=(9, 4)).astype(np.float32)
    found = compensated_words(matrix, np.zeros((9, 9)), [4, 5])
    np.testing.assert_array_equal(found, nearest_words(matrix, [4, 5]))


def test_programs(compiled, seen):
    """Every product that was seen often enough is rounded, nothing else changes, and twice it comes out the same."""
    program = compiled(NAME)
    loops = lower(program)
    rounded, changes = compensate_pairs(loops, program, seen)
    products = [p for s in program.spec.stages for p in find_products(s.name, program.graphs[s.name])]
    fits = [product for product in products if seen.inputs[product.key].informative]
    assert len(changes) == len(fits) > 5
    assert len(fits) + len(seen.left_out(program.spec, program.graphs)) == len(products)
    changed = {name for name, array in loops.weights.items() if not np.array_equal(array, rounded.weights[name])}
    statements = [s for stage in loops.stages.values() for s in stage.statements if isinstance(s, MatVec)]
    assert changed == {s.weight.name for s in statements if any(same(loops.weights[s.weight.name], p) for p in fits)}
    again, _ = compensate_pairs(lower(program), program, seen)
    assert all(np.array_equal(array, again.weights[name]) for name, array in rounded.weights.items())


def same(array: np.ndarray, product) -> bool:
    return array.shape == product.matrix.shape and np.array_equal(array, product.matrix)


@pytest.mark.skipif(bool(cpu.availability().build), reason="no C compiler")
def test_the_library_comes_out_nearer_to_the_network(compiled, program, seen, stream, tmp_path):
    graphs, deviation = compiled(NAME), {}
    events = stream(graphs, 700, 9)
    reference = reference_session(program(NAME))
    push_singly(reference, events)
    sizes = {state.name: np.abs(reference.state(state.name)).max() for state in graphs.spec.states}
    scales = {name: size for name, size in sizes.items() if size > 1e-3}
    for name, calibration in (("nearest", None), ("compensated", seen)):
        artefact = cpu.build(graphs, TargetSpec("cpu", "bf16"), calibration)
        library = tmp_path / f"{name}.so"
        library.write_bytes(artefact.files["libmodel.so"])
        session = NativeSession(graphs.spec, NativeModel(graphs.spec, library, artefact.files["model.weights"]))
        push_singly(session, events)
        deviation[name] = np.mean([np.abs(session.state(n) - reference.state(n)).max() / scales[n] for n in scales])
    assert deviation["compensated"] < 0.8 * deviation["nearest"]


def test_only_large_tables_are_in_bfloat16(compiled):
    elements = SMALL_TABLE // 4
    assert table_storage(elements, FORMATS["bf16"]) == "float32"
    assert table_storage(elements + 1, FORMATS["bf16"]) == "bf16"
    assert table_storage(elements + 1, FORMATS["fp32"]) == "float32"
    laid_out = lay_out(lower(compiled(NAME)), 64, FORMATS["bf16"])
    assert set(laid_out.storage.values()) == {"float32"}
