"""The bulk form of compiled programs: however a stream is cut into pushes, the result is that of single steps."""

from __future__ import annotations

import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from neurocompile.lowering import lower
from neurocompile.lowering.clusters import find_clusters
from neurocompile.targets import TargetSpec, cpu
from neurocompile.targets.cpu.toolchains.compiler import find_compiler
from runtime.backends.native import NativeModel, NativeSession
from runtime.events import Events

pytestmark = pytest.mark.skipif(bool(cpu.availability().build), reason="no C compiler")
EVENTS = 1500


def pair_of_sessions(graphs, target: TargetSpec, folder: Path) -> tuple[NativeSession, NativeSession]:
    """Two sessions of one freshly compiled model."""
    files = cpu.build(graphs, target).files
    (folder / "libmodel.so").write_bytes(files["libmodel.so"])
    model = NativeModel(graphs.spec, folder / "libmodel.so", files["model.weights"])
    return NativeSession(graphs.spec, model), NativeSession(graphs.spec, model, use_chunk=False)


def stream(spec, count: int, seed: int) -> Events:
    rng, front = np.random.default_rng(seed), spec.front_end
    t = np.cumsum(rng.choice([0, 1, 17, 250, 1000], count)).astype(np.int64)
    x, y = rng.integers(0, front["width"], count), rng.integers(0, front["height"], count)
    return Events(t, x, y, rng.random(count) < 0.5)


def assert_same(found: NativeSession, wanted: NativeSession, tolerance: float) -> None:
    assert found.items == wanted.items
    for state in found.spec.states:
        value, expected = found.state(state.name), wanted.state(state.name)
        scale = max(float(np.abs(expected).max()), 1e-3)
        np.testing.assert_allclose(value / scale, expected / scale, rtol=0, atol=tolerance, err_msg=state.name)
    answer, expected = found.readout(), wanted.readout()
    np.testing.assert_allclose(answer, expected, rtol=0, atol=tolerance * np.abs(expected).max())


@pytest.mark.parametrize(
    ("name", "target"),
    [
        ("two_stages", "fp32"),
        ("two_stages", "bf16"),
        ("two_stages", "int8"),
        ("batch_norm", "fp32"),
        ("post_norm", "fp32"),
    ],
)
def test_any_split_gives_what_single_steps_give(name, target, compiled, tmp_path):
    graphs = compiled(name)
    bulk, single = pair_of_sessions(graphs, TargetSpec("cpu", target), tmp_path)
    least = bulk.bulk_items
    assert least > 0
    rng, events = np.random.default_rng(0), stream(graphs.spec, EVENTS, 1)
    done = 0
    while done < len(events):
        size = int(rng.choice([1, 3, least - 1, least, least + 1, 5 * least + 3, 500]))
        piece = events[done : done + size]
        bulk.push(piece)
        single.push(piece)
        done += size
        # The numbers that 8-bit products round to may fall to either side.
        assert_same(bulk, single, 1e-3 if target == "int8" else 2e-5)


@pytest.mark.parametrize("name", ["zoh_last", "stride_one"])
def test_without_a_cluster_bulk_pushes_step(name, compiled):
    """Pooling by the last item gathers a table row in the group; a stride of one has no groups."""
    graphs = compiled(name)
    assert find_clusters(graphs.spec, lower(graphs)) == ()


def test_a_restored_session_goes_on_in_bulk(compiled, tmp_path):
    graphs = compiled("two_stages")
    bulk, single = pair_of_sessions(graphs, TargetSpec("cpu", "fp32"), tmp_path)
    events = stream(graphs.spec, EVENTS, 2)
    for cut in (1, 2, 77, 640):
        bulk.reset()
        single.reset()
        single.push(events[:cut])
        bulk.restore(single.snapshot())
        for session in (bulk, single):
            session.push(events[cut:])
        assert_same(bulk, single, 2e-5)


def test_a_refused_event_leaves_a_bulk_push_undone(compiled, tmp_path):
    from runtime.errors import UserError

    graphs = compiled("two_stages")
    session, other = pair_of_sessions(graphs, TargetSpec("cpu", "fp32"), tmp_path)
    events = stream(graphs.spec, 400, 3)
    broken = replace(events, t=np.concatenate([events.t[:300], events.t[:100]]))
    with pytest.raises(UserError):
        session.push(broken)
    assert_same(session, other, 0)


@pytest.mark.slow
@pytest.mark.parametrize("smooth", [False, True], ids=["bulk", "smooth"])
@pytest.mark.parametrize("dtype", ["fp32", "bf16", "int8"])
def test_no_sanitizer_complains(dtype, smooth, compiled, tmp_path):
    files = cpu.build(compiled("two_stages"), TargetSpec("cpu", dtype, smooth=smooth)).files
    for name in ("c/model.c", "c/neurocompile.h", "model.weights"):
        (tmp_path / Path(name).name).write_bytes(files[name])
    flags = ("-O1", "-g", "-march=native", "-fsanitize=address,undefined", "-fno-sanitize-recover=all")
    sources = [str(Path(__file__).with_name("bulk_driver.c")), str(tmp_path / "model.c")]
    include = ("-I", str(tmp_path), "-Wno-psabi")
    find_compiler().run("-std=c17", *include, *flags, *sources, "-o", str(tmp_path / "driver"), "-lm")
    done = subprocess.run([str(tmp_path / "driver"), str(tmp_path)], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_clusters_of_two_levels(compiled):
    graphs = compiled("two_stages")
    clusters = find_clusters(graphs.spec, lower(graphs))
    assert [stage.name for stage in clusters[0].members] == ["stage0.first", "stage0.group"]
    assert [stage.name for stage in clusters[0].tails] == ["stage1.item"]
    assert "stage0.pool_u" in {buffer.name for buffer in clusters[0].captures["stage0.group"]}


def test_a_stage_that_others_watch_may_not_wait(compiled):
    """If the event stage read what a group makes, putting the group off would change it."""
    graphs = compiled("two_stages")
    program = lower(graphs)
    group = program.stages["stage0.group"]
    item = program.stages["stage0.item"]
    watched = next(buffer for buffer in program.states if buffer.name.startswith("stage0.layer1"))
    watching = next(s for s in group.statements if any(access.buffer == watched for access in _loaded(s)))
    spying = replace(item, statements=(*item.statements, watching))
    assert find_clusters(graphs.spec, replace(program, stages={**program.stages, item.name: spying})) == ()


def _loaded(statement):
    from neurocompile.lowering.loops import accesses

    return [access for access, _, written in accesses(statement) if not written]
