"""Writing bundles: complete or not at all, whatever goes wrong and whenever; the manifest keeps its promises."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import stat
from pathlib import Path

import pytest

from export import bundle as writer
from export.bundle import staging
from runtime.bundle import MANIFEST, MANIFEST_HASH, TRACE, open_bundle
from runtime.errors import UserError


def fill(stage: writer.Staging, content: bytes = b"one") -> None:
    stage.add({"graphs/a.onnx": content})
    stage.write_manifest({"name": "x"})


def files(folder: Path) -> dict[str, bytes]:
    """Every file below a folder, hidden ones included."""
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_a_bundle_appears_complete(tmp_path):
    place = tmp_path / "new" / "folder" / "x.neuro"
    with staging(place) as stage:
        fill(stage)
        assert not place.exists()
        assert not place.parent.exists()
    assert set(files(place)) == {"graphs/a.onnx", MANIFEST, MANIFEST_HASH}
    manifest = (place / MANIFEST).read_bytes()
    assert (place / MANIFEST_HASH).read_text().split() == [hashlib.sha256(manifest).hexdigest(), MANIFEST]
    assert json.loads(manifest)["files"] == {
        "graphs/a.onnx": {"sha256": hashlib.sha256(b"one").hexdigest(), "bytes": 3}
    }
    assert stat.S_IMODE(place.stat().st_mode) == 0o755
    assert [p.name for p in tmp_path.iterdir()] == ["new"]


def test_an_older_bundle_is_replaced(tmp_path):
    place = tmp_path / "x.neuro"
    for content in (b"one", b"two"):
        with staging(place) as stage:
            fill(stage, content)
            stage.add({f"only_{content.decode()}": b""})
            stage.write_manifest({"name": "x"})
            if content == b"two":
                assert (place / "graphs/a.onnx").read_bytes() == b"one"
    assert (place / "graphs/a.onnx").read_bytes() == b"two"
    assert not (place / "only_one").exists()
    assert [p.name for p in tmp_path.iterdir()] == ["x.neuro"]


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt, SystemExit, UserError])
@pytest.mark.parametrize("older", [False, True])
def test_an_error_in_between_leaves_everything_as_it_was(tmp_path, error, older):
    place = tmp_path / "deep" / "x.neuro"
    if older:
        with staging(place) as stage:
            fill(stage)
    before = files(tmp_path)
    with pytest.raises(error), staging(place) as stage:
        fill(stage, b"two")
        raise error("in between")
    assert files(tmp_path) == before
    assert place.parent.exists() == older
    assert not list(tmp_path.rglob(".*"))


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "No space left on device"), KeyboardInterrupt()])
def test_an_older_bundle_survives_a_failure_at_the_last_step(tmp_path, monkeypatch, error):
    place = tmp_path / "x.neuro"
    with staging(place) as stage:
        fill(stage)
    before, rename, calls = files(tmp_path), os.rename, []

    def failing(source, target):
        calls.append(target)
        if len(calls) == 2:  # The old one is aside, the new one not yet in place.
            raise error
        rename(source, target)

    monkeypatch.setattr(writer.os, "rename", failing)
    with pytest.raises((UserError, KeyboardInterrupt)), staging(place) as stage:
        fill(stage, b"two")
    assert len(calls) == 3
    assert files(tmp_path) == before
    assert [p.name for p in tmp_path.iterdir()] == ["x.neuro"]


def test_a_full_disk_is_one_sentence(tmp_path, monkeypatch):
    def full(self, data):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with (
        pytest.raises(UserError, match="cannot be written .No space left on device.") as caught,
        staging(tmp_path / "x.neuro") as stage,
    ):
        fill(stage)
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_an_error_of_reading_is_not_blamed_on_the_destination(tmp_path):
    """Whatever happens inside the block keeps its own name."""
    with pytest.raises(FileNotFoundError), staging(tmp_path / "x.neuro"):
        (tmp_path / "gone").read_bytes()


@pytest.mark.parametrize("kind", ["file", "folder", "empty folder"])
def test_what_is_no_bundle_is_not_touched(tmp_path, kind):
    place = tmp_path / "x.neuro"
    if kind == "file":
        place.write_text("mine")
    else:
        place.mkdir()
        if kind == "folder":
            (place / "mine.txt").write_text("mine")
    before = files(tmp_path)
    with pytest.raises(UserError, match="exists and is no bundle; choose another name with -o"), staging(place):
        pytest.fail("entered")
    assert files(tmp_path) == before
    assert place.exists()


def test_a_place_below_a_file(tmp_path):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(UserError, match="cannot be written"), staging(tmp_path / "file" / "x.neuro"):
        pytest.fail("entered")
    assert files(tmp_path) == {"file": b"mine"}


def test_a_forbidden_folder(tmp_path, monkeypatch):
    """Permissions mean nothing to root, so the refusal is acted."""

    def forbidden(**_):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(writer.tempfile, "mkdtemp", forbidden)
    with pytest.raises(UserError, match="cannot be written .Permission denied"), staging(tmp_path / "x.neuro"):
        pytest.fail("entered")


def test_the_manifest_of_an_export(exported, checkpoint):
    result, folder = exported
    opened = open_bundle(result.path)
    opened.verify_files()
    manifest = opened.manifest
    assert set(files(result.path)) == {MANIFEST, MANIFEST_HASH, *manifest["files"]}
    assert {TRACE, *manifest["graphs"].values()} == set(manifest["files"])
    assert manifest["name"] == "tiny"
    assert manifest["target"] == {"name": "onnx-fp32", "backend": "onnx", "dtype": "fp32", "device": "native"}
    assert manifest["model"]["source"] == "tiny.safetensors"
    assert manifest["model"]["source_sha256"] == hashlib.sha256(checkpoint.read_bytes()).hexdigest()
    assert manifest["model"]["config"]["pooling_stride"] == 4
    assert manifest["program"]["front_end"]["dt"] == "previous"
    assert manifest["parity"]["status"] == "proved"
    assert manifest["parity"]["events"] == 4000
    assert manifest["created_by"]["onnxruntime"]
    assert any(change.startswith("tabulate [stage0.item] token in [0, 2312)") for change in manifest["passes"])
    assert (
        set(manifest["build"]["stages"])
        == set(manifest["graphs"])
        == {stage.name for stage in opened.program.stages} | {"chunk"}
    )
    assert [p.name for p in folder.iterdir()] == ["tiny.neuro"]


def test_no_folder_of_this_machine_is_in_the_bundle(exported, checkpoint):
    for name, data in files(exported[0].path).items():
        for place in (
            str(checkpoint.parent),
            str(exported[1]),
            str(Path(writer.__file__).parents[1]),
            os.path.expanduser("~/"),
        ):
            assert place.encode() not in data, name
