from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch
from torch import nn

from neurocompile.ops.diagonal_scan import diagonal_scan
from neurocompile.ops.diagonal_scan.onnx_function import FUNCTION
from neurocompile.ops.diagonal_scan.reference import diagonal_scan as reference
from onnx_export import session, to_onnx

OP = ("neurocompile", "DiagonalScan")


class Layer(nn.Module):
    """A small diagonal layer around the op, with real time constants and a carried state."""

    def __init__(self, op=diagonal_scan, width=6):
        super().__init__()
        draw = torch.Generator().manual_seed(0)
        self.op = op
        self.rate = nn.Parameter(-torch.rand(width, generator=draw))
        self.turn = nn.Parameter(3 * torch.randn(width, generator=draw))
        self.project = nn.Parameter(torch.randn(4, width, generator=draw))

    def forward(self, u, dt, x0_re, x0_im):
        dt = dt[..., None]
        size = torch.exp(self.rate * dt)
        a_re, a_im = size * torch.cos(self.turn * dt), size * torch.sin(self.turn * dt)
        b = u @ self.project
        x_re, x_im = self.op(a_re, a_im, b, 0.5 * b, x0_re, x0_im)
        return x_re @ self.project.T, x_re[:, -1], x_im[:, -1]


def layer_inputs(batch, steps, width=6):
    draw = torch.Generator().manual_seed(steps)
    shapes = [(batch, steps, 4), (batch, steps), (batch, width), (batch, width)]
    u, dt, x0_re, x0_im = (torch.randn(*shape, generator=draw) for shape in shapes)
    return u, dt.abs(), x0_re, x0_im


def assert_runs_like_the_reference(runner, inputs):
    results = runner.run(None, {value.name: x.numpy() for value, x in zip(runner.get_inputs(), inputs, strict=True)})
    with torch.no_grad():
        expected = Layer(reference).double()(*(value.double() for value in inputs))
    for result, want in zip(results, expected, strict=True):
        assert np.abs(result - want.numpy()).max() <= 3e-6 * want.abs().max()


@pytest.mark.parametrize("first_captured", [False, True], ids=["exporter alone", "torch.export first"])
@pytest.mark.parametrize("batch, steps", [(1, 1), (1, 2), (2, 63), (1, 111), (1, 256)])
def test_one_node_whose_body_onnxruntime_runs(batch, steps, first_captured):
    module, inputs = Layer().eval(), layer_inputs(batch, steps)
    if first_captured:
        module = torch.export.export(module, inputs, strict=False)
        ops = [str(node.target) for node in module.graph.nodes if "neurocompile" in str(node.target)]
        assert ops == ["neurocompile.diagonal_scan.default"]
    proto = to_onnx(FUNCTION, module, inputs)
    assert [(node.domain, node.op_type) for node in proto.graph.node].count(OP) == 1
    assert [(f.domain, f.name) for f in proto.functions] == [OP]
    assert not {node.op_type for node in proto.functions[0].node if node.domain}
    assert_runs_like_the_reference(session(proto), inputs)


def test_one_graph_serves_all_lengths():
    steps = torch.export.Dim("steps", min=2, max=4096)
    shapes = ({1: steps}, {1: steps}, None, None)
    runner = session(to_onnx(FUNCTION, Layer().eval(), layer_inputs(1, 50), dynamic_shapes=shapes))
    for length in (2, 15, 16, 17, 100, 1023):
        assert_runs_like_the_reference(runner, layer_inputs(1, length))


def test_without_an_initial_state_it_is_zero_in_the_graph():
    class Scan(nn.Module):
        def forward(self, a, b):
            return diagonal_scan(a, 0.5 * a, b, b)

    inputs = 0.8 * torch.rand(2, 20, 3), torch.randn(2, 20, 3)
    results = session(to_onnx(FUNCTION, Scan(), inputs)).run(None, {"a": inputs[0].numpy(), "b": inputs[1].numpy()})
    a, b = (value.double() for value in inputs)
    for result, want in zip(results, reference(a, 0.5 * a, b, b), strict=True):
        np.testing.assert_allclose(result, want.numpy(), rtol=0, atol=3e-6 * want.abs().max().item())


def test_the_body_serves_float64_too():
    proto = to_onnx(FUNCTION, Layer().double().eval(), tuple(value.double() for value in layer_inputs(1, 33)))
    inputs = [value.double() for value in layer_inputs(1, 33)]
    runner = session(proto)
    results = runner.run(None, {value.name: x.numpy() for value, x in zip(runner.get_inputs(), inputs, strict=True)})
    with torch.no_grad():
        expected = Layer(reference).double()(*inputs)
    for result, want in zip(results, expected, strict=True):
        np.testing.assert_allclose(result, want.numpy(), rtol=0, atol=1e-12)


def test_attach_leaves_other_models_alone():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = torch.onnx.export(nn.Linear(2, 2), (torch.zeros(1, 2),), dynamo=True, verbose=False).model
    before = set(model.functions), dict(model.opset_imports)
    FUNCTION.attach(model)
    assert (set(model.functions), dict(model.opset_imports)) == before


def test_the_operator_keeps_torchs_contract():
    """Schema, fake kernel and autograd registration, checked by torch itself."""
    draw = torch.Generator().manual_seed(0)
    shapes = [(2, 19, 3)] * 4 + [(2, 3)] * 2
    inputs = tuple(torch.randn(*shape, generator=draw, requires_grad=True) for shape in shapes)
    torch.library.opcheck(torch.ops.neurocompile.diagonal_scan_states.default, inputs)


def test_a_compiled_layer_trains_like_an_eager_one():
    eager, compiled = Layer(), torch.compile(Layer(), backend="aot_eager", fullgraph=True)
    inputs = layer_inputs(2, 37)
    for module in (eager, compiled):
        module(*inputs)[0].square().sum().backward()
    for (name, one), two in zip(eager.named_parameters(), compiled.parameters(), strict=True):
        torch.testing.assert_close(one.grad, two.grad, msg=lambda text, name=name: f"{name}: {text}")
