from __future__ import annotations

import pytest
import torch

from on_device import OnDevice

pytest.importorskip("triton", reason="Triton is published for Linux only")

from neurocompile.ops.gated_linear_attention import blocked, peer, torch_op, triton_launch
from neurocompile.ops.gated_linear_attention.triton_blocks import WIDEST, plan
from neurocompile.ops.machine_code import SHARED_KIB

# float16 rounds the pairs' weights to 11 bits before they meet values, and gradients by the result on arrival.
TOLERANCE = {"float32": 5e-6, "float16": 2e-3}

CASES = [
    ({"batch": b, "steps": t, "heads": h, "keys": k, "width": d, "out": e, "dtype": dtype, "gate": gate}, list(blocks))
    for b, t, h, k, d, e, dtype, gate, blocks in [
        (2, 1, 2, 1, 8, 6, "float32", 2.0, (16, 16)),
        (1, 63, 1, 1, 16, 16, "float32", 2.0, (16, 16)),
        (2, 100, 1, 1, 5, 33, "float32", 12.0, (32, 16)),
        (1, 111, 3, 1, 8, 24, "float32", 1.0, (32, 32)),
        (1, 64, 4, 2, 16, 16, "float32", 2.0, (64, 32)),
        (1, 63, 6, 3, 24, 8, "float32", 2.0, (16, 32)),
        (1, 65, 4, 4, 8, 8, "float32", 0.0, (64, 16)),
        (1, 111, 2, 1, 8, 8, "float32", "extreme", (16, 16)),
        (1, 111, 2, 2, 8, 8, "float32", "extreme", (64, 16)),
        (1, 111, 1, 1, 8, 8, "float32", -60.0, (32, 16)),
        (1, 63, 2, 1, 16, 16, "float16", 2.0, (32, 16)),
        (1, 100, 2, 2, 32, 40, "float16", 0.0, (32, 32)),
        (1, 111, 2, 1, 16, 16, "float16", "extreme", (16, 16)),
        # The blocks of compute capability 8.0.
        (1, 90, 1, 1, 64, 64, "float32", 2.0, ()),
        (1, 150, 1, 1, 64, 64, "float16", 4.0, ()),
    ]
]
PROBES = [["errors", {"case": case, "blocks": blocks}] for case, blocks in CASES]
PROBES += [
    ["errors", {"case": CASES[3][0] | {"batch": 2, "steps": 40}, "blocks": [32, 32], "turned": True}],
    ["after_a_shut_gate", {"steps": 90, "shut": 37, "blocks": [16, 16]}],
    ["after_a_shut_gate", {"steps": 90, "shut": 37, "blocks": [64, 16]}],
    ["split", {"case": CASES[4][0] | {"steps": 150}, "marks": [1, 18, 100], "blocks": [32, 16]}],
    ["padded", {"lengths": [50, 33, 1], "blocks": [32, 16]}],
    ["empty", {}],
]


@pytest.fixture(scope="module")
def interpreted(probe):
    """What all probes answer."""
    return probe("gated_linear_attention_interpreted.py", PROBES)


def label(index):
    case, blocks = CASES[index]
    return "-".join(map(str, [*case.values(), *blocks]))


@pytest.mark.parametrize("index", range(len(CASES)), ids=label)
def test_results_and_all_gradients_in_the_interpreter(interpreted, index):
    errors, bound = interpreted["errors"][index], TOLERANCE[CASES[index][0]["dtype"]]
    assert len(errors) == 7
    assert {name: error for name, error in errors.items() if not error <= bound} == {}


def test_strided_inputs_are_read_as_they_are(interpreted):
    (errors,) = interpreted["errors"][len(CASES) :]
    assert {name: error for name, error in errors.items() if not error <= TOLERANCE["float32"]} == {}


def test_nothing_passes_a_gate_that_is_shut(interpreted):
    assert interpreted["after_a_shut_gate"] == [0.0, 0.0]


def test_the_state_carries_a_sequence_over_any_split(interpreted):
    (difference,) = interpreted["split"]
    assert difference <= 2e-6


def test_a_padded_batch_equals_its_sequences_and_padding_gets_no_gradient(interpreted):
    (answer,) = interpreted["padded"]
    assert answer["difference"] <= 2e-6
    assert answer["leak"] == 0


def test_no_sequence_has_empty_answers(interpreted):
    assert interpreted["empty"] == [
        [[0, 3, 4, 6], [0, 4, 8, 6], [0, 3, 4, 8], [0, 3, 2, 8], [0, 3, 2, 6], [0, 3, 4], [0, 4, 8, 6]]
    ]


def test_every_chip_has_blocks_that_tensor_cores_take():
    for capability in SHARED_KIB:
        for size in (2, 4):
            for width in (1, 32, 33, 64, WIDEST):
                blocks = plan(capability, width, size)
                assert min(blocks.steps, blocks.columns) >= 16


def make_inputs(dtype=torch.bfloat16, width=32, out=32, gates=torch.float32, steps=8, grad=True):
    shapes = [(1, steps, 2, width), (1, steps, 1, width), (1, steps, 1, out), (1, steps, 2), (1, 2, width, out)]
    types = [dtype] * 3 + [gates] * 2
    values = [torch.zeros(shape, dtype=kind) for shape, kind in zip(shapes, types, strict=True)]
    return [OnDevice(values[0].requires_grad_(grad)), *map(OnDevice, values[1:])]


def test_cuda_tensors_go_to_triton_where_it_takes_them(monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (8, 0))
    assert torch_op._face(*make_inputs()) is triton_launch
    assert torch_op._face(*make_inputs(torch.float32, width=WIDEST, out=300)) is triton_launch
    assert torch_op._face(*make_inputs(out=300), gradients=True) is blocked
    assert torch_op._face(*make_inputs(torch.float64)) is blocked
    assert torch_op._face(*make_inputs(gates=torch.float64)) is blocked
    assert torch_op._face(*make_inputs(width=WIDEST + 1)) is blocked
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (7, 0))
    assert torch_op._face(*make_inputs()) is blocked
    assert torch_op._face(*[value.tensor for value in make_inputs()]) is blocked


def test_training_goes_to_flash_linear_attention_only_where_it_means_the_same(monkeypatch):
    monkeypatch.setattr(peer, "installed", lambda: True)
    assert peer.serves(*make_inputs())
    assert peer.serves(*make_inputs(torch.float16))
    assert not peer.serves(*make_inputs(torch.float32))
    assert not peer.serves(*make_inputs(gates=torch.float64))
    assert not peer.serves(*make_inputs(width=100))
    assert not peer.serves(*make_inputs(out=6))
    assert not peer.serves(*make_inputs(steps=1))
    assert not peer.serves(*make_inputs(grad=False))
    assert not peer.serves(*[value.tensor for value in make_inputs()])
    with torch.no_grad():
        assert not peer.serves(*make_inputs())
    monkeypatch.setattr(peer, "ENABLED", False)
    assert not peer.serves(*make_inputs())
    monkeypatch.setattr(peer, "ENABLED", True)
    monkeypatch.setattr(peer, "installed", lambda: False)
    assert not peer.serves(*make_inputs())


def test_autocast_narrows_what_is_multiplied_and_leaves_gates_and_state(monkeypatch):
    monkeypatch.setattr(torch, "is_autocast_enabled", lambda device: True)
    monkeypatch.setattr(torch, "get_autocast_dtype", lambda device: torch.bfloat16)
    monkeypatch.setattr(peer, "serves", lambda *_: True)
    monkeypatch.setattr(peer, "attend", lambda *inputs: [value.dtype for value in inputs])
    half, whole, double = torch.bfloat16, torch.float32, torch.float64
    assert torch_op.attend(*make_inputs(whole)) == [half, half, half, whole, whole]
    assert torch_op.attend(*make_inputs(double, gates=double)) == [double] * 5
