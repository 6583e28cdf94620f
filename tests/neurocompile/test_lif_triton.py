from __future__ import annotations

import pytest
import torch

pytest.importorskip("triton", reason="Triton is published for Linux only")

from neurocompile.ops.lif import blocked, torch_op, triton_launch

# Gradients of half precision are rounded to its 11 bits.
TOLERANCE = {"float32": 2e-6, "float16": 1e-3, "float64": 1e-12}

PARAMETRIC = {}
SAMPLER = {"v_reset": 0.0, "strict": True, "surrogate": "rectangle", "alpha": 1.0}
RESNET = {"v_reset": 0.0, "detach_reset": True}
SIGMOID = {"threshold": 0.7, "surrogate": "sigmoid", "alpha": 4.0, "detach_reset": True}
ELSEWHERE = {"threshold": 0.5, "v_reset": -0.25, "surrogate": "sigmoid", "alpha": 1.5}

CASES = [
    {"shape": shape, "decay": decay, "dtype": dtype, "neuron": neuron, "block": block}
    for shape, decay, dtype, neuron, block in [
        ([1, 5], [], "float32", PARAMETRIC, 32),
        ([3, 100], [], "float32", PARAMETRIC, 64),
        ([8, 63], [], "float32", RESNET, 32),
        ([5, 2, 33], [2, 33], "float32", SAMPLER, 32),
        ([5, 2, 33], [5, 2, 33], "float32", SAMPLER, 64),
        ([4, 3, 11], [3, 1], "float32", SIGMOID, 32),
        ([63, 7], [63, 1], "float32", ELSEWHERE, 32),
        ([3, 1111], [1, 1], "float32", PARAMETRIC, 512),
        ([3, 100], [], "float16", PARAMETRIC, 128),
        ([8, 65], [65], "float16", RESNET, 32),
        ([7, 40], [7, 40], "float64", SAMPLER, 32),
    ]
]
PROBES = [["errors", case] for case in CASES]
PROBES += [
    ["errors", CASES[3] | {"turned": True}],
    ["split", {"shape": [50, 37], "marks": [1, 18], "neuron": PARAMETRIC}],
    ["split", {"shape": [50, 37], "marks": [1, 18], "neuron": SAMPLER}],
    ["empty", {}],
]


@pytest.fixture(scope="module")
def interpreted(probe):
    """What all probes answer."""
    return probe("lif_interpreted.py", PROBES)


def label(index):
    return "-".join(str(value) for value in CASES[index].values())


@pytest.mark.parametrize("index", range(len(CASES)), ids=label)
def test_the_same_spikes_and_membranes_and_close_gradients(interpreted, index):
    errors, bound = interpreted["errors"][index], TOLERANCE[CASES[index]["dtype"]]
    assert [errors.pop(name) for name in ("spikes", "last", "membranes")] == [0, 0, 0]
    assert len(errors) == 3
    assert {name: error for name, error in errors.items() if not error <= bound} == {}


def test_strided_inputs_are_read_as_they_are(interpreted):
    (errors,) = interpreted["errors"][len(CASES) :]
    assert {name: error for name, error in errors.items() if not error <= TOLERANCE["float32"]} == {}


def test_the_membrane_carries_a_sequence_over_any_split(interpreted):
    assert interpreted["split"] == [True, True]


def test_a_layer_without_neurons_has_empty_answers(interpreted):
    assert interpreted["empty"] == [[[3, 0], [0], [3, 0]]]


@pytest.mark.parametrize("neurons", [1, 32, 33, 8192, 10_000, 1 << 20])
def test_blocks_are_whole_warps(neurons):
    block = triton_launch.block_of(neurons)
    assert 32 <= block <= triton_launch.BLOCK
    assert block & (block - 1) == 0


def test_cuda_tensors_go_to_triton():
    class OnDevice:
        is_cuda = True

    assert torch_op._face(OnDevice()) is triton_launch
    assert torch_op._face(torch.zeros(1)) is blocked
