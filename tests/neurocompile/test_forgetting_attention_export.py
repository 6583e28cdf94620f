from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.functional import logsigmoid

from neurocompile.ops.forgetting_attention import forgetting_attention
from neurocompile.ops.forgetting_attention.onnx_function import FUNCTION
from neurocompile.ops.forgetting_attention.reference import forgetting_attention as reference
from onnx_export import session, to_onnx

OP = ("neurocompile", "ForgettingAttention")


class Layer(nn.Module):
    """A small attention layer around the op, in both directions."""

    def __init__(self, heads=2, keys=1, width=5, op=forgetting_attention):
        super().__init__()
        draw = torch.Generator().manual_seed(0)
        self.op, self.heads, self.keys = op, heads, keys
        sizes = (heads * width, keys * width, keys * width, heads)
        self.maps = nn.ParameterList(torch.randn(6, size, generator=draw) for size in sizes)

    def forward(self, x):
        x = torch.cat((x, x.flip(1)))
        q, k, v, f = (x @ weights for weights in self.maps)
        q, k, v = (u.unflatten(2, (n, -1)) for u, n in ((q, self.heads), (k, self.keys), (v, self.keys)))
        return self.op(q, k, v, logsigmoid(2 + f)).flatten(2)


def assert_runs_like_the_reference(runner, layer, x, bound):
    (result,) = runner.run(None, {runner.get_inputs()[0].name: x.numpy()})
    wide = Layer(layer.heads, layer.keys, op=reference).double()
    wide.load_state_dict(layer.state_dict())
    with torch.no_grad():
        want = wide(x.double()).numpy()
    assert result.shape == want.shape
    assert np.abs(result - want).max() <= bound * np.abs(want).max()


@pytest.mark.parametrize("first_captured", [False, True], ids=["exporter alone", "torch.export first"])
@pytest.mark.parametrize("heads, keys, steps", [(2, 1, 1), (2, 1, 63), (6, 3, 130), (1, 1, 256)])
def test_one_node_whose_body_onnxruntime_runs(heads, keys, steps, first_captured):
    layer, x = Layer(heads, keys).eval(), torch.randn(1, steps, 6, generator=torch.Generator().manual_seed(steps))
    module = layer
    if first_captured:
        module = torch.export.export(layer, (x,), strict=False)
        ops = [str(node.target) for node in module.graph.nodes if "neurocompile" in str(node.target)]
        assert ops == ["neurocompile.forgetting_attention.default"]
    proto = to_onnx(FUNCTION, module, (x,))
    assert [(node.domain, node.op_type) for node in proto.graph.node].count(OP) == 1
    assert [(f.domain, f.name) for f in proto.functions] == [OP]
    assert not {node.op_type for node in proto.functions[0].node if node.domain}
    assert_runs_like_the_reference(session(proto), layer, x, 3e-6)


def test_one_graph_serves_all_lengths():
    layer = Layer(4, 2).eval()
    steps = torch.export.Dim("steps", min=2, max=4096)
    runner = session(to_onnx(FUNCTION, layer, (torch.randn(1, 50, 6),), dynamic_shapes=({1: steps},)))
    for length in (2, 63, 64, 65, 500):
        x = torch.randn(1, length, 6, generator=torch.Generator().manual_seed(length))
        assert_runs_like_the_reference(runner, layer, x, 3e-6)


def test_the_body_serves_float64_too():
    layer = Layer().double().eval()
    x = torch.randn(2, 133, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    assert_runs_like_the_reference(session(to_onnx(FUNCTION, layer, (x,))), layer, x, 1e-13)


def test_the_operator_keeps_torchs_contract():
    """Schema, fake kernel and autograd registration, checked by torch itself."""
    draw = torch.Generator().manual_seed(0)
    shapes = [(2, 19, 4, 3), (2, 19, 2, 3), (2, 19, 2, 3), (2, 19, 4)]
    inputs = tuple(torch.randn(*shape, generator=draw, requires_grad=True) for shape in shapes)
    torch.library.opcheck(torch.ops.neurocompile.forgetting_attention_sums.default, inputs)


def test_a_compiled_layer_trains_like_an_eager_one():
    eager, compiled = Layer(), torch.compile(Layer(), backend="aot_eager", fullgraph=True)
    x = torch.randn(2, 37, 6, generator=torch.Generator().manual_seed(0))
    for module in (eager, compiled):
        module(x).square().sum().backward()
    for (name, one), two in zip(eager.named_parameters(), compiled.parameters(), strict=True):
        torch.testing.assert_close(one.grad, two.grad, msg=lambda text, name=name: f"{name}: {text}")


def test_the_body_keeps_single_gates_in_long_sequences():
    """Prefix sums of thousands, whose float32 differences would be wrong in the fourth place."""

    class Op(nn.Module):
        def forward(self, q, k, v, log_f):
            return forgetting_attention(q, k, v, log_f)

    draw = torch.Generator().manual_seed(0)
    inputs = [torch.randn(1, 700, 1, 4, generator=draw) for _ in range(3)]
    log_f = logsigmoid(torch.randn(1, 700, 1, generator=draw))
    log_f[:, ::9] = -300.0
    runner = session(to_onnx(FUNCTION, Op(), (*inputs, log_f)))
    (result,) = runner.run(
        None, {i.name: x.numpy() for i, x in zip(runner.get_inputs(), (*inputs, log_f), strict=True)}
    )
    want = reference(*(value.double() for value in (*inputs, log_f))).numpy()
    assert np.abs(result - want).max() <= 2e-6 * np.abs(want).max()
