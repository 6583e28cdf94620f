"""The TensorRT backend against the stand-ins in `fake_tensorrt.py`. No device ever ran this."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from fake_tensorrt import Library, module
from neurocompile.sequences import shipped_sequence
from neurocompile.targets.trt import rtx
from neurocompile.targets.trt.stand_in import stand_in
from runtime import engines
from runtime.backends import tensorrt as backend
from runtime.backends.cudart import Cuda
from runtime.bundle import MANIFEST, MANIFEST_HASH, open_bundle
from runtime.engines import Host
from runtime.errors import UserError


@pytest.fixture(scope="module")
def made(checkpoint, tmp_path_factory) -> Path:
    """A bundle for a Jetson Orin."""
    from export.pipeline import export_model

    folder = tmp_path_factory.mktemp("trt")
    recording = shipped_sequence(600)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rtx, "obstacle", lambda: "left out, for speed")
        made = export_model(checkpoint, "trt-bf16@sm87", folder / "tiny.neuro", tensorrt="10.3", recording=recording)
    return made.path


@pytest.fixture
def bundle(made, tmp_path, monkeypatch):
    """A copy of it, and an empty cache."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return open_bundle(shutil.copytree(made, tmp_path / "tiny.neuro"))


HOST = Host("10.3.0.30", 87)


def keep(bundle) -> Path:
    """Puts engines where a first run would have left them."""
    folder = engines.folder_of(bundle, HOST)
    engines.save(folder, bundle, HOST, {stage: b"PLAN" + graph for stage, graph in bundle.graphs().items()})
    return folder


def opened(bundle, library=None, **options):
    library = library or Library()
    trt = options.pop("trt", None) or module(library)
    return backend.open_tensorrt(bundle, trt=trt, cuda=Cuda(library), **options), library, trt


def test_it_computes_what_the_graphs_say(bundle, capfd):
    """Event by event, in bulk, after a reset and from a snapshot: the same numbers as the graphs in ONNX Runtime."""
    events = shipped_sequence(1200).events
    wanted = stand_in(bundle.program, bundle.graphs(), "bf16").open(1.0)
    session, _, trt = opened(bundle)
    assert "building 6 engines for TensorRT 10.3.0.30 and sm_87" in capfd.readouterr().err
    assert trt.seen.settings == ["TF32"] * trt.seen.built
    for t, x, y, p in zip(*(getattr(events, name)[:600].tolist() for name in "txyp"), strict=True):
        session.push_event(t, x, y, p)
        wanted.push_event(t, x, y, p)
    for state in bundle.program.states:
        np.testing.assert_array_equal(session.state(state.name), wanted.state(state.name))
    snapshot = session.snapshot()
    session.push(events[600:])
    wanted.push(events[600:])
    np.testing.assert_array_equal(session.readout(), wanted.readout())
    after = session.readout()
    session.restore(snapshot)
    session.push(events[600:])
    np.testing.assert_array_equal(session.readout(), after)
    assert session.items == 1200
    assert np.any(after != 0)


def test_single_events_wait_for_nothing(bundle):
    session, library, _ = opened(bundle, use_chunk=False)
    events = shipped_sequence(200).events
    waits, launches = library.waits, library.launches
    for t, x, y, p in zip(*(getattr(events, name).tolist() for name in "txyp"), strict=True):
        session.push_event(t, x, y, p)
    assert library.waits == waits
    assert library.launches > launches + 200
    session.push(shipped_sequence(3 * backend.RING).events[200:])
    assert library.waits == waits + 3  # Once per turn of the ring.


def test_memory_is_given_back(bundle):
    session, library, _ = opened(bundle, use_chunk=False)
    assert library.memory
    session._executor.__del__()
    session._executor._owned, session._executor._pinned = [], 0
    assert not library.memory


def test_engines_are_built_once(bundle, capfd):
    *_, trt = opened(bundle, use_chunk=False)
    assert trt.seen.built == len(bundle.manifest["graphs"])
    capfd.readouterr()
    *_, again = opened(bundle, use_chunk=False)
    assert (again.seen.built, len(again.seen.deserialised)) == (0, trt.seen.built - 1)
    assert capfd.readouterr().err == ""
    library = Library()
    *_, newer = opened(bundle, library, trt=module(library, "10.13.2.6"), use_chunk=False)
    assert newer.seen.built == trt.seen.built, "another TensorRT has another key"


def test_the_key_holds_all_that_an_engine_depends_on(bundle):
    keys = {engines.key_of(bundle, host) for host in (HOST, Host("10.3.0.31", 87), Host("10.3.0.30", 86))}
    for changed in ("graphs", "plugins"):
        other = open_bundle(bundle.root)
        if changed == "graphs":
            path = next(iter(other.manifest["graphs"].values()))
        else:
            path = "plugins/libscan.so"
            other.manifest["target"]["plugins"] = [path]
        other.manifest["files"][path] = {"sha256": "0" * 64}
        keys.add(engines.key_of(other, HOST))
    assert len(keys) == 5
    assert engines.key_of(bundle, HOST) == engines.key_of(open_bundle(bundle.root), HOST)


def refuse(message: str, act) -> None:
    with pytest.raises(UserError, match=message) as caught:
        act()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("version", "capability", "message"),
    [
        ("11.4.1", 87, r"exported for TensorRT 10\.3 and this machine has 11\.4\.1; export it with --tensorrt 11"),
        ("10.2.0", 87, r"exported for TensorRT 10\.3 and this machine has 10\.2\.0"),
        ("10.3.0.30", 110, r"exported for sm_87 and the GPU here is sm_110; export it for trt-bf16@sm110"),
    ],
)
def test_another_machine_is_refused_before_anything_is_built(bundle, version, capability, message):
    library = Library(capability)
    trt = module(library, version)
    refuse(message, lambda: opened(bundle, library, trt=trt))
    assert (trt.seen.built, trt.seen.deserialised) == (0, [])


def test_a_gpu_that_is_too_old_is_refused(bundle):
    bundle.manifest["target"] |= {"capability": None, "least_capability": 89, "dtype": "fp8"}
    library = Library(86)
    refuse("computes in fp8, which needs sm_89 or newer, and the GPU here is sm_86", lambda: opened(bundle, library))


def test_a_missing_plugin_is_refused(bundle):
    bundle.manifest["target"]["plugins"] = ["plugins/libscan.so"]
    refuse("needs the plugin plugins/libscan.so, which it does not hold", lambda: opened(bundle))


def change(path: Path, old: bytes, new: bytes) -> None:
    data = path.read_bytes()
    assert old in data
    path.write_bytes(data.replace(old, new, 1))


@pytest.mark.parametrize(
    ("name", "old", "new", "message"),
    [
        ("00.*.plan", b"PLAN", b"PLAM", "is not the engine that was built"),
        (
            "engines.json",
            b"10.3.0.30",
            b"10.3.0.31",
            "built by TensorRT 10.3.0.31 and this machine has 10.3.0.30",
        ),
        ("engines.json", b": 87", b": 86", "built for sm_86 and the GPU here is sm_87"),
        ("engines.json", b'"key": "', b'"key": "0', "built from other graphs"),
        ("engines.json", b'"00.', b'"../00.', "is no table of engines"),
        ("engines.json", b"{", b"", "is no table of engines"),
    ],
)
def test_engines_that_do_not_fit_never_reach_tensorrt(bundle, name, old, new, message):
    change(next(keep(bundle).glob(name)), old, new)
    library = Library()
    trt = module(library)
    refuse(message, lambda: opened(bundle, library, trt=trt))
    assert (trt.seen.built, trt.seen.deserialised) == (0, [])


def test_a_changed_graph_never_reaches_tensorrt(bundle):
    path = bundle.root / next(iter(bundle.manifest["graphs"].values()))
    change(path, b"neurocompile", b"neurocompilf")
    library = Library()
    trt = module(library)
    refuse("is not the file that was exported", lambda: opened(bundle, library, trt=trt))
    assert trt.seen.built == 0


def test_engines_beside_the_bundle_come_first(bundle):
    kept = keep(bundle)
    beside = bundle.root.with_suffix(".engines")
    shutil.copytree(kept, beside)
    shutil.rmtree(kept)
    *_, trt = opened(bundle, use_chunk=False)
    assert trt.seen.built == 0
    (beside / engines.TABLE).write_text(json.dumps({}))
    refuse("is no table of engines", lambda: opened(bundle))


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        ("parse", "10.3.0.30 cannot read the graph of stage '[^']+': Invalid Node"),
        ("build", "cannot build the graph of stage '[^']+': no implementation for node"),
        ("deserialise", "refuses the engine of stage"),
    ],
)
def test_what_tensorrt_refuses_is_said_in_one_sentence(bundle, broken, message):
    library = Library()
    refuse(message, lambda: opened(bundle, library, trt=module(library, broken=broken)))
    if broken != "deserialise":
        assert not engines.folder_of(bundle, HOST).exists(), "nothing half-written"


def test_no_device_and_no_module(bundle, monkeypatch):
    refuse("no CUDA device", lambda: Cuda(Library(devices=0)))
    monkeypatch.setitem(__import__("sys").modules, "tensorrt", None)
    refuse("Python module cannot be imported here", lambda: backend.open_tensorrt(bundle))


def test_an_engine_of_another_program_is_refused(bundle):
    table = json.loads((bundle.root / MANIFEST).read_text())
    table["program"]["states"][0]["shape"] = [99]
    data = json.dumps(table).encode()
    (bundle.root / MANIFEST).write_bytes(data)
    (bundle.root / MANIFEST_HASH).write_text(hashlib.sha256(data).hexdigest())
    refuse(r"has .* as \(\d+,\), the program as \(99,\)", lambda: opened(open_bundle(bundle.root)))
