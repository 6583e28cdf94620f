from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import logsigmoid

from neurocompile.ops.forgetting_attention import forgetting_attention, incremental
from neurocompile.ops.forgetting_attention.incremental import Memory
from neurocompile.ops.forgetting_attention.reference import forgetting_attention as reference
from neurocompile.ops.forgetting_attention.reference import forgetting_attention_within as within


def make_inputs(batch, steps, heads=2, keys=1, width=4, *, dtype=torch.float64, gate=2.0, seed=0):
    draw = torch.Generator().manual_seed(seed)
    shapes = [(batch, steps, heads, width), *[(batch, steps, keys, width)] * 2, (batch, steps, heads)]
    *qkv, gates = (torch.randn(*shape, generator=draw, dtype=torch.float64) for shape in shapes)
    return [value.to(dtype) for value in (*qkv, logsigmoid(gate + 1.5 * gates))]


def run(inputs, memory, lengths):
    """Results and bounds of all chunks, joined."""
    parts, begin = [], 0
    for length in lengths:
        parts.append(memory.chunk(*(value[:, begin : begin + length] for value in inputs)))
        begin += length
    assert begin == inputs[0].shape[1]
    return tuple(torch.cat(values, 1) for values in zip(*parts, strict=True))


@settings(max_examples=25, deadline=None)
@given(
    lengths=st.lists(st.integers(0, 40), min_size=1, max_size=6),
    size=st.sampled_from([1, 2, 7, 16, 33, 300]),
    heads=st.sampled_from([(1, 1), (2, 1), (4, 2), (6, 3), (3, 3)]),
    seed=st.integers(0, 99),
)
def test_any_chunks_equal_the_definition_within_the_ring(lengths, size, heads, seed):
    inputs = make_inputs(2, sum(lengths), *heads, seed=seed)
    o, _ = run(inputs, Memory(inputs[1], heads[0], size), lengths)
    torch.testing.assert_close(o, within(*inputs, size), rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("size", [1, 5, 64])
def test_steps_equal_chunks(size):
    inputs = make_inputs(2, 70, 4, 2)
    whole, bounds = run(inputs, Memory(inputs[1], 4, size), [70])
    memory = Memory(inputs[1], 4, size)
    steps = [memory.step(*(value[:, i] for value in inputs)) for i in range(70)]
    torch.testing.assert_close(torch.stack([o for o, _ in steps], 1), whole, rtol=1e-12, atol=1e-13)
    torch.testing.assert_close(torch.stack([bound for _, bound in steps], 1), bounds, rtol=1e-9, atol=1e-300)


def test_a_ring_that_holds_everything_is_the_op_and_leaves_nothing_out():
    inputs = make_inputs(1, 300, 2, 1)
    o, bound = run(inputs, Memory(inputs[1], 2, 300), [129, 1, 170])
    torch.testing.assert_close(o, forgetting_attention(*inputs), rtol=1e-11, atol=1e-12)
    assert not bound.any()


@pytest.mark.parametrize("gate", [-1.0, 1.0, 3.0, 12.0])
def test_what_lies_outside_the_ring_is_below_the_returned_bound(gate):
    inputs = make_inputs(1, 400, 2, gate=gate)
    # Values that all point one way make what is left out as visible as it can be.
    inputs[2] = inputs[2].abs()
    o, bound = run(inputs, Memory(inputs[1], 2, 40), [90, 310])
    error = (o - reference(*inputs)).abs().amax(-1)
    assert (error <= 2 * bound * inputs[2].max() + 1e-12).all()
    assert not bound[:, :40].any()
    assert (bound[:, 40:] > 0).all()
    if gate == -1.0:
        assert bound.max() < 2.0**-24
    if gate == 12.0:
        assert error.max() > 1e-2


def test_float32_keeps_single_gates_in_a_long_stream():
    """Sums of gates that would be wrong in the fourth place if they grew with the stream in float32."""
    inputs = make_inputs(1, 3000, 1, width=4, dtype=torch.float32, gate=-1.0)
    inputs[3][:, ::9] = -300.0
    o, _ = run(inputs, Memory(inputs[1], 1, 50), [1000, 2000])
    wide = within(*[value.double() for value in inputs], 50)
    torch.testing.assert_close(o.double(), wide, rtol=0, atol=4e-6)


def test_half_precision_is_widened():
    inputs = make_inputs(1, 60, dtype=torch.bfloat16)
    o, bound = run(inputs, Memory(inputs[1], 2, 20), [25, 35])
    assert o.dtype == bound.dtype == torch.float32
    wide = within(*[value.double() for value in inputs], 20)
    torch.testing.assert_close(o.double(), wide, rtol=0, atol=5e-6)


def test_a_copy_goes_its_own_way():
    inputs = make_inputs(1, 60)
    memory = Memory(inputs[1], 2, 10)
    memory.chunk(*(value[:, :30] for value in inputs))
    copy = memory.copy()
    once, _ = memory.chunk(*(value[:, 30:] for value in inputs))
    memory.chunk(*(value[:, :5] for value in inputs))
    again, _ = copy.chunk(*(value[:, 30:] for value in inputs))
    assert torch.equal(once, again)


def test_memory_of_a_long_chunk_does_not_grow_with_it(monkeypatch):
    sizes, attend = [], Memory._attend

    def counted(self, q, *rest):
        sizes.append(q.shape[1] * self.size)
        return attend(self, q, *rest)

    monkeypatch.setattr(Memory, "_attend", counted)
    inputs = make_inputs(1, 1000)
    Memory(inputs[1], 2, 500).chunk(*inputs)
    assert max(sizes) == incremental.PIECE * 500


def test_wrong_shapes_are_named():
    inputs = make_inputs(2, 5, 4, 2)
    memory = Memory(inputs[1], 4, 8)
    with pytest.raises(ValueError, match=r"v has shape \(2, 5, 2, 3\), expected \(2, 5, 2, 4\)"):
        memory.chunk(inputs[0], inputs[1], inputs[2][..., :3], inputs[3])
    with pytest.raises(ValueError, match="0 positions"):
        Memory(inputs[1], 4, 0)
    with pytest.raises(ValueError, match="3 query heads and 2 key heads"):
        Memory(inputs[1], 3, 8)
