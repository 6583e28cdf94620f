from __future__ import annotations

import json
import sys

import pytest

from runtime import machine, proof
from runtime import open as opening
from runtime.bundle import open_bundle
from runtime.errors import UserError
from runtime.open import open_session, shipped_bundle

pytest.importorskip("onnxruntime")


@pytest.fixture
def unproved(toy, tmp_path):
    return open_bundle(toy.write(tmp_path / "unproved.neuro", parity={"status": "proxy", "reason": "run on a CPU"}))


def bundle_with(toy, tmp_path, **target):
    table = {"name": "t", "backend": "onnx", "dtype": "fp32", "device": "native", **target}
    return open_bundle(toy.write(tmp_path / "other.neuro", target=table))


def test_a_proved_bundle_opens(toy_bundle, make_events):
    session = open_session(toy_bundle)
    assert session.push(make_events(50)) == session.items
    assert session.readout().shape == (3,)


def test_an_unproved_bundle_waits_for_a_verification(unproved, own_cache):
    with pytest.raises(UserError, match=r"proxy, run on a CPU.*runtime\.verify"):
        open_session(unproved)
    open_session(unproved, require_proof=False)
    proof.remember(unproved, False)
    with pytest.raises(UserError, match="not proved"):
        open_session(unproved)
    proof.remember(unproved, True)
    open_session(unproved)
    (record,) = own_cache.rglob("*.json")
    assert json.loads(record.read_text())["passed"] is True


def test_a_verification_counts_for_one_machine_and_one_bundle(unproved, toy, tmp_path, monkeypatch):
    proof.remember(unproved, True)
    other = open_bundle(toy.write(tmp_path / "other.neuro", name="other", parity={"status": "proxy"}))
    assert proof.verified(unproved) and not proof.verified(other)
    monkeypatch.setattr(machine, "versions", lambda: {"onnxruntime": "0.0"})
    assert not proof.verified(unproved)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"passed": 1}', b"\xff"])
def test_a_damaged_record_is_no_proof(unproved, own_cache, content):
    proof.remember(unproved, True)
    (record,) = own_cache.rglob("*.json")
    record.write_bytes(content)
    assert not proof.verified(unproved)


def test_a_cache_that_cannot_be_written_is_no_error(unproved, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    proof.remember(unproved, True)
    assert not proof.verified(unproved)


@pytest.mark.parametrize(
    ("target", "says"),
    [
        ({"backend": "abacus"}, "needs backend 'abacus'"),
        ({"device": "aarch64"}, "built for aarch64"),
        ({"device": "jetson-orin"}, "built for jetson-orin"),
    ],
)
def test_a_target_that_cannot_run_here(toy, tmp_path, monkeypatch, target, says):
    monkeypatch.setattr(machine.platform, "machine", lambda: "x86_64")
    with pytest.raises(UserError, match=says):
        open_session(bundle_with(toy, tmp_path, **target))


def test_options_that_make_no_sense(toy_bundle):
    with pytest.raises(UserError, match="cannot run on 'cpu'"):
        open_session(toy_bundle, backend="cpu")
    with pytest.raises(UserError, match="0 threads"):
        open_session(toy_bundle, threads=0)
    for tick in (0.0, -1.0, float("inf"), float("nan")):
        with pytest.raises(UserError, match="tick"):
            open_session(toy_bundle, tick_us=tick)


def test_without_onnxruntime_there_is_a_hint(toy_bundle, monkeypatch):
    monkeypatch.delitem(sys.modules, "runtime.backends.ort", raising=False)
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(UserError, match="pip install onnxruntime"):
        open_session(toy_bundle)


def test_the_shipped_bundle(tmp_path, monkeypatch):
    monkeypatch.setattr(opening, "SHIPPED", tmp_path / "none.neuro")
    with pytest.raises(UserError, match="without the shipped model"):
        shipped_bundle()
    (tmp_path / "none.neuro").mkdir()
    assert shipped_bundle() == tmp_path / "none.neuro"


@pytest.mark.parametrize(
    ("device", "features", "says"),
    [
        ("native", set(), None),
        ("sm90", set(), None),
        ("x86-64-v2", machine.LEVELS["x86-64-v2"], None),
        ("x86-64-v3", machine.LEVELS["x86-64-v4"], None),
        ("x86-64-v4", machine.LEVELS["x86-64-v3"], "lacks avx512bw, avx512cd"),
        ("x86-64-v3", machine.LEVELS["x86-64-v3"] - {"fma"}, "lacks fma"),
        ("x86-64-v3", set(), None),  # A system that does not list its features gets the benefit of the doubt.
    ],
)
def test_processor_levels(monkeypatch, device, features, says):
    monkeypatch.setattr(machine.platform, "machine", lambda: "x86_64")
    reason = machine.obstacle(device, frozenset(features))
    assert (reason is None) if says is None else says in reason


@pytest.mark.parametrize(
    ("here", "target", "says"),
    [
        ("x86_64", {"device": "native"}, None),
        ("x86_64", {"device": "native", "architecture": "x86_64", "features": ["avx2"]}, None),
        ("AMD64", {"device": "native", "architecture": "x86_64"}, None),
        ("arm64", {"device": "native", "architecture": "aarch64"}, None),
        (
            "x86_64",
            {"device": "jetson-orin", "architecture": "aarch64", "features": ["asimddp"]},
            r"built for jetson-orin \(aarch64\), and this is an x86_64 machine \(Abacus 3\)",
        ),
        (
            "aarch64",
            {"device": "native", "architecture": "x86_64"},
            "built for x86_64 processors like the one that built it, and this is an aarch64 machine",
        ),
        ("riscv64", {"device": "aarch64"}, "and this is a riscv64 machine"),
        (
            "x86_64",
            {"device": "native", "architecture": "x86_64", "features": ["avx2", "avx512_vnni", "avx512f"]},
            r"this processor \(Abacus 3\) lacks avx512_vnni, avx512f",
        ),
        ("x86_64", {"device": "native", "architecture": "x86_64", "system": "Plan9"}, "under Plan9, and this machine"),
    ],
)
def test_what_the_manifest_wants_of_the_machine(toy, tmp_path, monkeypatch, here, target, says):
    monkeypatch.setattr(machine.platform, "machine", lambda: here)
    monkeypatch.setattr(machine, "cpu_model", lambda: "Abacus 3")
    monkeypatch.setattr(machine, "cpu_features", lambda: frozenset({"avx2", "fma"}))
    bundle = bundle_with(toy, tmp_path, **target)
    if says is None:
        assert open_session(bundle).items == 0
    else:
        with pytest.raises(UserError, match=says) as caught:
            open_session(bundle)
        assert "\n" not in str(caught.value)


def test_the_machine_describes_itself():
    found = machine.describe()
    assert found["cpu"] and found["versions"]["numpy"]
    json.dumps(found)


def test_cache_folders(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert machine.cache_folder() == tmp_path / "neurocompile"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert machine.cache_folder().name == "neurocompile"


def test_a_session_without_chunks_does_not_load_the_chunk(toy, tmp_path, make_events):
    other = type("OtherToy", (type(toy),), {"graphs": lambda self: {**toy.graphs(), "chunk": b"no graph"}})(toy.dt)
    bundle = open_bundle(other.write(tmp_path / "other.neuro"))
    with pytest.raises(UserError, match="stage 'chunk'"):
        open_session(bundle)
    assert open_session(bundle, use_chunk=False).push(make_events(50)) >= 49
