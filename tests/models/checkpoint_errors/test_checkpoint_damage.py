"""Checkpoints that are missing, cut or damaged are refused in one sentence."""

from __future__ import annotations

import os

import msgpack
import numpy as np
import pytest
import torch

from models.checkpoint import open_checkpoint, save_checkpoint
from runtime.errors import UserError

SHD = "event_ssm_shd_tiny_ckpt"


def array(shape: list[int], dtype: str, data: bytes, code: int = 1) -> msgpack.ExtType:
    return msgpack.ExtType(code, msgpack.packb([shape, dtype, data]))


# Places


def test_nothing_there(tmp_path, refusal):
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
def test_empty_files(tmp_path, name, refusal):
    (tmp_path / name).write_bytes(b"")
    refusal(tmp_path / name, "is empty (0 bytes)")


@pytest.mark.parametrize("content", [b"\x89HDF\r\n\x1a\n", b'{"a": 1}', b"hello world", b"\0" * 40, b"\x80", b"P"])
def test_files_of_other_kinds(tmp_path, content, refusal):
    (tmp_path / "m.ckpt").write_bytes(content)
    refusal(tmp_path / "m.ckpt", "is not a checkpoint of a known format", ".safetensors", "Orbax")


def test_a_pipe_is_no_checkpoint(tmp_path, refusal):
    os.mkfifo(tmp_path / "pipe")
    refusal(tmp_path / "pipe", "neither a file nor a folder")


# Cut and damaged files


def cuts(data: bytes) -> list[int]:
    return sorted({1, 2, 3, 7, 8, 9, 12, 40, 200, len(data) // 3, len(data) // 2, len(data) - 100, len(data) - 1})


def test_truncated_flax_files(golden, tmp_path, refusal):
    data = (golden.folder / SHD / "checkpoint_1" / "checkpoint").read_bytes()
    for name in ("checkpoint", "checkpoint_5"):
        for end in cuts(data):
            (tmp_path / name).write_bytes(data[:end])
            refusal(tmp_path / name, "is damaged or cut off", f"ends early, after {end} bytes")
        (tmp_path / name).unlink()


def test_truncated_safetensors(golden, tmp_path, refusal):
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
def test_truncated_torch_files(tmp_path, state, zipped, refusal):
    path = tmp_path / "m.ckpt"
    torch.save({"state_dict": state, "epoch": 3}, path, _use_new_zipfile_serialization=zipped)
    data = path.read_bytes()
    for end in cuts(data):
        path.write_bytes(data[:end])
        assert "--trust-pickle" not in refusal(path)
        assert "--trust-pickle" not in refusal(path, trust_pickle=True)


def test_a_flipped_bit_in_a_weight_is_noticed(tmp_path, state, refusal):
    """PyTorch would open such a file as another network."""
    path, options = tmp_path / "m.ckpt", torch.utils.serialization.config.save
    torch.save({"state_dict": state}, path)
    data = bytearray(path.read_bytes())
    name, weight = max(state.items(), key=lambda item: item[1].numel())
    place = data.index(weight.numpy().tobytes()) + 8
    data[place] ^= 1
    path.write_bytes(data)
    changed = torch.load(path, weights_only=True)["state_dict"][name]
    assert changed.isfinite().all() and not torch.equal(changed, weight)
    refusal(path, "is damaged or cut off: Bad CRC-32")
    before, options.compute_crc32 = options.compute_crc32, False
    try:
        torch.save({"state_dict": state}, path)
    finally:
        options.compute_crc32 = before
    assert torch.equal(open_checkpoint(path).model.state_dict()[name], weight)


def test_a_cut_inside_a_name_does_not_ask_for_trust(tmp_path, state, refusal):
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
def test_hostile_messagepack(tmp_path, data, refusal):
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
def test_bad_leaves_are_named(flax, leaf, words, refusal):
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


def test_missing_and_surplus_arrays_are_named(flax, refusal):
    missing = flax(lambda tree: tree["params"].pop("decoder") and None)
    refusal(missing, "params/decoder/bias is missing")

    def lose(tree: dict) -> None:
        del tree["params"]["encoder"]["stages_0"]["SequenceLayer_3"]["S5SSM_0"]["log_step"]

    refusal(flax(lose), "SequenceLayer_3/S5SSM_0/log_step missing", preset="shd/tiny")

    def gain(tree: dict) -> None:
        tree["params"]["extra"] = array([1], "float32", b"\0" * 4)

    refusal(flax(gain), "params/extra unexpected", preset="shd/tiny")


def test_missing_running_statistics_are_named(golden, tmp_path, refusal):
    tree = msgpack.unpackb((golden.folder / "event_ssm_ssc_small_ckpt/checkpoint_1/checkpoint").read_bytes())
    tree["model_state"] = "PLACEHOLDER://model_state"
    (tmp_path / "checkpoint_1").write_bytes(msgpack.packb(tree))
    refusal(tmp_path, "batch_stats/encoder/stages_0", "missing", preset="ssc/small")
