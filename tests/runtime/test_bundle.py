from __future__ import annotations

import hashlib
import json
import shutil

import pytest

from runtime.bundle import MANIFEST, MANIFEST_HASH, TRACE, Bundle, open_bundle
from runtime.errors import UserError
from runtime.trace import Trace


@pytest.fixture
def copy(toy_folder, tmp_path):
    """A copy of the toy's bundle to spoil."""
    return shutil.copytree(toy_folder, tmp_path / "copy.neuro")


def read_everything(folder) -> Bundle:
    bundle = open_bundle(folder)
    bundle.verify_files()
    return bundle


def names_of(folder) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def rewrite(folder, change) -> None:
    """Changes the manifest and signs it again, as an attacker or another version would."""
    manifest = json.loads((folder / MANIFEST).read_text())
    change(manifest)
    data = json.dumps(manifest).encode()
    (folder / MANIFEST).write_bytes(data)
    (folder / MANIFEST_HASH).write_text(hashlib.sha256(data).hexdigest())


def test_an_untouched_bundle_opens(copy, toy):
    bundle = read_everything(copy)
    assert (bundle.name, bundle.target, bundle.parity["status"]) == ("toy", "onnx-fp32", "proved")
    assert bundle.program == toy.spec
    assert bundle.graphs() == toy.graphs()
    trace = Trace.from_bytes(bundle.read(TRACE))
    assert trace.marks.tolist() == [1, 2, 17, 200]


def test_every_changed_byte_is_refused(copy):
    for name in names_of(copy):
        path = copy / name
        data = path.read_bytes()
        hashed = len(hashlib.sha256().hexdigest()) if name == MANIFEST_HASH else len(data)
        for at in {0, 1, hashed // 3, hashed // 2, hashed - 1}:
            path.write_bytes(data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :])
            with pytest.raises(UserError, match="SHA-256"):
                read_everything(copy)
        path.write_bytes(data)
    read_everything(copy)


@pytest.mark.parametrize("change", ["cut", "longer", "empty"])
def test_every_cut_or_longer_file_is_refused(copy, change):
    for name in names_of(copy):
        if name == MANIFEST_HASH and change == "longer":
            continue
        path = copy / name
        data = path.read_bytes()
        path.write_bytes({"cut": data[: len(data) // 2], "longer": data + b"\0", "empty": b""}[change])
        with pytest.raises(UserError, match="SHA-256"):
            read_everything(copy)
        path.write_bytes(data)


def test_every_missing_file_is_named(copy):
    for name in names_of(copy):
        (copy / name).rename(copy.parent / "away")
        with pytest.raises(UserError) as caught:
            read_everything(copy)
        assert name in str(caught.value)
        (copy.parent / "away").rename(copy / name)


def test_a_folder_in_place_of_a_file(copy):
    (copy / TRACE).unlink()
    (copy / TRACE).mkdir()
    with pytest.raises(UserError, match=TRACE):
        read_everything(copy)


def test_what_is_no_bundle(tmp_path):
    with pytest.raises(UserError, match="not a bundle folder"):
        open_bundle(tmp_path / "nothing.neuro")
    with pytest.raises(UserError, match="not a complete bundle"):
        open_bundle(tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="not a bundle folder"):
        open_bundle(tmp_path / "file")


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda m: m.update(schema=99), "schema 99"),
        (lambda m: m.pop("schema"), "no manifest"),
        (lambda m: m["program"].pop("stages"), "malformed"),
        (lambda m: m["program"]["stages"][0].update(surprise=1, trigger={}), None),
        (lambda m: m["program"].update(states=[{"name": 3}]), "malformed"),
        (lambda m: m["program"]["stages"][0].update(reads=["none"]), "malformed"),
        (lambda m: m["program"]["stages"].pop(), "malformed"),
        (lambda m: m.update(program=[]), "no usable 'program'"),
        (lambda m: m.pop("parity"), "no usable 'parity'"),
        (lambda m: m.pop("graphs"), "no usable 'graphs'"),
        (lambda m: m["target"].pop("backend"), "for which target"),
        (lambda m: m["files"].update(x={}), "no SHA-256 for 'x'"),
        (lambda m: m["files"].update({"../x": {"sha256": "0"}}), "outside the bundle"),
        (lambda m: m["files"].update({"/etc/hosts": {"sha256": "0"}}), "outside the bundle"),
    ],
)
def test_a_manifest_of_another_kind(copy, change, says):
    rewrite(copy, change)
    if says:
        with pytest.raises(UserError, match=says):
            open_bundle(copy)
    else:
        open_bundle(copy)  # Keys that this version does not know do not matter.


def test_a_file_that_the_manifest_does_not_list(copy):
    rewrite(copy, lambda m: m["files"].pop(TRACE))
    with pytest.raises(UserError, match="does not list"):
        open_bundle(copy).read(TRACE)


def test_a_damaged_trace_with_a_right_hash():
    with pytest.raises(UserError, match="golden trace"):
        Trace.from_bytes(b"PK\x03\x04 nothing")
