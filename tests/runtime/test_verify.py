from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from runtime import proof, verify
from runtime.bundle import TRACE, open_bundle
from runtime.checks import bound
from runtime.errors import GateError, UserError
from runtime.events import Recording, write_recording

pytest.importorskip("onnxruntime")


@pytest.fixture
def recording(make_events, tmp_path):
    path = tmp_path / "some.npz"
    write_recording(path, Recording(make_events(400, 7), 8, 8))
    return path


def spoiled(toy, make_events, change):
    """The toy's trace with one number changed."""
    trace = toy.trace(make_events(200))
    readouts, states = trace.readouts.copy(), {name: values.copy() for name, values in trace.states.items()}
    change(readouts, states)
    return replace(trace, readouts=readouts, states=states)


def test_a_right_bundle_passes_and_is_remembered(toy, tmp_path, capsys):
    folder = toy.write(tmp_path / "toy.neuro", parity={"status": "not run: no device"})
    assert verify.main([str(folder)]) == 0
    out = capsys.readouterr().out
    assert "PASS" in out and "FAIL" not in out and "event by event" in out
    assert proof.verified(open_bundle(folder))


def test_json_is_all_that_is_printed(toy_folder, recording, capsys):
    assert verify.main([str(toy_folder), "-i", str(recording), "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["passed"] and len(report["checks"]) == 6
    assert report["recording"]["events"] == 400
    assert all(check["figures"].get("worst_relative", 0) < 1e-5 for check in report["checks"])


@pytest.mark.parametrize(
    ("change", "tensor", "mark"),
    [
        (lambda r, s: r.__setitem__((2, 1), r[2, 1] + 1), "readout", 17),
        (lambda r, s: s["deep"].__setitem__((3, 0), 7), "deep", 200),
        (lambda r, s: s["v"].__setitem__((1, 2), 7), "v", 2),
    ],
)
def test_a_wrong_trace_fails_with_the_first_divergence(toy, tmp_path, make_events, capsys, change, tensor, mark):
    folder = toy.write(tmp_path / "toy.neuro", trace=spoiled(toy, make_events, change))
    assert verify.main([str(folder), "--json"]) == 1
    report = json.loads(capsys.readouterr().out)
    assert not report["passed"]
    failed = [check for check in report["checks"] if not check["passed"]]
    assert len(failed) == 2  # Event by event and in bulk; what a session says of itself still holds.
    for check in failed:
        assert check["figures"]["first_divergence"]["tensor"] == tensor
        assert check["figures"]["first_divergence"]["mark"] == mark
    assert not proof.verified(open_bundle(folder))
    assert verify.main([str(folder)]) == 1
    assert f"after {mark} events in {tensor}" in capsys.readouterr().out
    with pytest.raises(GateError, match="event by event"):
        verify.gate(open_bundle(folder))


def toy_with(toy, graphs=None, **constants):
    """The toy with other constants or graphs than its simulation knows of."""
    values = {**toy.constants, **{name: np.float32(value) for name, value in constants.items()}}
    members = {"constants": property(lambda self: values)} if constants else {"graphs": lambda self: graphs}
    return type("OtherToy", (type(toy),), members)(toy.dt)


@pytest.mark.parametrize("constants", [{"tau": 4.9}, {"half": 0.5001}, {"tenth": np.nan}])
def test_a_wrong_graph_fails(toy, tmp_path, make_events, capsys, constants):
    folder = toy_with(toy, **constants).write(tmp_path / "toy.neuro", trace=toy.trace(make_events(200)))
    assert verify.main([str(folder)]) == 1
    assert "first divergence" in capsys.readouterr().out


def test_a_chunk_that_disagrees_with_the_steps_fails(toy, tmp_path, capsys):
    chunk = toy_with(toy, half=0.51).graphs()["chunk"]
    folder = toy_with(toy, {**toy.graphs(), "chunk": chunk}).write(tmp_path / "toy.neuro")
    assert verify.main([str(folder), "--json"]) == 1
    checks = json.loads(capsys.readouterr().out)["checks"]
    assert [check["passed"] for check in checks] == [True, True, False, False, True]


def test_a_changed_file_fails_before_it_is_parsed(toy, tmp_path, capsys):
    folder = toy.write(tmp_path / "toy.neuro")
    path = folder / TRACE
    path.write_bytes(path.read_bytes() + b" ")
    assert verify.main([str(folder)]) == 1
    out = capsys.readouterr().out
    assert "SHA-256" in out and "event by event" not in out


def test_input_that_cannot_be_used(tmp_path, toy_folder, recording, capsys):
    assert verify.main([str(tmp_path / "none.neuro")]) == 2
    assert capsys.readouterr().err.startswith("error: ")
    assert verify.main([str(toy_folder), "-i", str(tmp_path / "none.npz")]) == 2
    assert verify.main([str(toy_folder), "-i", str(recording), "--roi", "0,0,4,4"]) == 2
    assert "--resize" in capsys.readouterr().err
    assert verify.main([str(toy_folder), "-i", str(recording), "--roi", "0,0,4,4", "--resize", "8x8"]) == 0


@pytest.mark.parametrize(
    ("stated", "found"), [(1e-3, 1e-3), ({"relative": 2e-3}, 2e-3), (None, 1e-4), (float("nan"), None), ("1", None)]
)
def test_bounds(toy, tmp_path, stated, found):
    bundle = open_bundle(toy.write(tmp_path / "toy.neuro", parity={"status": "proved", "bound": stated}))
    if found is None:
        with pytest.raises(UserError, match="no usable bound"):
            bound(bundle)
    else:
        assert bound(bundle) == found


def test_a_precision_without_a_fixed_bound_must_state_one(toy, tmp_path):
    target = {"name": "onnx-bf16", "backend": "onnx", "dtype": "bf16"}
    with pytest.raises(UserError, match="bf16"):
        bound(open_bundle(toy.write(tmp_path / "toy.neuro", target=target, parity={"status": "proved"})))
