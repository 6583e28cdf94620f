from __future__ import annotations

import pytest
import torch

from on_device import OnDevice

pytest.importorskip("triton", reason="Triton is published for Linux only")

from neurocompile.ops.forgetting_attention import blocked, peer, torch_op, triton_launch
from neurocompile.ops.forgetting_attention.triton_blocks import WIDEST, plan
from neurocompile.ops.machine_code import SHARED_KIB

# float16 rounds the softmax's weights, and the scores' gradient, to 11 bits before they are multiplied again.
TOLERANCE = {"float32": 5e-6, "float16": 2e-3}

CASES = [
    (
        {"batch": batch, "steps": steps, "heads": h, "keys": k, "width": width, "dtype": dtype, "gate": gate},
        list(blocks),
    )
    for batch, steps, h, k, width, dtype, gate, blocks in [
        (2, 1, 2, 1, 8, "float32", 2.0, (16, 16)),
        (1, 63, 1, 1, 16, "float32", 2.0, (32, 16)),
        (2, 100, 1, 1, 5, "float32", 12.0, (32, 16)),
        (1, 111, 3, 1, 8, "float32", 1.0, (32, 32)),
        (1, 64, 4, 2, 16, "float32", 2.0, (32, 32)),
        (1, 63, 6, 3, 24, "float32", 2.0, (32, 32)),
        (1, 63, 4, 4, 8, "float32", 0.0, (64, 32)),
        (1, 111, 2, 1, 8, "float32", "extreme", (16, 16)),
        (1, 111, 1, 1, 8, "float32", -4.0, (16, 16)),
        (1, 63, 2, 1, 16, "float16", 2.0, (32, 16)),
        (1, 100, 2, 2, 32, "float16", 0.0, (32, 32)),
        # The blocks of compute capability 8.0.
        (1, 150, 2, 1, 32, "float32", 2.0, ()),
        (1, 300, 2, 1, 32, "float16", 4.0, ()),
    ]
]
PROBES = [["errors", {"case": case, "blocks": blocks}] for case, blocks in CASES]
PROBES += [
    ["errors", {"case": CASES[3][0] | {"batch": 2, "steps": 40}, "blocks": [32, 32], "turned": True}],
    ["padded", {"lengths": [50, 33, 1], "blocks": [32, 32]}],
    ["omitted", {"gate": 0.0, "steps": 240, "blocks": [32, 16]}],
    ["omitted", {"gate": 12.0, "steps": 64, "blocks": [32, 32]}],
    ["unread", {"gate": 0.0, "steps": 200, "spoilt": 16, "blocks": [32, 16]}],
    ["unread", {"gate": 12.0, "steps": 200, "spoilt": 16, "blocks": [32, 16]}],
    ["empty", {}],
]


@pytest.fixture(scope="module")
def interpreted(probe):
    """What all probes answer."""
    return probe("forgetting_attention_interpreted.py", PROBES)


def label(index):
    case, blocks = CASES[index]
    return "-".join(map(str, [*case.values(), *blocks]))


@pytest.mark.parametrize("index", range(len(CASES)), ids=label)
def test_result_and_all_gradients_in_the_interpreter(interpreted, index):
    errors, bound = interpreted["errors"][index], TOLERANCE[CASES[index][0]["dtype"]]
    assert len(errors) == 6
    # A single position has one weight of 1, whatever is scored; its gradients vanish up to rounding.
    bound = 1e-3 if CASES[index][0]["steps"] == 1 else bound
    assert {name: error for name, error in errors.items() if not error <= bound} == {}


def test_strided_inputs_are_read_as_they_are(interpreted):
    (errors,) = interpreted["errors"][len(CASES) :]
    assert {name: error for name, error in errors.items() if not error <= TOLERANCE["float32"]} == {}


def test_a_padded_batch_equals_its_sequences_and_padding_gets_no_gradient(interpreted):
    (answer,) = interpreted["padded"]
    assert answer["difference"] <= 1e-6
    assert answer["leak"] == 0


def test_what_is_left_out_is_below_the_stated_bound(interpreted):
    forgets, holds = interpreted["omitted"]
    assert forgets["pairs"] > 0.4
    assert forgets["share"] <= 2.0**-24
    assert holds["pairs"] == 0


def test_keys_that_were_forgotten_are_not_read(interpreted):
    """Their values are NaN here: whatever meets them is NaN."""
    assert interpreted["unread"] == [1.0, 0.0]


def test_an_empty_sequence_has_empty_answers(interpreted):
    assert interpreted["empty"] == [[[2, 0, 4, 8], [8, 0], [2, 0, 4, 8], [2, 0, 2, 8], [2, 0, 2, 8], [2, 0, 4]]]


def test_every_chip_has_blocks_that_divide():
    for capability in SHARED_KIB:
        for size in (2, 4):
            for width in (1, 32, 33, 64, WIDEST):
                chosen = plan(capability, width, size)
                for blocks in (chosen.forward, chosen.query):
                    assert blocks.queries % blocks.keys == 0
                for blocks in (chosen.forward, chosen.query, chosen.key):
                    assert min(blocks.queries, blocks.keys) >= 16


def make_inputs(dtype=torch.bfloat16, width=32, heads=2, steps=8, gates=torch.float32, grad=True):
    q = torch.zeros(1, steps, heads, width, dtype=dtype, requires_grad=grad)
    k, v = (torch.zeros(1, steps, 1, width, dtype=dtype) for _ in range(2))
    return [OnDevice(value) for value in (q, k, v, torch.zeros(1, steps, heads, dtype=gates))]


def test_cuda_tensors_go_to_triton_where_it_takes_them(monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (8, 0))
    assert torch_op._face(*make_inputs()) is triton_launch
    assert torch_op._face(*make_inputs(torch.float32, width=WIDEST)) is triton_launch
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
    assert not peer.serves(*make_inputs(steps=1))
    assert not peer.serves(*make_inputs(grad=False))
    assert not peer.serves(*[value.tensor for value in make_inputs()])
    q, k, v, log_f = make_inputs()
    assert not peer.serves(q, k, OnDevice(v.tensor.float()), log_f)
    with torch.no_grad():
        assert not peer.serves(*make_inputs())
    monkeypatch.setattr(peer, "ENABLED", False)
    assert not peer.serves(*make_inputs())
    monkeypatch.setattr(peer, "ENABLED", True)
    monkeypatch.setattr(peer, "installed", lambda: False)
    assert not peer.serves(*make_inputs())


def test_autocast_narrows_what_is_multiplied_and_leaves_the_gates(monkeypatch):
    monkeypatch.setattr(torch, "is_autocast_enabled", lambda device: True)
    monkeypatch.setattr(torch, "get_autocast_dtype", lambda device: torch.bfloat16)
    monkeypatch.setattr(peer, "serves", lambda *_: True)
    monkeypatch.setattr(peer, "attend", lambda *inputs: [value.dtype for value in inputs])
    half, whole, double = torch.bfloat16, torch.float32, torch.float64
    assert torch_op.attend(*make_inputs(whole)) == [half, half, half, whole]
    assert torch_op.attend(*make_inputs(double, gates=double)) == [double] * 4
