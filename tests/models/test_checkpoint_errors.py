"""Everything that can be wrong with a checkpoint is one sentence, and no file gets to run code unasked."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgpack
import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from models.checkpoint import describe_checkpoint, open_checkpoint, save_checkpoint
from models.config_file import nearby
from models.families import FAMILIES
from runtime.errors import UserError

SHD = "event_ssm_shd_tiny_ckpt"


def refusal(path: Path | str, *words: str, **options: Any) -> str:
    """The sentence with which a checkpoint is refused, checked for form and words."""
    with pytest.raises(UserError) as caught:
        open_checkpoint(path, **options)
    message = str(caught.value)
    assert "\n" not in message and not message.endswith(".") and ". " not in message.replace("...", ""), message
    for word in words:
        assert word in message, message
    return message


@pytest.fixture
def state(golden) -> dict[str, torch.Tensor]:
    return {k: v.clone() for k, v in open_checkpoint(golden.folder / SHD).model.state_dict().items()}


@pytest.fixture
def flax(golden, tmp_path) -> Callable[..., Path]:
    """Writes a changed copy of a published file."""

    def write(change: Callable[[dict], Any]) -> Path:
        tree = msgpack.unpackb((golden.folder / SHD / "checkpoint_1" / "checkpoint").read_bytes())
        tree = change(tree) or tree
        path = tmp_path / "checkpoint_2"
        path.write_bytes(msgpack.packb(tree))
        return path

    return write


def array(shape: list[int], dtype: str, data: bytes, code: int = 1) -> msgpack.ExtType:
    return msgpack.ExtType(code, msgpack.packb([shape, dtype, data]))


# Places


def test_nothing_there(tmp_path):
    refusal(tmp_path / "no.ckpt", "no.ckpt does not exist")
    refusal(tmp_path, f"folder {tmp_path} holds no checkpoint (it is empty)")
    (tmp_path / "checkpoint_7.orbax-checkpoint-tmp-1").mkdir()
    refusal(tmp_path, "only a save that was interrupted")
    (tmp_path / "other").mkdir()
    for name in ("a.txt", "b.txt"):
        (tmp_path / "other" / name).write_text("x")
    refusal(tmp_path / "other", "it has a.txt, b.txt")
    (tmp_path / "checkpoint_3").mkdir()
    refusal(tmp_path, "checkpoint_3 holds no checkpoint")


@pytest.mark.parametrize("name", ["m.ckpt", "m.safetensors", "checkpoint_1", "m"])
def test_empty_files(tmp_path, name):
    (tmp_path / name).write_bytes(b"")
    refusal(tmp_path / name, "is empty (0 bytes)")


@pytest.mark.parametrize("content", [b"\x89HDF\r\n\x1a\n", b'{"a": 1}', b"hello world", b"\0" * 40, b"\x80", b"P"])
def test_files_of_other_kinds(tmp_path, content):
    (tmp_path / "m.ckpt").write_bytes(content)
    refusal(tmp_path / "m.ckpt", "is not a checkpoint of a known format", ".safetensors", "Orbax")


def test_a_pipe_is_no_checkpoint(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    refusal(tmp_path / "pipe", "neither a file nor a folder")


# Cut and damaged files


def cuts(data: bytes) -> list[int]:
    return sorted({1, 2, 3, 7, 8, 9, 12, 40, 200, len(data) // 3, len(data) // 2, len(data) - 100, len(data) - 1})


def test_truncated_flax_files(golden, tmp_path):
    data = (golden.folder / SHD / "checkpoint_1" / "checkpoint").read_bytes()
    for name in ("checkpoint", "checkpoint_5"):
        for end in cuts(data):
            (tmp_path / name).write_bytes(data[:end])
            refusal(tmp_path / name, "is damaged or cut off", f"ends early, after {end} bytes")
        (tmp_path / name).unlink()


def test_truncated_safetensors(golden, tmp_path):
    path = tmp_path / "m.safetensors"
    save_checkpoint(path, open_checkpoint(golden.folder / SHD))
    data = path.read_bytes()
    for end in cuts(data):
        path.write_bytes(data[:end])
        refusal(path, "is not a complete .safetensors file", "save it again")
    path.write_bytes(data + b"\0")
    refusal(path, "is not a complete .safetensors file")
    path.write_bytes(b"\xff" * 7 + b"\x7f" + data[8:])
    refusal(path, "is not a complete .safetensors file")


@pytest.mark.parametrize("zipped", [True, False])
def test_truncated_torch_files(tmp_path, state, zipped):
    path = tmp_path / "m.ckpt"
    torch.save({"state_dict": state, "epoch": 3}, path, _use_new_zipfile_serialization=zipped)
    data = path.read_bytes()
    for end in cuts(data):
        path.write_bytes(data[:end])
        assert "--trust-pickle" not in refusal(path)
        assert "--trust-pickle" not in refusal(path, trust_pickle=True)


def test_a_cut_inside_a_name_does_not_ask_for_trust(tmp_path, state):
    path = tmp_path / "m.ckpt"
    torch.save({"state_dict": state}, path, _use_new_zipfile_serialization=False)
    data = path.read_bytes()
    start = data.index(b"_rebuild_tensor_v2")
    for end in range(start - 12, start + 19):
        path.write_bytes(data[:end])
        assert "--trust-pickle" not in refusal(path)


def test_flipped_bytes_never_escape_as_another_error(golden, tmp_path):
    random = np.random.default_rng(5)
    save_checkpoint(tmp_path / "m.safetensors", open_checkpoint(golden.folder / SHD))
    torch.save({"state_dict": open_checkpoint(golden.folder / SHD).model.state_dict()}, tmp_path / "m.pt")
    for source in (golden.folder / SHD / "checkpoint_1" / "checkpoint", tmp_path / "m.safetensors", tmp_path / "m.pt"):
        data = source.read_bytes()
        edges = [*range(0, 64), *range(len(data) - 64, len(data)), *random.integers(0, len(data), 60)]
        for place in edges:
            damaged = bytearray(data)
            damaged[place] ^= int(random.integers(1, 256))
            (tmp_path / "damaged").write_bytes(damaged)
            try:
                open_checkpoint(tmp_path / "damaged")
            except UserError as error:
                assert "\n" not in str(error)


@pytest.mark.parametrize(
    "data",
    [
        b"\x81\xa1a" * 5000 + b"\xc0",
        b"\xdf\xff\xff\xff\xff",
        b"\x81\xa1a\xc6\xff\xff\xff\xff",
        b"\x82\xa1a\x01\x02\x02",
        b"\x81\xa1a\xc1",
        msgpack.packb({"params": {}}) + b"x",
        b"\x81\xa1\xff\x01",
    ],
)
def test_hostile_messagepack(tmp_path, data):
    (tmp_path / "m").write_bytes(data)
    refusal(tmp_path / "m", "is damaged or cut off")


@pytest.mark.parametrize(
    ("leaf", "words"),
    [
        (array([20], "float32", b"\0" * 79), "needs 80 bytes and 79 are there"),
        (array([2**62], "float32", b"\0" * 80), "is damaged at params/decoder/bias"),
        (array([-20, -1], "float32", b"\0" * 80), "is impossible"),
        (array([0, 2**62], "float32", b""), "of unexpected rank"),
        (array([0, 2**64 - 1], "float32", b""), "is impossible"),
        (array([20], "object", b"\0" * 160), "dtype 'object'"),
        (array([20], "V80", b"\0" * 80), "dtype 'V80'"),
        (msgpack.ExtType(1, b"\x93\x91"), "is damaged or cut off"),
        (msgpack.ExtType(1, msgpack.packb(3)), "is damaged at params/decoder/bias"),
        (msgpack.ExtType(9, b""), "MessagePack extension 9"),
        (3.5, "is a float, not an array"),
        ("PLACEHOLDER://params.decoder.bias", "only a placeholder for params/decoder/bias"),
        ({"__msgpack_chunked_array__": True, "shape": {"0": 20}, "chunks": {}}, "pieces do not add up"),
        ({"__msgpack_chunked_array__": True, "chunks": {}}, "pieces do not add up"),
        (array([20], "int32", b"\0" * 80), "is int32, but the model holds float32"),
        (array([20], "float16", b"\0" * 40), "params/decoder/bias in checkpoint"),
        (array([20], "bfloat16", b"\0" * 40), "is bfloat16, but the model holds float32"),
        (array([20], "float64", b"\0" * 160), "is float64, but the model holds float32"),
        (msgpack.ExtType(2, msgpack.packb([1.0, 2.0])), ""),
        (array([20], "float32", np.full(20, np.nan, "<f4").tobytes()), "params/decoder/bias in checkpoint"),
        (array([20], "float32", np.full(20, -np.inf, "<f4").tobytes()), "contains NaN or infinity"),
    ],
)
def test_bad_leaves_are_named(flax, leaf, words):
    def change(tree: dict) -> None:
        tree["params"]["decoder"]["bias"] = leaf

    refusal(flax(change), words)


def test_chunked_arrays_and_scalars_are_read(golden, flax):
    wanted = golden.arrays("event_ssm_shd_tiny_weights")["params/decoder/kernel"]

    def change(tree: dict) -> None:
        flat = wanted.reshape(-1)
        pieces = [array([len(p)], "float32", p.tobytes()) for p in (flat[:100], flat[100:250], flat[250:])]
        tree["params"]["decoder"]["kernel"] = {
            "__msgpack_chunked_array__": True,
            "shape": {"0": wanted.shape[0], "1": wanted.shape[1]},
            "chunks": {str(number): piece for number, piece in enumerate(pieces)},
        }
        tree["step"] = array([], "int32", (321).to_bytes(4, "little"), code=3)

    opened = open_checkpoint(flax(change))
    np.testing.assert_array_equal(opened.model.decoder.weight.detach().numpy().T, wanted)
    assert opened.metadata["step"] == 321


def test_variables_without_a_training_state_are_read(golden, tmp_path):
    tree = msgpack.unpackb((golden.folder / "event_ssm_ssc_small_ckpt/checkpoint_1/checkpoint").read_bytes())
    variables = {"params": tree["params"], **tree["model_state"]}
    (tmp_path / "v.msgpack").write_bytes(msgpack.packb(variables))
    assert open_checkpoint(tmp_path / "v.msgpack").config.batchnorm


def test_missing_and_surplus_arrays_are_named(flax):
    missing = flax(lambda tree: tree["params"].pop("decoder") and None)
    refusal(missing, "params/decoder/bias is missing")

    def lose(tree: dict) -> None:
        del tree["params"]["encoder"]["stages_0"]["SequenceLayer_3"]["S5SSM_0"]["log_step"]

    refusal(flax(lose), "SequenceLayer_3/S5SSM_0/log_step missing", preset="shd/tiny")

    def gain(tree: dict) -> None:
        tree["params"]["extra"] = array([1], "float32", b"\0" * 4)

    refusal(flax(gain), "params/extra unexpected", preset="shd/tiny")


def test_missing_running_statistics_are_named(golden, tmp_path):
    tree = msgpack.unpackb((golden.folder / "event_ssm_ssc_small_ckpt/checkpoint_1/checkpoint").read_bytes())
    tree["model_state"] = "PLACEHOLDER://model_state"
    (tmp_path / "checkpoint_1").write_bytes(msgpack.packb(tree))
    refusal(tmp_path, "batch_stats/encoder/stages_0", "missing", preset="ssc/small")


# TensorStore


def test_ocdbt_needs_tensorstore(golden, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorstore", None)
    refusal(golden.folder / f"{SHD}_ocdbt", "needs the package tensorstore", "pip install 'neurocompile[flax]'")


def test_flax_needs_msgpack(golden, monkeypatch):
    monkeypatch.setitem(sys.modules, "msgpack", None)
    refusal(golden.folder / SHD, "needs the package msgpack", "pip install 'neurocompile[compile]'")


def test_damaged_ocdbt(golden, tmp_path):
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


def test_ocdbt_chunks_that_are_missing_are_not_zeros(tmp_path):
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
def test_a_pickle_runs_nothing_without_the_flag(tmp_path, state, zipped, protocol):
    path, mark = tmp_path / "m.pt", tmp_path / "ran"
    table = {"state_dict": state, "x": Payload(mark)}
    torch.save(table, path, pickle_protocol=protocol, _use_new_zipfile_serialization=zipped)
    refusal(path, "is a pickle that needs to run code", "--trust-pickle")
    with pytest.raises(UserError, match="--trust-pickle"):
        describe_checkpoint(path)
    assert not mark.exists()
    assert open_checkpoint(path, trust_pickle=True).family == "event_ssm"
    assert mark.exists()


def test_dangerous_modules_and_plain_pickles_run_nothing(tmp_path):
    class Shell:
        def __reduce__(self) -> tuple:
            return os.system, (f"touch {tmp_path / 'ran'}",)

    torch.save({"x": Shell()}, tmp_path / "m.pt")
    refusal(tmp_path / "m.pt", "needs to run code", "system", "--trust-pickle")
    for protocol in (2, 3, 4, 5):
        (tmp_path / "m.pkl").write_bytes(pickle.dumps({"x": Shell()}, protocol))
        refusal(tmp_path / "m.pkl")
    assert not (tmp_path / "ran").exists()


def test_whole_modules_open_only_with_trust(golden, tmp_path):
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
def test_files_without_a_known_model(tmp_path, table, words):
    torch.save(table, tmp_path / "m.pt")
    refusal(tmp_path / "m.pt", words)


def test_unknown_families_name_the_known_ones(golden, tmp_path):
    save_file({"layer.weight": torch.ones(2)}, tmp_path / "m.safetensors")
    refusal(tmp_path / "m.safetensors", "is of no known model family", "layer.weight", *FAMILIES)
    about = describe_checkpoint(tmp_path / "m.safetensors")
    assert about["family"] is None and about["tensors"] == 1 and "no known model family" in about["notes"][-1]
    refusal(golden.folder / "event2vec_tiny_flat.ckpt", "classifier.embed_net.embed.0.weight", *FAMILIES)
    (tmp_path / "checkpoint_1").write_bytes(msgpack.packb({"step": 3, "w": array([1], "float32", b"\0" * 4)}))


def test_zip_files_of_others(golden):
    refusal(golden.folder / "event_ssm_shd_tiny_weights.npz", "zip archive without PyTorch weights")


# Weights against configuration


def test_weights_that_do_not_fit(golden):
    path = golden.folder / SHD
    refusal(
        path,
        str(path),
        "params/encoder/encoder/embedding is (700, 16) instead of (700, 64)",
        preset="ssc/small",
    )
    config = golden.json("event_ssm_shd_tiny_config")
    config["model"]["ssm"]["d_ssm"] = 32
    refusal(path, "S5SSM_0/Lambda_re is (16,) instead of (32,)", config=config)
    config = golden.json("event_ssm_shd_tiny_config")
    config["data"]["num_classes"] = 10
    refusal(path, "params/decoder/kernel is (16, 20) instead of (16, 10)", config=config)


def test_our_own_names_are_checked_the_same(tmp_path, state):
    state["stages.0.2.gate.bias"] = torch.ones(3)
    torch.save(state, tmp_path / "m.pt")
    refusal(tmp_path / "m.pt", "stages.0.2.gate.bias is (3,) instead of (16,)", preset="shd/tiny")
    refusal(tmp_path / "m.pt", "shapes of no published preset")


def test_the_derivatives_weights_are_checked(golden, tmp_path):
    table = torch.load(golden.folder / "event_ssm_port_tiny_model.pt", weights_only=True)
    config = golden.json("event_ssm_port_tiny_config")
    table["state_dict"]["decoder.bias"][2] = torch.nan
    torch.save(table, tmp_path / "m.pt")
    refusal(tmp_path / "m.pt", "decoder.bias in checkpoint", "NaN", config=config)
    del table["state_dict"]["encoder.stages.0.layers.1.gate.bias"]
    table["state_dict"]["decoder.bias"] = torch.zeros(6)
    torch.save(table, tmp_path / "m.pt")
    refusal(tmp_path / "m.pt", "encoder.stages.0.layers.1.gate.bias missing", config=config)
    refusal(tmp_path / "m.pt", "no presets of the PyTorch derivative exist", preset="shd/tiny")


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16, torch.complex64, torch.int32])
def test_wrong_dtypes(tmp_path, state, dtype):
    state["decoder.bias"] = state["decoder.bias"].to(dtype)
    save_file({k: v.contiguous() for k, v in state.items()}, tmp_path / "m.safetensors")
    name = str(dtype).removeprefix("torch.")
    refusal(tmp_path / "m.safetensors", f"is {name}, but the model holds float32", "decoder.bias")


def test_sparse_weights(tmp_path, state):
    state["decoder.weight"] = state["decoder.weight"].to_sparse()
    torch.save(state, tmp_path / "m.pt")
    refusal(tmp_path / "m.pt", "decoder.weight", "is sparse or quantised")


# Configurations


def test_configurations_that_cannot_be_used(golden, tmp_path):
    path = golden.folder / SHD
    refusal(path, "give one of them", preset="shd/tiny", config={})
    refusal(path, "preset 'shd/huge' does not exist; choose one of dvs/small", preset="shd/huge")
    refusal(path, "no.json cannot be read", config=tmp_path / "no.json")
    refusal(path, "cannot be read: Is a directory", config=tmp_path)
    for content, words in (
        (b"{", "is not valid JSON"),
        (b"[1]", "holds a list"),
        (b"\xff\xfe", "is not text"),
        (b"{}", "has no model section"),
        (b'{"model": {"ssm": {}}}', "model.ssm_init is missing"),
        (b'{"model": 3}', "model.ssm_init is missing"),
        (b'{"family": "event_ssm_port", "config": {}}', "is for 'event_ssm_port' but the weights are event_ssm"),
        (b"[" * 100000, "c.json"),
    ):
        (tmp_path / "c.json").write_bytes(content)
        refusal(path, words, config=tmp_path / "c.json")
    table = golden.json("event_ssm_shd_tiny_config")
    for change, words in (
        ({"num_classes": "many"}, "num_classes is 'many'"),
        ({"resolution": [701]}, "makes 701 tokens, but the model has 700"),
        ({"resolution": [20, 20]}, "makes 800 tokens, but the model has 700"),
        ({"resolution": 700}, "it must be [channels] or [width, height]"),
        ({"resolution": [0]}, "it must be [channels] or [width, height]"),
        ({"labels": ["a"]}, "1 class names do not fit 20 classes"),
    ):
        refusal(path, words, config={**table, "data": {**table["data"], **change}})
    refusal(path, "data is 3", config={**table, "data": 3})
    table["data"] = {}
    table["model"]["ssm"]["d_model"] = "16"
    refusal(path, "d_model is '16'", config=table)


def test_an_unknown_sensor_must_be_told(golden):
    table = golden.json("event_ssm_port_tiny_config")
    del table["data"]["resolution"]
    refusal(golden.folder / "event_ssm_port_tiny_model.pt", "add data.resolution", config=table)


def test_yaml_that_is_none(golden, tmp_path, monkeypatch):
    (tmp_path / "c.yaml").write_text("a: [1\nb: }")
    refusal(golden.folder / SHD, "is neither JSON nor YAML", config=tmp_path / "c.yaml")
    monkeypatch.setitem(sys.modules, "yaml", None)
    refusal(golden.folder / SHD, "needs the package PyYAML", config=tmp_path / "c.yaml")


def test_our_files_keep_their_own_configuration(golden, tmp_path):
    save_checkpoint(tmp_path / "m.safetensors", open_checkpoint(golden.folder / SHD))
    refusal(tmp_path / "m.safetensors", "carries its own configuration", preset="shd/tiny")
    refusal(tmp_path / "m.safetensors", "carries its own configuration", config={"model": {}})


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"schema": 2}, "was written by a later version (schema 2"),
        ({"schema": None}, "lacks a valid 'schema'"),
        ({"family": "event_transformer"}, "family 'event_transformer', which this version does not know"),
        ({"labels": 3}, "lacks a valid 'labels'"),
        ({"labels": ["a"]}, "1 class names do not fit 20 classes"),
        ({"labels": list(range(20))}, "20 class names do not fit 20 classes; "),
        ({"front_end": {"kind": "bins"}}, "front end 'bins' is unknown"),
        ({"front_end": {"kind": "token_dt", "rules": 3}}, "front end token_dt cannot be read"),
        ({"config": {"d_model": 3}}, "is missing"),
        ({"config": {"colour": 3}}, "colour is not known"),
    ],
)
def test_headers_that_make_no_sense(golden, tmp_path, state, change, words):
    table = json.loads(open_checkpoint(golden.folder / SHD).header.to_text())
    save_file(state, tmp_path / "m.safetensors", {"neurocompile": json.dumps({**table, **change})})
    refusal(tmp_path / "m.safetensors", words, "m.safetensors")


def test_headers_that_are_no_json(tmp_path, state):
    for text in ("{", "[]", "3", "[" * 100000):
        save_file(state, tmp_path / "m.safetensors", {"neurocompile": text})
        refusal(tmp_path / "m.safetensors", "the description inside", "m.safetensors")


def test_a_huge_configuration_is_refused_before_memory_is_taken(golden, tmp_path, state):
    table = json.loads(open_checkpoint(golden.folder / SHD).header.to_text())
    table["config"]["num_embeddings"] = 10**13
    save_file(state, tmp_path / "m.safetensors", {"neurocompile": json.dumps(table)})
    refusal(tmp_path / "m.safetensors", "embedding.weight is (700, 16) instead of (10000000000000, 16)")


def test_nearby_configurations_rank_by_likeness(tmp_path):
    for name in ("config.json", "abc_config.json", "abd_config.json", "notes.json", "run/.hydra/config.yaml"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("{}")
    assert nearby(tmp_path / "abd.ckpt")[0].name == "abd_config.json"
    assert (tmp_path / "run/.hydra/config.yaml") in nearby(tmp_path / "run" / "checkpoints" / "model.pt")
