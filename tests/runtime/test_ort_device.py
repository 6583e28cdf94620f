"""`onnx-*` bundles on other providers of ONNX Runtime than the processor: real code on the processor, and stand-ins."""

from __future__ import annotations

import json

import numpy as np
import pytest

pytest.importorskip("onnxruntime")

import fake_onnxruntime as fakes
from runtime import proof, run, verify
from runtime.backends import ort_device, ort_providers
from runtime.backends.ort import OrtExecutor
from runtime.backends.ort_device import DeviceExecutor
from runtime.backends.ort_providers import LIMITS, Provider
from runtime.bench import __main__ as bench
from runtime.bundle import open_bundle
from runtime.errors import UserError
from runtime.events import Recording, write_recording
from runtime.open import open_session
from runtime.session import ScheduledSession


@pytest.fixture
def fake(monkeypatch):
    """Puts a stand-in in the place of onnxruntime."""

    def put(**settings):
        made = fakes.Fake(**settings)
        for module in (ort_providers, ort_device):
            monkeypatch.setattr(module, "ort", made)
        return made

    return put


def states(session) -> dict[str, np.ndarray]:
    return {"readout": session.readout(), **{s.name: session.state(s.name) for s in session.spec.states}}


def same(left, right) -> None:
    for (name, one), other in zip(states(left).items(), states(right).values(), strict=True):
        np.testing.assert_array_equal(one, other, err_msg=name)


def push(session, events, sizes=(1, 16, 100, 3, 57, 123)) -> None:
    begin = 0
    for size in sizes:
        session.push(events[begin : begin + size])
        begin += size


@pytest.mark.parametrize("use_chunk", [False, True])
def test_the_device_path_on_the_processor_is_the_present_path_bit_by_bit(toy_bundle, make_events, use_chunk):
    spec, graphs = toy_bundle.program, toy_bundle.graphs()
    sessions = [
        ScheduledSession(spec, executor, use_chunk=use_chunk)
        for executor in (OrtExecutor(spec, graphs), DeviceExecutor(spec, graphs, Provider("cpu")))
    ]
    events = make_events(300)
    for session in sessions:
        push(session, events)
    same(*sessions)
    snapshots = [session.snapshot() for session in sessions]
    for session in sessions:
        session.reset()
    same(*sessions)
    for session, snapshot in zip(sessions, reversed(snapshots), strict=True):
        session.restore(snapshot)
        push(session, make_events(600)[300:])
    same(*sessions)


@pytest.mark.parametrize("provider", ["cuda", "tensorrt"])
def test_no_state_comes_to_the_host_and_graphs_keep_their_buffers(toy_bundle, make_events, fake, provider):
    made = fake()
    session = open_session(toy_bundle, provider=provider, require_proof=False)
    plain = open_session(toy_bundle)
    made.sent.clear()
    events = make_events(300)
    push(session, events)
    push(plain, events)
    assert made.fetched == 0
    # What goes to the device event by event: a token, a gap, the four numbers of a state that is set back.
    assert max(made.sent) <= 16
    same(session, plain)
    providers = {name for _, names, _, _ in made.opened for name in names}
    assert providers == ({fakes.CUDA} if provider == "cuda" else {fakes.CUDA, fakes.TENSORRT})
    assert all(entries == {fakes.STRICT: "1"} for _, _, _, entries in made.opened)
    captured = {options[names[0]].get(fakes.GRAPH) for _, names, options, _ in made.opened}
    # The chunk runs as it is, TensorRT's provider has one graph per session.
    assert captured == ({"1", None} if provider == "cuda" else {None})
    assert all(options[fakes.CUDA]["use_tf32"] == "0" for _, _, options, _ in made.opened)


def test_what_was_proved_on_the_processor_waits_for_a_verification(toy_folder, make_events, fake, capsys, tmp_path):
    made = fake()
    bundle = open_bundle(toy_folder)
    with pytest.raises(UserError, match=r"not verified with cuda on this machine; run .*runtime\.verify .* --provider"):
        open_session(bundle, provider="cuda")
    assert not made.opened
    assert verify.main([str(toy_folder), "--provider", "cuda", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["provider"] == "cuda"
    assert made.opened
    assert open_session(bundle, provider="cuda").push(make_events(50))
    assert proof.verified(bundle, "cuda") and not proof.verified(bundle, "tensorrt")
    with pytest.raises(UserError, match="not verified with tensorrt"):
        open_session(bundle, provider="tensorrt")
    some = tmp_path / "some.npz"
    write_recording(some, Recording(make_events(300, 3), 8, 8))
    few = ["--events", "20", "--warmup", "5", "-i", str(some), "--json", "-"]
    assert bench.main([str(toy_folder), "--provider", "cuda", *few]) == 0
    assert json.loads(capsys.readouterr().out)["setting"]["provider"] == "cuda"


def test_wrong_numbers_on_a_provider_are_not_verified(toy_folder, fake, monkeypatch, capsys):
    made = fake()
    good = made.OrtValue.numpy
    monkeypatch.setattr(made.OrtValue, "numpy", lambda self: good(self) * np.float32(1.01))
    assert verify.main([str(toy_folder), "--provider", "cuda"]) == 1
    out = capsys.readouterr().out
    assert "FAIL" in out and "provider  cuda" in out
    assert not proof.verified(open_bundle(toy_folder), "cuda")


def test_graphs_that_cannot_be_captured_run_without_and_what_is_left_to_the_processor_is_said(
    toy_bundle, make_events, fake, capsys
):
    plain = open_session(toy_bundle)
    plain.push(make_events(100))

    made = fake(refuse=lambda names, graph, strict: "not all nodes are on the GPU" if graph else "")
    session = open_session(toy_bundle, provider="cuda", require_proof=False, use_chunk=False)
    session.push(make_events(100))
    same(session, plain)
    assert [fakes.GRAPH in options[fakes.CUDA] for _, _, options, _ in made.opened[:2]] == [True, False]
    assert capsys.readouterr().err == ""

    fake(refuse=lambda names, graph, strict: "a node has no kernel there" if strict else "")
    session = open_session(toy_bundle, provider="cuda", require_proof=False, use_chunk=False)
    session.push(make_events(100))
    same(session, plain)
    said = capsys.readouterr().err
    assert said == "onnxruntime computes parts of item, group, deep, answer on the processor\n"


def test_a_bundle_with_a_form_for_accelerators(toy, tmp_path, fake):
    graphs = {name: f"graphs/{name}.onnx" for name in toy.graphs()}
    other = {**graphs, "item": "graphs/group.onnx"}
    bundle = open_bundle(toy.write(tmp_path / "low.neuro", device_graphs=other))
    assert bundle.graphs()["item"] == toy.graphs()["item"]
    assert bundle.graphs(device=True)["item"] == toy.graphs()["group"]
    made = fake()
    with pytest.raises(RuntimeError, match="Invalid output name"):  # group's graph makes no `rate`
        open_session(bundle, provider="cuda", require_proof=False)
    assert toy.graphs()["group"] in [graph for graph, *_ in made.opened]


@pytest.mark.parametrize(
    ("settings", "provider", "words"),
    [
        ({"providers": ()}, "cuda", "has no provider for cuda (it has cpu); pip install onnxruntime-gpu"),
        ({"providers": (fakes.CUDA,)}, "tensorrt", "(it has cpu, cuda); pip install onnxruntime-gpu in its place"),
        ({"loads": False}, "cuda", "cannot load its provider for cuda here; it needs CUDA 13 and cuDNN 9"),
        ({"loads": False}, "tensorrt", "libnvinfer.so.10; 11 is not used"),
        (
            {"refuse": lambda *_: "no\nkernel"},
            "cuda",
            "stage 'chunk' on cuda, which needs CUDA 13 and cuDNN 9: no kernel",
        ),
    ],
)
def test_what_is_missing_is_said_in_one_sentence(toy_bundle, fake, settings, provider, words):
    fake(**settings)
    with pytest.raises(UserError) as caught:
        open_session(toy_bundle, provider=provider, require_proof=False)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_engines_are_kept_where_nobody_else_writes(toy_bundle, fake, own_cache):
    made = fake()
    open_session(toy_bundle, provider="tensorrt", require_proof=False)
    [folder] = (own_cache / "neurocompile" / "ort_engines").iterdir()
    assert folder.stat().st_mode & 0o777 == 0o700
    options = [options[fakes.TENSORRT] for _, _, options, _ in made.opened]
    assert {table["trt_engine_cache_path"] for table in options} == {str(folder)}
    assert len({table["trt_engine_cache_prefix"] for table in options}) == len(toy_bundle.graphs())
    folder.chmod(0o777)
    with pytest.raises(UserError, match="can be written by others"):
        open_session(toy_bundle, provider="tensorrt", require_proof=False)


def test_commands_refuse_what_is_not_there(toy, toy_folder, tmp_path, capsys):
    """The onnxruntime of this machine; where it has the provider, the bundle was not verified with it."""
    some = tmp_path / "some.npz"
    for command in (run.main, bench.main):
        assert command([str(toy_folder), "--provider", "cuda", "-i", str(some)]) == 2
        assert capsys.readouterr().err.startswith("error: ")
    table = {"name": "cpu-fp32", "backend": "cpu", "dtype": "fp32", "device": "native"}
    other = open_bundle(toy.write(tmp_path / "cpu.neuro", target=table))
    with pytest.raises(UserError, match=r"--provider is for onnx-\* bundles, and .* is one for cpu-fp32; leave it out"):
        open_session(other, provider="cuda")
    with pytest.raises(UserError, match="there is no provider 'gpu'; these exist: cpu, cuda, tensorrt"):
        open_session(other, provider="gpu")


def test_the_limits_are_stated():
    text = " ".join(LIMITS)
    for fact in ("libnvinfer.so.10", "CUDA 13", "aarch64", "operator set 26", "TensorRT 11"):
        assert fact in text
