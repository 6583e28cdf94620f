"""No file gets to run code unasked; damaged array stores are refused."""

from __future__ import annotations

import os
import pickle
import shutil
import sys
from pathlib import Path

import msgpack
import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from models.checkpoint import describe_checkpoint, open_checkpoint
from models.families import FAMILIES
from runtime.errors import UserError

SHD = "event_ssm_shd_tiny_ckpt"


def array(shape: list[int], dtype: str, data: bytes, code: int = 1) -> msgpack.ExtType:
    return msgpack.ExtType(code, msgpack.packb([shape, dtype, data]))


# TensorStore


def test_ocdbt_needs_tensorstore(golden, monkeypatch, refusal):
    monkeypatch.setitem(sys.modules, "tensorstore", None)
    refusal(golden.folder / f"{SHD}_ocdbt", "needs the package tensorstore", "pip install 'neurocompile[flax]'")


def test_flax_needs_msgpack(golden, monkeypatch, refusal):
    monkeypatch.setitem(sys.modules, "msgpack", None)
    refusal(golden.folder / SHD, "needs the package msgpack", "pip install 'neurocompile[compile]'")


def test_damaged_ocdbt(golden, tmp_path, refusal):
    pytest.importorskip("tensorstore")
    source = golden.folder / f"{SHD}_ocdbt" / "checkpoint_0"
    copy = tmp_path / "checkpoint_0"

    def fresh() -> None:
        shutil.rmtree(copy, ignore_errors=True)
        shutil.copytree(source, copy, copy_function=shutil.copyfile)
        for folder in (copy, *copy.rglob("*")):
            folder.chmod(0o755)

    fresh()
    manifest = (copy / "manifest.ocdbt").read_bytes()
    for end in (0, 1, len(manifest) // 2, len(manifest) - 1):
        (copy / "manifest.ocdbt").write_bytes(manifest[:end])
        refusal(tmp_path, "is damaged or incomplete")
    hurt = 0
    for data in sorted(source.rglob("d/*")):
        for content in (None, b"", data.read_bytes()[: data.stat().st_size // 2]):
            fresh()
            victim = copy / data.relative_to(source)
            victim.unlink() if content is None else victim.write_bytes(content)
            try:
                open_checkpoint(copy)  # The file may belong to the optimiser alone.
            except UserError as error:
                assert "is damaged or incomplete" in str(error) and "\n" not in str(error)
                hurt += 1
    assert hurt


def test_ocdbt_chunks_that_are_missing_are_not_zeros(tmp_path, refusal):
    tensorstore = pytest.importorskip("tensorstore")
    entry = tmp_path / "checkpoint_1"
    entry.mkdir()
    kvstore = {"driver": "ocdbt", "base": entry.as_uri() + "/", "path": "params.decoder.bias/"}
    spec = {"driver": "zarr", "kvstore": kvstore, "metadata": {"shape": [4], "dtype": "<f4", "chunks": [2]}}
    tensorstore.open(spec, create=True).result()[:2].write(np.ones(2, np.float32)).result()
    refusal(tmp_path, "is damaged or incomplete")


# Pickles


class Payload:
    """Writes a file when unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple:
        return Path.touch, (self.mark,)


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("protocol", [2, 4])
def test_a_pickle_runs_nothing_without_the_flag(tmp_path, state, zipped, protocol, refusal):
    path, mark = tmp_path / "m.pt", tmp_path / "ran"
    table = {"state_dict": state, "x": Payload(mark)}
    torch.save(table, path, pickle_protocol=protocol, _use_new_zipfile_serialization=zipped)
    refusal(path, "is a pickle that needs to run code", "--trust-pickle")
    with pytest.raises(UserError, match="--trust-pickle"):
        describe_checkpoint(path)
    assert not mark.exists()
    assert open_checkpoint(path, trust_pickle=True).family == "event_ssm"
    assert mark.exists()


def test_dangerous_modules_and_plain_pickles_run_nothing(tmp_path, refusal):
    class Shell:
        def __reduce__(self) -> tuple:
            return os.system, (f"touch {tmp_path / 'ran'}",)

    torch.save({"x": Shell()}, tmp_path / "m.pt")
    refusal(tmp_path / "m.pt", "needs to run code", "system", "--trust-pickle")
    for protocol in (2, 3, 4, 5):
        (tmp_path / "m.pkl").write_bytes(pickle.dumps({"x": Shell()}, protocol))
        refusal(tmp_path / "m.pkl")
    assert not (tmp_path / "ran").exists()


def test_whole_modules_open_only_with_trust(golden, tmp_path, refusal):
    model = open_checkpoint(golden.folder / SHD).model
    for table in (model, {"model": model, "epoch": 3}):
        torch.save(table, tmp_path / "m.pt")
        refusal(tmp_path / "m.pt", "models.event_ssm.network.EventSSM", "--trust-pickle")
        assert open_checkpoint(tmp_path / "m.pt", trust_pickle=True).config.d_model == 16


@pytest.mark.parametrize(
    ("table", "words"),
    [
        ([1, 2], "holds a list, not a dictionary of tensors"),
        (torch.ones(2), "holds a Tensor"),
        ({}, "holds no tensors (its keys: nothing)"),
        ({"epoch": 3, "lr": 0.1}, "holds no tensors (its keys: epoch, lr)"),
        ({"state_dict": {}}, "holds no tensors"),
        ({"state_dict": {"a.weight": torch.ones(2), "b.weight": torch.ones(2)}}, "tensors are a.weight, b.weight"),
        ({f"w{n}": torch.ones(1) for n in range(9)}, "tensors are w0, w1, w2, ..."),
    ],
)
def test_files_without_a_known_model(tmp_path, table, words, refusal):
    torch.save(table, tmp_path / "m.pt")
    refusal(tmp_path / "m.pt", words)


def test_unknown_families_name_the_known_ones(tmp_path, refusal):
    save_file({"layer.weight": torch.ones(2)}, tmp_path / "m.safetensors")
    refusal(tmp_path / "m.safetensors", "is of no known model family", "layer.weight", *FAMILIES)
    about = describe_checkpoint(tmp_path / "m.safetensors")
    assert about["family"] is None and about["tensors"] == 1 and "no known model family" in about["notes"][-1]
    torch.save({"state_dict": {"net.weight": torch.ones(2)}, "pytorch-lightning_version": "2.5"}, tmp_path / "m.ckpt")
    refusal(tmp_path / "m.ckpt", "Lightning checkpoint", "net.weight", *FAMILIES)
    (tmp_path / "checkpoint_1").write_bytes(msgpack.packb({"step": 3, "w": array([1], "float32", b"\0" * 4)}))


def test_zip_files_of_others(golden, refusal):
    refusal(golden.folder / "event_ssm_shd_tiny_weights.npz", "zip archive without PyTorch weights")
