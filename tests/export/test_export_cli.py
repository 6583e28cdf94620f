"""`neurocompile`: what it does, and how it refuses: one sentence, an exit code, and nothing written."""

from __future__ import annotations

import json
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from export import pipeline
from models.families import FAMILIES
from neurocompile import parity
from runtime.bundle import MANIFEST, open_bundle


def refused(answer, *fragments: str, code: int = 2) -> None:
    """One line that names all of `fragments`."""
    assert answer.code == code, answer
    assert answer.out == ""
    [line] = answer.err.splitlines()
    assert line.startswith("error: ")
    for fragment in fragments:
        assert fragment in line
    assert len(line) < 500


@pytest.fixture
def place(tmp_path) -> Path:
    """A folder for bundles that must stay empty."""
    folder = tmp_path / "out"
    folder.mkdir()
    yield folder
    assert list(folder.iterdir()) == []


def test_export_says_what_it_made(run, checkpoint, tmp_path, recording):
    out = tmp_path / "sub" / "made.neuro"
    answer = run("export", "--model", checkpoint, "--target", "onnx-fp32", "-o", out, "-i", recording())
    assert answer.code == 0, answer.err
    for line in (
        "bundle    ",
        "(onnx-fp32, event_ssm)",
        "stage     stage0.item",
        "every event",
        "every 4 events",
        "on request",
        "parity    proved over 2000 events",
        "sequence  given.npz",
    ):
        assert line in answer.out
    assert "prove parity" in answer.err
    opened = open_bundle(out)
    assert opened.parity["sequence"] == "given.npz"
    assert [p.name for p in out.parent.iterdir()] == ["made.neuro"]
    verified = run("verify", out)
    assert verified.code == 0
    assert "PASS" in verified.out


def test_the_whole_way_in_fresh_processes(checkpoint, tmp_path):
    """As typed: default output name, JSON that parses, and nothing else on stdout."""

    def typed(*arguments: str) -> subprocess.CompletedProcess:
        command = [sys.executable, "-m", "neurocompile", *arguments]
        return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300)

    done = typed("export", "--model", str(checkpoint), "--target", "onnx-fp32", "--json")
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout)["parity"]["status"] == "proved"
    assert [p.name for p in tmp_path.iterdir()] == ["tiny.neuro"]
    done = typed("verify", "tiny.neuro", "--json")
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout)["passed"] is True
    done = typed("export", "--model", "gone.pt", "--target", "onnx-fp32")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.splitlines()[-1].startswith("error: checkpoint gone.pt")
    assert "Traceback" not in done.stderr


def test_without_a_command_there_is_help(run):
    answer = run()
    assert answer.code == 2
    assert answer.err == ""
    assert "export" in answer.out


def test_json_of_every_command(run, checkpoint, bundle, recording, tmp_path):
    expected = {
        ("verify", bundle, "-i", recording()): {"passed": True, "target": "onnx-fp32"},
        ("info", bundle): {"kind": "bundle", "family": "event_ssm"},
        ("info", checkpoint): {"kind": "checkpoint", "family": "event_ssm"},
        ("info", recording(name="other.npz")): {"kind": "recording", "events": 2000},
        ("info", bundle / "graphs" / "stage0.item.onnx"): {"kind": "ONNX graph", "name": "stage0.item"},
    }
    for arguments, wanted in expected.items():
        answer = run(*arguments, "--json")
        assert answer.code == 0, answer
        assert answer.err == ""
        assert json.loads(answer.out).items() >= wanted.items()
    targets = json.loads(run("targets", "--json").out)
    assert targets["onnx-fp32"] == {"build": "can build", "run": "can run"}
    found = {finding["what"]: finding for finding in json.loads(run("doctor", "--json").out)}
    assert found["onnxruntime"]["found"]
    assert found["python"]["found"].startswith("3.")


def test_what_people_read(run, checkpoint, bundle):
    for arguments, words in {
        # One complex state of 4, y, two pools and the sum of 4, the duration, and a 64-bit count.
        ("info", bundle): (
            "kind",
            "bundle",
            "first_readout",
            "all hashes match",
            f"{4 * (8 + 4 + 8 + 8 + 1) + 8} bytes in 8",
        ),
        ("info", checkpoint): ("checkpoint", "event_ssm"),
        ("targets",): ("onnx-fp32", "can build", "can run"),
        ("doctor",): ("python", "onnxruntime", "ok"),
        ("--help",): ("export", "verify", "info", "targets", "doctor"),
        ("export", "--help"): ("--model", "--target", "--preset", "--roi"),
    }.items():
        answer = run(*arguments)
        assert answer.code == 0
        for word in words:
            assert word in answer.out


class Exploit:
    """A checkpoint whose opening would run code."""

    def __reduce__(self):
        return (print, ("code of the checkpoint ran",))


def damaged(kind: str, checkpoint: Path, folder: Path) -> Path:
    """A checkpoint that cannot be used."""
    path = folder / f"bad{'.safetensors' if kind in ('truncated', 'foreign') else '.pt'}"
    if kind == "truncated":
        path.write_bytes(checkpoint.read_bytes()[:-1000])
    elif kind == "foreign":
        save_file({"features.0.weight": torch.zeros(3, 3)}, path)
    elif kind == "truncated pt":
        torch.save({"state_dict": {"w": torch.zeros(1000)}}, path)
        path.write_bytes(path.read_bytes()[:-500])
    elif kind == "code":
        torch.save({"state_dict": Exploit()}, path)
    elif kind == "plain pickle":
        path.write_bytes(pickle.dumps(Exploit()))
    elif kind == "empty":
        path.write_bytes(b"")
    return path


@pytest.mark.parametrize(
    ("kind", "fragments"),
    [
        ("missing", ("bad.pt",)),
        ("truncated", ("bad.safetensors",)),
        ("truncated pt", ("bad.pt",)),
        ("empty", ("bad.pt",)),
        ("foreign", ("no known model family", "features.0.weight")),
        ("code", ("bad.pt", "trust")),
        ("plain pickle", ("bad.pt",)),
    ],
)
@pytest.mark.parametrize("command", ["export", "info"])
def test_a_bad_checkpoint(run, checkpoint, place, tmp_path, kind, fragments, command):
    bad = damaged(kind, checkpoint, tmp_path)
    if command == "export":
        refused(run("export", "--model", bad, "--target", "onnx-fp32", "-o", place / "x.neuro", "--json"), *fragments)
    elif kind != "foreign":  # What it holds can be told all the same.
        refused(run("info", bad), bad.name)


@pytest.mark.parametrize(
    ("target", "fragments"),
    [
        ("onnx", ("'onnx' is no target", "onnx-fp32")),
        ("tpu-fp32", ("is no target", "onnx-fp32")),
        ("trt-fp8", ("is not built by this version", "onnx-fp32")),
        ("onnx-fp32@jetson-orin", ("leave out '@jetson-orin'",)),
        ("", ("is no target",)),
    ],
)
def test_a_bad_target(run, checkpoint, place, target, fragments):
    refused(run("export", "--model", checkpoint, "--target", target, "-o", place / "x.neuro", "--json"), *fragments)


@pytest.mark.parametrize(
    ("arguments", "fragments"),
    [
        (("export", "--target", "onnx-fp32"), ("--model",)),
        (("export", "--model", "x.pt"), ("--target",)),
        (("export", "--model", "x.pt", "--target", "onnx-fp32", "--nonsense"), ("--nonsense",)),
        (("compile",), ("compile",)),
        (("verify",), ("bundle",)),
        (("info", "gone.bin"), ("gone.bin", "does not exist")),
        (("verify", "gone.neuro"), ("gone.neuro",)),
    ],
)
def test_bad_usage(run, arguments, fragments):
    refused(run(*arguments), *fragments)


def test_a_place_that_is_taken_or_cannot_be(run, checkpoint, tmp_path):
    taken, mine = tmp_path / "taken", tmp_path / "mine.txt"
    taken.mkdir()
    mine.write_text("mine")
    (taken / "precious.txt").write_text("mine")
    for place, words in ((taken, "is no bundle"), (mine, "is no bundle"), (mine / "x.neuro", "cannot be written")):
        refused(run("export", "--model", checkpoint, "--target", "onnx-fp32", "-o", place, "--json"), words)
    assert sorted(p.name for p in tmp_path.rglob("*")) == ["mine.txt", "precious.txt", "taken"]
    assert mine.read_text() == (taken / "precious.txt").read_text() == "mine"


@pytest.mark.parametrize(
    ("columns", "options", "fragments"),
    [
        ({"side": 128}, (), ("128 x 128", "34 x 34", "--roi", "--resize")),
        ({"count": 0}, (), ("holds no events",)),
        ({"count": 300}, (), ("has 300 events", "takes at least")),
        ({"t": np.r_[np.arange(1000), 5, np.arange(1000, 1999)]}, (), ("goes backwards at event 1000", "--sort")),
        ({"side": None, "x": np.full(2000, 40)}, (), ("event 0 at x=40", "34 x 34")),
        ({}, ("--roi", "nonsense"), ("nonsense",)),
        ({}, ("--resize", "0x0"), ("0 x 0",)),
    ],
)
@pytest.mark.parametrize("command", ["export", "verify"])
def test_a_bad_recording(run, checkpoint, bundle, place, recording, columns, options, fragments, command):
    path = recording(**columns)
    if command == "export":
        arguments = ("--model", checkpoint, "--target", "onnx-fp32", "-o", place / "x.neuro")
    elif columns.get("count") == 300:  # Enough for a comparison of steps and pushes.
        return
    else:
        arguments = (bundle,)
    refused(run(command, *arguments, "-i", path, *options, "--json"), *fragments)


@pytest.mark.parametrize("command", ["export", "verify"])
def test_a_missing_recording(run, checkpoint, bundle, place, tmp_path, command):
    arguments = (
        ("--model", checkpoint, "--target", "onnx-fp32", "-o", place / "x.neuro") if command == "export" else (bundle,)
    )
    refused(run(command, *arguments, "-i", tmp_path / "gone.npz", "--json"), "gone.npz")


def test_a_recording_is_adapted_on_request(run, bundle, recording):
    t = np.arange(2000)[::-1]
    answer = run("verify", bundle, "-i", recording(side=128, t=t), "--sort", "--resize", "34x34", "--json")
    assert answer.code == 0, answer
    assert [done["adapter"] for done in json.loads(answer.out)["recording"]["adapters"]] == ["sort_by_time", "resize"]


def test_adaptions_are_recorded_in_the_bundle(run, checkpoint, recording, tmp_path):
    out, rng = tmp_path / "x.neuro", np.random.default_rng(1)
    path = recording(side=128, x=rng.integers(3, 38, 2000), y=rng.integers(4, 37, 2000))
    command = ("export", "--model", checkpoint, "--target", "onnx-fp32", "-o", out, "-i", path)
    answer = run(*command, "--roi", "3,4,34,34", "--json")
    assert answer.code == 0, answer
    [adapter] = open_bundle(out).parity["adapters"]
    assert adapter["adapter"] == "roi"
    assert adapter["dropped"] > 0
    assert open_bundle(out).parity["events"] == 2000 - adapter["dropped"]


def test_every_changed_byte_is_found(run, bundle):
    """In each file of the bundle, one after the other."""
    names = sorted(str(p.relative_to(bundle)) for p in bundle.rglob("*") if p.is_file())
    assert len(names) == 2 + len(open_bundle(bundle).manifest["files"])
    for name in names:
        path = bundle / name
        data = path.read_bytes()
        path.write_bytes(data[: len(data) // 2] + bytes([data[len(data) // 2] ^ 1]) + data[len(data) // 2 + 1 :])
        answer = run("verify", bundle)
        assert answer.code in (1, 2), name
        said = answer.err if answer.code == 2 else next(line for line in answer.out.splitlines() if "FAIL" in line)
        assert len(answer.err.splitlines()) == (answer.code == 2)
        assert "SHA-256 differs" in said
        assert (MANIFEST if name.startswith("manifest") else name) in said
        refused(run("info", bundle), "SHA-256 differs")
        path.write_bytes(data)
    assert run("verify", bundle).code == 0


def test_a_missing_file_of_a_bundle(run, bundle):
    (bundle / "graphs" / "head.onnx").unlink()
    refused(run("info", bundle), "head.onnx", "cannot be read")
    assert run("verify", bundle).code != 0


def test_a_failed_parity_leaves_no_bundle(run, checkpoint, place, monkeypatch):
    monkeypatch.setitem(parity.BOUNDS, "fp32", 1e-12)
    monkeypatch.setattr(parity, "SLACK", 0.0)
    answer = run("export", "--model", checkpoint, "--target", "onnx-fp32", "-o", place / "x.neuro", "--json")
    refused(answer, "parity failed (step)", "deviates by", "events", code=1)


@pytest.mark.parametrize("error", [KeyboardInterrupt, None])
def test_an_interruption_keeps_the_older_bundle(run, checkpoint, bundle, monkeypatch, error):
    before = {p: p.read_bytes() for p in bundle.rglob("*") if p.is_file()}
    if error:

        def interrupted(*arguments, **keywords):
            raise error

        monkeypatch.setattr(pipeline, "prove", interrupted)
    else:
        monkeypatch.setitem(parity.BOUNDS, "fp32", 1e-12)
        monkeypatch.setattr(parity, "SLACK", 0.0)
    answer = run("export", "--model", checkpoint, "--target", "onnx-fp32", "-o", bundle, "--json")
    assert answer.code == (130 if error else 1)
    assert answer.err == "interrupted\n" if error else answer.err.startswith("error: parity failed")
    assert {p: p.read_bytes() for p in bundle.rglob("*") if p.is_file()} == before
    assert [p.name for p in bundle.parent.iterdir()] == ["copy.neuro"]


def test_an_older_bundle_is_replaced(run, checkpoint, bundle):
    (bundle / "graphs" / "head.onnx").write_bytes(b"")
    answer = run("export", "--model", checkpoint, "--target", "onnx-fp32", "-o", bundle, "--json")
    assert answer.code == 0
    assert answer.err == ""
    open_bundle(bundle).verify_files()
    assert [p.name for p in bundle.parent.iterdir()] == ["copy.neuro"]


def test_a_model_without_an_event_by_event_form(run, checkpoint, place, monkeypatch):
    class Sealed(torch.nn.Module):
        """A network that only knows whole recordings."""

    def opened(*arguments, **keywords):
        found = original(*arguments, **keywords)
        found.model = Sealed()
        return found

    original = pipeline.open_checkpoint
    monkeypatch.setattr(pipeline, "open_checkpoint", opened)
    assert set(FAMILIES) >= {"event_ssm"}
    answer = run("export", "--model", checkpoint, "--target", "onnx-fp32", "-o", place / "x.neuro", "--json")
    refused(answer, "family event_ssm", "no event-by-event form", "tiny.safetensors")
