"""Our ops as operators of torch for other compilers, and what torch-tensorrt is told of them."""

from __future__ import annotations

import io
import re
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

pytest.importorskip("triton", reason="Triton is published for Linux only")

import fake_torch_tensorrt as fakes
from neurocompile.interop import torch_tensorrt as interop
from neurocompile.ops.diagonal_scan import diagonal_scan
from neurocompile.ops.diagonal_scan import reference as scan_reference
from neurocompile.ops.forgetting_attention import forgetting_attention
from neurocompile.ops.forgetting_attention import reference as attention_reference
from neurocompile.ops.gated_linear_attention import gated_linear_attention
from neurocompile.ops.gated_linear_attention import reference as gated_reference
from neurocompile.ops.lif import Neuron, lif
from neurocompile.ops.lif import reference as lif_reference
from neurocompile.ops.running_sum import running_sum, sum_of_later
from neurocompile.targets.trt.plugins import ptx
from runtime.errors import UserError

OPERATORS = """
_reshape_copy.default _to_copy.default add.Tensor amax.default arange.start_step bmm.default cat.default clone.default
div.Tensor exp.default expand.default full.default full_like.default ge.Scalar ge.Tensor gt.Scalar gt.Tensor
log.default matmul.default mul.Tensor permute.default select.int slice.Tensor sub.Tensor sum.dim_IntList squeeze.dim
squeeze.dims unsqueeze.default view.default where.self
"""
"""What torch-tensorrt 2.13 and 2.14 convert, of all that the static forms are made of; no loops among them."""


class Model(nn.Module):
    """Every op once."""

    def __init__(self) -> None:
        super().__init__()
        self.mix = nn.Linear(32, 32)

    def forward(self, q, k, v, log_f):
        o = forgetting_attention(q, k, v, log_f)
        p, _ = gated_linear_attention(q, k, v, log_f)
        a = o.flatten(2).tanh()
        x_re, x_im = diagonal_scan(a * 0.5, a * 0.3, o.flatten(2), p.flatten(2))
        spikes, _ = lif(torch.stack((x_re, x_im, x_re)), 0.5, neuron=Neuron(v_reset=0.0))
        return self.mix(x_re + x_im) + spikes.sum(0)


def inputs(steps: int, dtype: torch.dtype = torch.float32, width: int = 8) -> tuple[torch.Tensor, ...]:
    generator = torch.Generator().manual_seed(steps)
    q, k, v = (torch.randn(2, steps, heads, width, generator=generator, dtype=dtype) for heads in (4, 2, 2))
    return q, k, v, -torch.rand(2, steps, 4, generator=generator, dtype=dtype)


@pytest.fixture
def model() -> Model:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return Model().eval()


@pytest.fixture(autouse=True)
def fresh():
    torch._dynamo.reset()


FIELDS = {
    "soft": (1.0, None, False, "atan", 2.0, False),
    "hard, strict": (0.5, 0.25, True, "rectangle", 1.0, True),
}


def operands(op: str, steps: int, *, gradients: bool = False) -> tuple[Any, ...]:
    generator = torch.Generator().manual_seed(steps)
    shapes = {
        "diagonal_scan": [(2, steps, 5)] * 4 + [(2, 5)] * 2,
        "forgetting_attention": [(2, steps, 4, 8), (2, steps, 2, 8), (2, steps, 2, 8), (2, steps, 4)],
        "gated_linear_attention": [
            (2, steps, 4, 8),
            (2, steps, 1, 8),
            (2, steps, 1, 6),
            (2, steps, 4),
            (2, 4, 8, 6),
        ],
        "lif": [(steps, 2, 5), (5,), (2, 5)],
    }[op]
    values = [torch.randn(shape, generator=generator, dtype=torch.float64) for shape in shapes]
    if op == "diagonal_scan":
        values[:2] = [value.tanh() * 0.7 for value in values[:2]]
    elif op == "lif":
        values[1] = values[1].sigmoid()
    else:
        values[3] = -values[3].abs()
    fields = (*FIELDS["soft"], gradients) if op == "lif" else ()
    return *(value.float().requires_grad_(gradients) for value in values), *fields


INNER = {op.folder: op for op in interop.OPS}
REFERENCE = {
    "diagonal_scan": scan_reference.diagonal_scan,
    "forgetting_attention": lambda *given: (attention_reference.forgetting_attention(*given),),
    "gated_linear_attention": gated_reference.gated_linear_attention,
}


@pytest.mark.parametrize("op", INNER)
def test_opcheck(op):
    """Schema, fake kernel, gradient, and torch.compile with symbolic shapes, by torch's own checks."""
    _, (inner, _) = INNER[op].overloads()
    found = torch.library.opcheck(inner, operands(op, 7, gradients=True))
    assert set(found.values()) == {"SUCCESS"}
    assert len(found) == 4


@pytest.mark.parametrize("op", REFERENCE)
@pytest.mark.parametrize("steps", [1, 2, 63, 100, 515])
def test_static_forms_are_the_definition(op, steps):
    given = operands(op, steps)
    wanted = REFERENCE[op](*(value.double() for value in given))
    got = INNER[op].expand()(*given)
    for one, other in zip(got, wanted, strict=False):
        assert one.dtype == torch.float32
        torch.testing.assert_close(one.double(), other, atol=2e-5, rtol=2e-5)
    _, (inner, _) = INNER[op].overloads()
    for one, other in zip(got, inner(*given), strict=True):  # the sums of softmaxes too
        assert one.shape == other.shape
        torch.testing.assert_close(one, other, atol=2e-5, rtol=2e-5)


@pytest.mark.parametrize("kind", FIELDS)
@pytest.mark.parametrize("decay", [(), (5,), (2, 5), (1, 2, 5), (9, 2, 5)])
def test_static_neurons_spike_where_the_op_does(kind, decay):
    generator = torch.Generator().manual_seed(3)
    x, v = torch.randn(9, 2, 5, generator=generator), torch.randn(2, 5, generator=generator)
    given = (x, torch.rand(decay, generator=generator), v, *FIELDS[kind])
    op = INNER["lif"]
    _, (inner, _) = op.overloads()
    for keep in (False, True):
        for one, other in zip(op.expand()(*given, keep), inner(*given, keep), strict=True):
            torch.testing.assert_close(one, other, atol=0, rtol=0)
    spikes, last = lif_reference.lif(x, given[1], v, Neuron(*FIELDS[kind]))
    assert 0 < spikes.sum() < spikes.numel()
    torch.testing.assert_close(op.expand()(*given)[:2], (spikes, last), atol=0, rtol=0)


@pytest.mark.parametrize("length", [1, 2, 7, 64])
def test_running_sums(length):
    value = torch.randn(3, length, 2, dtype=torch.float64)
    torch.testing.assert_close(running_sum(value, 1), value.cumsum(1))
    torch.testing.assert_close(sum_of_later(value, 1), value.flip(1).cumsum(1).flip(1) - value)


def test_an_exported_program_takes_any_length_and_survives_a_file(model):
    length = torch.export.Dim("steps", min=2, max=1024)
    program = torch.export.export(model, inputs(7), dynamic_shapes=[{1: length}] * 4)
    names = {str(node.target) for node in program.graph.nodes}
    assert {f"neurocompile.{op}.default" for op in INNER} <= names
    file = io.BytesIO()
    torch.export.save(program, file)
    file.seek(0)
    loaded = torch.export.load(file)
    for steps in (2, 63, 100):
        given = inputs(steps)
        wanted = model(*given)
        torch.testing.assert_close(loaded.module()(*given), wanted)
        torch.testing.assert_close(program.run_decompositions({}).module()(*given), wanted)


def test_torch_compile_makes_one_graph_with_gradients(model):
    seen = []

    def backend(module, given):
        seen.append([str(node.target) for node in module.graph.nodes if node.op == "call_function"])
        return torch._dynamo.lookup_backend("aot_eager")(module, given)

    compiled = torch.compile(model, backend=backend, fullgraph=True)
    given = [value.requires_grad_() for value in inputs(9)]
    gradients = [torch.autograd.grad(f(*given).square().sum(), given) for f in (compiled, model)]
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other, atol=1e-4, rtol=1e-4)
    assert len(seen) == 1
    assert [name for name in seen[0] if name.startswith("neurocompile")] == [
        f"neurocompile.{op}" for op in ("forgetting_attention", "gated_linear_attention", "diagonal_scan", "lif")
    ]


def test_without_plugins_native_layers(model, monkeypatch):
    fake = fakes.Fake(monkeypatch, plugins=False)
    said = interop.register()
    assert said == dict.fromkeys(INNER, "native layers (this TensorRT has no quick-deployable plugins)")
    assert interop.register() == said  # a second time changes nothing
    assert not fake.converters
    with torch.no_grad():
        given = inputs(63)
        wanted = model(*given)
        compiled = torch.compile(model, backend=fake.backend, fullgraph=True)
        torch.testing.assert_close(compiled(*given), wanted, atol=1e-5, rtol=1e-5)
        names = {str(node.target) for node in fake.graph.graph.nodes if node.op == "call_function"}
        assert not {name for name in names if "neurocompile" in name}
        program = torch.export.export(model, given).run_decompositions(dict(fake.decompositions))
        torch.testing.assert_close(program.module()(*given), wanted, atol=1e-5, rtol=1e-5)
        names |= {str(node.target) for node in program.graph.nodes if node.op == "call_function"}
        assert not {name for name in names if "neurocompile" in name}


def test_native_layers_are_such_as_torch_tensorrt_converts(monkeypatch):
    fake = fakes.Fake(monkeypatch, plugins=False)
    interop.register(plugins=False)
    from torch._decomp import core_aten_decompositions

    # torch-tensorrt's own table takes apart what has no converter; torch's is close to it.
    table = {**core_aten_decompositions(), **fake.decompositions}
    for op in INNER.values():
        program = torch.export.export(Wrapped(op.overloads()[1][0]), operands(op.folder, 63))
        nodes = program.run_decompositions(table).graph.nodes
        names = {str(node.target).removeprefix("aten.") for node in nodes if node.op == "call_function"}
        # An alias is nothing at all; torch makes one of a slice that takes everything.
        left = names - set(OPERATORS.split()) - {"<built-in function getitem>", "alias.default"}
        assert not left, op.folder


class Wrapped(nn.Module):
    def __init__(self, op) -> None:
        super().__init__()
        self.op = op

    def forward(self, *given):
        return self.op(*given)


@pytest.mark.parametrize(
    ("dtype", "capability"),
    [(torch.float32, 87), pytest.param(torch.bfloat16, 90, marks=pytest.mark.slow)],
)
def test_plugins_of_the_training_kernels(model, monkeypatch, dtype, capability):
    fake = fakes.Fake(monkeypatch, plugins=True)
    assert interop.register(capability=capability) == dict.fromkeys(INNER, "plugin")
    assert len(fake.converters) == 8
    assert not fake.decompositions
    given = inputs(63, dtype, width=8)
    model = model.to(dtype) if dtype != torch.float32 else model
    with torch.no_grad():
        wanted = Attention()(*given)
        compiled = torch.compile(Attention(), backend=fake.backend, fullgraph=True)
        torch.testing.assert_close(compiled(*given), wanted)
    assert not fake.left
    plugins = [(name, launch) for kind, name, _, launch in fake.network.layers if kind == "plugin"]
    # The kernels that an op launches, in series.
    assert len(plugins) == 3 + 1 + 1
    assert all(f".target sm_{capability}" in launch.code for _, launch in plugins)
    for _, launch in plugins:
        assert len(ptx.parameters(launch.code)) == len(launch.arguments)
    casts = [dtype for kind, dtype, *_ in fake.network.layers if kind == "cast"]
    # Gates twice, a state once; what goes into the neurons, and spikes back.
    assert casts == ([] if dtype == torch.float32 else ["FLOAT"] * 4 + ["BF16"])


class Attention(nn.Module):
    def forward(self, q, k, v, log_f):
        o = forgetting_attention(q, k, v, log_f) + gated_linear_attention(q, k, v, log_f)[0]
        spikes, last = lif(o.to(q.dtype), 0.5, neuron=Neuron(strict=True))
        return o, spikes, last


def test_what_a_plugin_cannot_take_stays_with_pytorch(monkeypatch):
    fake = fakes.Fake(monkeypatch, plugins=True)
    interop.register(capability=90)
    op = INNER["forgetting_attention"]
    (own, _), (inner, _) = op.overloads()

    def reason(function, given, overload, dynamic=None):
        program = torch.export.export(Wrapped(function), given, dynamic_shapes=dynamic)
        [node] = [node for node in program.graph.nodes if node.target == overload]
        return interop.why_not(op, node, 90)

    assert reason(own, inputs(7), own) == ""
    assert reason(inner, inputs(7), inner) == "a result is wanted that the plugin keeps to itself"
    open_length = (({1: torch.export.Dim("steps", min=2, max=64)},) * 4,)
    assert reason(own, inputs(7), own, open_length) == "a shape is open"
    assert "there is no kernel for torch.float64" in reason(own, inputs(7, torch.float64), own)
    assert "channels" in reason(own, inputs(7, width=512), own)
    with torch.no_grad():
        compiled = torch.compile(Attention(), backend=fake.backend, fullgraph=True)
        given = inputs(5, torch.float64)
        torch.testing.assert_close(compiled(*given), Attention()(*given))
    assert len(fake.left) == 3 and not fake.network.layers


def test_reasons_against_plugins(monkeypatch):
    fakes.Fake(monkeypatch, plugins=True)
    assert set(interop.register(plugins=False).values()) == {"native layers (not asked for)"}
    if not torch.cuda.is_available():
        said = set(interop.register().values())
        assert said == {"native layers (torch sees no GPU whose machine code to make)"}
    assert set(interop.register(capability=52).values()) == {"native layers (no kernels are made for sm_52)"}
    monkeypatch.delattr(sys.modules["tensorrt.plugin"], "aot_impl")
    assert "10.9 was the first" in next(iter(interop.register(capability=90).values()))


def test_without_torch_tensorrt_there_is_one_sentence(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch_tensorrt", None)
    with pytest.raises(UserError, match=r"torch-tensorrt cannot be imported here .*; install torch-tensorrt and"):
        interop.register()


def test_the_example_of_the_docs_runs(monkeypatch):
    """With the stand-in as the backend `tensorrt`."""
    page = (Path(__file__).parents[2] / "docs" / "torch_tensorrt.md").read_text()
    [code] = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    fake = fakes.Fake(monkeypatch, plugins=False)
    code = code.replace('backend="tensorrt"', "backend=backend")
    assert "backend=backend" in code
    scope = {"backend": fake.backend}
    exec(compile(code.replace(".cuda()", ""), "docs/torch_tensorrt.md", "exec"), scope)
    assert fake.graph is not None
