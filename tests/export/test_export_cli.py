"""`neurocompile`: what it does, and how it refuses: one sentence, an exit code, and nothing written."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np

from runtime.bundle import MANIFEST, open_bundle


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


def test_a_recording_is_adapted_on_request(run, bundle, recording):
    t = np.arange(2000)[::-1]
    answer = run("verify", bundle, "-i", recording(side=128, t=t), "--sort", "--resize", "34x34", "--json")
    assert answer.code == 0, answer
    assert [done["adapter"] for done in json.loads(answer.out)["recording"]["adapters"]] == ["sort_by_time", "resize"]


def test_what_a_file_does_not_say_can_be_said(run, checkpoint, bundle, recording, tmp_path):
    """Errors advise --size, --tick-us and --format, so every command that reads recordings takes them."""
    rng, path = np.random.default_rng(0), tmp_path / "plain.npz"
    x, y, p = (rng.integers(0, high, 2000) for high in (128, 128, 2))
    np.savez(path, t=np.arange(2000) * 90, x=x, y=y, p=p)
    cut = ("-i", path, "--resize", "34x34")
    for command in (
        ("verify", bundle),
        ("export", "--model", checkpoint, "--target", "onnx-fp32", "-o", tmp_path / "x.neuro"),
    ):
        refused = run(*command, *cut)
        assert refused.code == 2 and "add --size WxH" in refused.err
        answer = run(*command, *cut, "--size", "128x128", "--tick-us", "2", "--format", "npz")
        assert answer.code == 0, answer
    assert open_bundle(tmp_path / "x.neuro").parity["adapters"][0]["adapter"] == "resize"


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


def test_every_changed_byte_is_found(run, refused, bundle):
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


def test_a_missing_file_of_a_bundle(run, refused, bundle):
    (bundle / "graphs" / "head.onnx").unlink()
    refused(run("info", bundle), "head.onnx", "cannot be read")
    assert run("verify", bundle).code != 0


def test_an_older_bundle_is_replaced(run, checkpoint, bundle):
    (bundle / "graphs" / "head.onnx").write_bytes(b"")
    answer = run("export", "--model", checkpoint, "--target", "onnx-fp32", "-o", bundle, "--json")
    assert answer.code == 0
    assert answer.err == ""
    open_bundle(bundle).verify_files()
    assert [p.name for p in bundle.parent.iterdir()] == ["copy.neuro"]
