"""The op `gated_linear_attention`: every face against the definition, gradients, odd lengths and carried states too."""

from __future__ import annotations

import sys
from types import SimpleNamespace

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch.nn.functional import logsigmoid

from neurocompile.capture import capture_module
from neurocompile.ops.gated_linear_attention import blocked, gated_linear_attention, peer, step
from neurocompile.ops.gated_linear_attention.reference import gated_linear_attention as reference

LENGTHS = [1, 2, 63, 64, 65, 100, 111, 200]
HEADS = [(1, 1), (2, 1), (3, 1), (4, 2), (6, 3), (4, 4)]
NAMES = ("o", "last", "q", "k", "v", "log_f", "state")


def make_inputs(batch, steps, heads=2, keys=1, width=8, out=6, *, dtype=torch.float64, gate=2.0, seed=0):
    draw = torch.Generator().manual_seed(seed)
    shapes = [(batch, steps, heads, width), (batch, steps, keys, width), (batch, steps, keys, out)]
    shapes += [(batch, steps, heads), (batch, heads, width, out)]
    q, k, v, gates, state = (torch.randn(*shape, generator=draw, dtype=torch.float64) for shape in shapes)
    return [value.to(dtype) for value in (q, k, v, logsigmoid(gate + 1.5 * gates), state)]


def run(op, inputs, seed=1):
    leaves = [value.detach().clone().requires_grad_() for value in inputs]
    results = op(*leaves)
    draw = torch.Generator().manual_seed(seed)
    total = sum(
        (result * torch.randn(result.shape, generator=draw, dtype=torch.float64).to(result.dtype)).sum()
        for result in results
    )
    return [*results, *torch.autograd.grad(total, leaves)]


def against_reference(inputs, relative):
    got, want = run(gated_linear_attention, inputs), run(reference, [value.double() for value in inputs])
    for name, actual, expected in zip(NAMES, got, want, strict=True):
        scale = max(expected.abs().max().item(), 1e-3)
        assert (actual.double() - expected).abs().max().item() <= relative * scale, name


@pytest.mark.parametrize("steps", LENGTHS)
def test_results_and_all_gradients_equal_the_reference(steps):
    against_reference(make_inputs(2, steps), 1e-12)


@pytest.mark.parametrize("heads, keys", HEADS)
def test_every_grouping_of_heads_reads_its_own_keys(heads, keys):
    against_reference(make_inputs(2, 141, heads, keys), 1e-12)


@pytest.mark.parametrize("gate", [-60.0, -4.0, 0.0, 12.0])
def test_short_and_long_memories(gate):
    against_reference(make_inputs(1, 150, gate=gate), 1e-12)


@pytest.mark.parametrize("size", [1, 5, 300])
def test_blocks_of_any_size_agree(size, monkeypatch):
    monkeypatch.setattr(blocked, "BLOCK", size)
    against_reference(make_inputs(2, 63, 4, 2), 1e-12)


@pytest.mark.parametrize("steps", [63, 400])
def test_float32_stays_within_rounding(steps):
    against_reference(make_inputs(2, steps, dtype=torch.float32), 2e-5)


def test_no_state_is_a_state_of_zeros():
    *inputs, state = make_inputs(2, 77)
    for got, want in zip(gated_linear_attention(*inputs), reference(*inputs, torch.zeros_like(state)), strict=True):
        torch.testing.assert_close(got, want, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("heads, keys", [(1, 1), (4, 2)])
def test_steps_carry_the_state_through_any_split(heads, keys):
    *inputs, state = make_inputs(1, 333, heads, keys)
    whole, last = gated_linear_attention(*inputs, state)
    pieces, now = [], state
    for begin, end in ((0, 1), (1, 18), (18, 130), (130, 333)):
        part, now = gated_linear_attention(*(value[:, begin:end] for value in inputs), now)
        pieces.append(part)
    torch.testing.assert_close(torch.cat(pieces, 1), whole, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(now, last, rtol=1e-12, atol=1e-12)
    now, singles = state[0], []
    for t in range(333):
        one, now = step(*(value[0, t] for value in inputs), now)
        singles.append(one)
    torch.testing.assert_close(torch.stack(singles), whole[0], rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(now, last[0], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("op", [gated_linear_attention, lambda *given: sums(*given)], ids=["processor", "devices"])
def test_a_padded_batch_equals_its_sequences_and_padding_gets_no_gradient(op):
    lengths, fill = (130, 63, 1), 9.0
    alone = [make_inputs(1, length, 4, 2, seed=length) for length in lengths]
    whole = [torch.full((3, 130, *value.shape[2:]), fill, dtype=torch.float64) for value in alone[0][:4]]
    whole.append(torch.cat([given[4] for given in alone]))
    for row, given in enumerate(alone):
        for value, part in zip(whole, given[:4], strict=False):
            value[row, : part.shape[1]] = part[0]
    whole[3].clamp_(max=0.0)

    def gradients(given, length):
        leaves = [value.detach().requires_grad_() for value in given]
        o, _ = op(*leaves)
        draw = torch.randn(130, 4, 6, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
        mask = torch.arange(o.shape[1]) < torch.as_tensor(length)[:, None]
        total = (o * draw[: o.shape[1]] * mask[..., None, None]).sum()
        return o, torch.autograd.grad(total, leaves)

    o, got = gradients(whole, lengths)
    for row, (length, given) in enumerate(zip(lengths, alone, strict=True)):
        one, want = gradients(given, [length])
        torch.testing.assert_close(o[row, :length], one[0], rtol=1e-11, atol=1e-11)
        for actual, expected in zip(got[:4], want[:4], strict=True):
            torch.testing.assert_close(actual[row, :length], expected[0], rtol=1e-10, atol=1e-10)
            assert (actual[row, length:] == 0).all()
        torch.testing.assert_close(got[4][row], want[4][0], rtol=1e-10, atol=1e-10)


def test_unwritten_memory_would_show():
    inputs = make_inputs(2, 100)
    torch.utils.deterministic.fill_uninitialized_memory = True
    torch.use_deterministic_algorithms(True)
    try:
        assert all(result.isfinite().all() for result in gated_linear_attention(*inputs))
    finally:
        torch.use_deterministic_algorithms(False)


def test_wrong_shapes_and_types_are_named():
    q, k, v, log_f, state = make_inputs(1, 5, 4, 2)
    with pytest.raises(ValueError, match=r"k has shape .* K a divisor of 4"):
        gated_linear_attention(q, k.repeat(1, 1, 2, 1)[:, :, :3], v, log_f)
    with pytest.raises(ValueError, match="log_f has shape"):
        gated_linear_attention(q, k, v, log_f[:, :4])
    with pytest.raises(ValueError, match="state has shape"):
        gated_linear_attention(q, k, v, log_f, state[:, :1])
    with pytest.raises(ValueError, match="T at least 1"):
        gated_linear_attention(*(value[:, :0] for value in (q, k, v, log_f)), state)
    with pytest.raises(TypeError, match="v is torch.int64"):
        gated_linear_attention(q, k, v.long(), log_f)


class Op(torch.nn.Module):
    def forward(self, q, k, v, log_f, state):
        return gated_linear_attention(q, k, v, log_f, state)


def session_of(model):
    return onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])


def captured(inputs):
    import onnx_ir as ir

    names = ["q", "k", "v", "log_f", "state"]
    return ir.serde.serialize_model(capture_module(Op(), "op", inputs, names, ["o", "last"]))


@pytest.mark.parametrize("steps, heads, keys", [(1, 2, 1), (63, 2, 1), (65, 6, 3), (200, 4, 4)])
def test_onnx_function_equals_the_reference_in_stock_onnxruntime(steps, heads, keys):
    inputs = make_inputs(1, steps, heads, keys, dtype=torch.float32)
    model = captured(inputs)
    assert [node.op_type for node in model.graph.node if node.domain] == ["GatedLinearAttention"]
    onnx.checker.check_model(model)
    got = session_of(model).run(
        None, dict(zip(["q", "k", "v", "log_f", "state"], map(np.asarray, inputs), strict=True))
    )
    want = reference(*(value.double() for value in inputs))
    for actual, expected in zip(got, want, strict=True):
        assert np.abs(actual - expected.numpy()).max() <= 2e-5 * float(expected.abs().max())


def test_onnxruntimes_own_operator_computes_the_same():
    """`com.microsoft.LinearAttention` with `update_rule` gated, which ONNX takes over in operator set 27."""
    q, k, v, log_f, state = make_inputs(1, 70, 2, 2, width=8, out=8, dtype=torch.float32)
    node = onnx.helper.make_node(
        "LinearAttention",
        ["q", "k", "v", "state", "log_f"],
        ["o", "last"],
        domain="com.microsoft",
        q_num_heads=2,
        kv_num_heads=2,
        update_rule="gated",
        scale=float(8**-0.5),
    )
    kind = onnx.TensorProto.FLOAT
    feeds = {"q": q.flatten(2), "k": k.flatten(2), "v": v.flatten(2), "state": state, "log_f": log_f}
    graph = onnx.helper.make_graph(
        [node],
        "own",
        [onnx.helper.make_tensor_value_info(name, kind, value.shape) for name, value in feeds.items()],
        [onnx.helper.make_tensor_value_info(name, kind, None) for name in ("o", "last")],
    )
    opsets = [onnx.helper.make_opsetid("", 20), onnx.helper.make_opsetid("com.microsoft", 1)]
    model = onnx.helper.make_model(graph, opset_imports=opsets, ir_version=10)
    try:
        session = session_of(model)
    except onnxruntime.capi.onnxruntime_pybind11_state.InvalidGraph as error:
        pytest.skip(f"this onnxruntime has no LinearAttention: {error}")
    o, last = session.run(None, {name: value.numpy() for name, value in feeds.items()})
    want, want_last = gated_linear_attention(q, k, v, log_f, state)
    assert np.abs(o.reshape(want.shape) - want.numpy()).max() <= 2e-5 * float(want.abs().max())
    assert np.abs(last - want_last.numpy()).max() <= 2e-5 * float(want_last.abs().max())


def test_flash_linear_attention_is_asked_in_its_own_terms(monkeypatch):
    """Its kernels need a CUDA device; what is passed to them does not."""

    def chunk_simple_gla(q, k, v, g=None, scale=None, initial_state=None, output_final_state=False):
        assert output_final_state
        assert k.shape[2] == v.shape[2] == g.shape[2] == q.shape[2]
        return reference(q * scale * q.shape[3] ** 0.5, k, v, g, initial_state)

    for name in ("fla", "fla.ops"):
        monkeypatch.setitem(sys.modules, name, SimpleNamespace(__path__=[]))
    monkeypatch.setitem(sys.modules, "fla.ops.simple_gla", SimpleNamespace(chunk_simple_gla=chunk_simple_gla))
    inputs = make_inputs(1, 40, 4, 2, dtype=torch.float32)
    for got, want in zip(peer.attend(*inputs), reference(*inputs), strict=True):
        torch.testing.assert_close(got, want, rtol=1e-5, atol=1e-5)


def sums(*inputs):
    return torch.ops.neurocompile.gated_linear_attention_sums(*inputs)


@pytest.mark.parametrize("dtype, bound", [(torch.float64, 1e-12), (torch.float32, 2e-5)])
def test_the_operator_of_devices_has_the_same_results_and_gradients(dtype, bound):
    inputs = make_inputs(2, 100, 4, 2, dtype=dtype)
    got, want = run(sums, inputs), run(reference, [value.double() for value in inputs])
    for name, actual, expected in zip(NAMES, got, want, strict=True):
        scale = max(expected.abs().max().item(), 1e-3)
        assert (actual.double() - expected).abs().max().item() <= bound * scale, name


def test_the_operator_of_devices_takes_a_loss_of_one_result_alone():
    inputs = [value.requires_grad_() for value in make_inputs(1, 30)]
    for part in range(2):
        got = torch.autograd.grad(sums(*inputs)[part].square().sum(), inputs, allow_unused=True)
        want = torch.autograd.grad(reference(*inputs)[part].square().sum(), inputs, allow_unused=True)
        for actual, expected in zip(got, want, strict=True):
            expected = torch.zeros_like(actual) if expected is None else expected
            torch.testing.assert_close(actual, expected, rtol=1e-10, atol=1e-10)


def test_the_operator_of_devices_keeps_torchs_contract():
    """Schema, fake kernel and autograd registration, checked by torch itself."""
    inputs = tuple(value.requires_grad_() for value in make_inputs(2, 19, 4, 2, dtype=torch.float32))
    torch.library.opcheck(torch.ops.neurocompile.gated_linear_attention_sums.default, inputs)
