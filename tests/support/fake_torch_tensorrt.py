"""torch-tensorrt 2.13's and 2.14's registries, and a network that writes down what is put into it.

`backend` traces as torch-tensorrt's backend of `torch.compile` does: the graph with the registered decompositions, and
then the registered converter for every node whose validator lets it pass.
"""

from __future__ import annotations

import operator
import sys
from types import ModuleType, SimpleNamespace

import torch
from torch._decomp import register_decomposition
from torch._functorch.aot_autograd import aot_export_joint_simple

import fake_plugin

KINDS = {torch.float32: "FLOAT", torch.bfloat16: "BF16", torch.float16: "HALF"}


class Tensor:
    """A tensor of a network: no numbers."""

    def __init__(self, shape, dtype) -> None:
        self.shape, self.dtype = tuple(shape), dtype


class Layer:
    def __init__(self, outputs) -> None:
        self.outputs, self.name = outputs, ""

    def get_output(self, place: int) -> Tensor:
        return self.outputs[place]


class Network:
    """Attributes: `layers`, in order, as (kind, plugin name or type, layer, what it would launch)."""

    def __init__(self, plugin) -> None:
        self.layers, self.plugin = [], plugin

    def add_cast(self, tensor: Tensor, dtype: str) -> Layer:
        self.layers.append(("cast", dtype, Layer([Tensor(tensor.shape, dtype)]), None))
        return self.layers[-1][2]

    def add_plugin(self, made, aot: bool) -> Layer:
        name, inputs = made
        assert aot is True
        assert all(isinstance(value, Tensor) for value in inputs), name
        launch = self.plugin.drive(name, [value.shape for value in inputs], [value.dtype for value in inputs])
        layer = Layer([Tensor(shape, dtype) for shape, dtype in zip(launch.shapes, launch.types, strict=True)])
        self.layers.append(("plugin", name, layer, launch))
        return layer


class Fake:
    """Puts the modules in place.

    Args:
        patch: pytest's monkeypatch.
        plugins: Whether this TensorRT has quick-deployable plugins.
    """

    def __init__(self, patch, *, plugins: bool) -> None:
        self.plugin = _callable(fake_plugin.module())
        self.decompositions, self.converters = {}, {}
        self.network = Network(self.plugin)

        def converter(key, *, capability_validator=None, **options):
            assert not options
            return lambda function: self.converters.setdefault(key, (capability_validator, function))

        def tensor(ctx, value, name):
            assert isinstance(value, Tensor) and name
            return value

        register = lambda op, registry=None: register_decomposition(op, registry=registry)  # noqa: E731
        types = SimpleNamespace(FLOAT="FLOAT", BF16="BF16", HALF="HALF", INT32="INT32")
        self._put(patch, "tensorrt", DataType=types, __version__="11.0.0")
        self._put(patch, "tensorrt.plugin", **vars(self.plugin))
        self._put(patch, "torch_tensorrt", __version__="2.13.0")
        self._put(patch, "torch_tensorrt._features", ENABLED_FEATURES=SimpleNamespace(qdp_plugin=plugins))
        self._put(patch, "torch_tensorrt.dynamo")
        self._put(patch, "torch_tensorrt.dynamo.lowering", TORCH_TRT_DECOMPOSITIONS=self.decompositions)
        self._put(patch, "torch_tensorrt.dynamo.lowering._decompositions", register_torch_trt_decomposition=register)
        self._put(patch, "torch_tensorrt.dynamo.conversion", dynamo_tensorrt_converter=converter)
        self._put(patch, "torch_tensorrt.dynamo.conversion.converter_utils", get_trt_tensor=tensor)

    @staticmethod
    def _put(patch, name: str, **members) -> None:
        module = ModuleType(name)
        vars(module).update(members)
        patch.setitem(sys.modules, name, module)

    def backend(self, module: torch.fx.GraphModule, inputs):
        """Traces, converts what it can, and runs everything with PyTorch."""
        self.graph = aot_export_joint_simple(module, inputs, trace_joint=False, decompositions=self.decompositions)
        self.left = self.convert(self.graph.graph)
        return self.graph

    def convert(self, graph: torch.fx.Graph) -> list[torch.fx.Node]:
        """Calls the converters of a traced graph; returns the nodes of ours that stay with PyTorch."""
        made, left = {}, []
        for node in graph.nodes:
            if node.op != "call_function" or not str(node.target).startswith("neurocompile"):
                continue
            validator, function = self.converters.get(node.target, (lambda *_: False, None))
            if not validator(node, None):
                left.append(node)
                continue
            operands = [
                Tensor(v.meta["val"].shape, KINDS[v.meta["val"].dtype]) if isinstance(v, torch.fx.Node) else v
                for v in node.args
            ]
            made[node] = function(SimpleNamespace(net=self.network), node.target, operands, {}, node.name)
            for user in node.users:
                if user.target is operator.getitem:
                    _same(made[node][user.args[1]], user.meta["val"])
            if not isinstance(node.meta["val"], tuple):
                _same(made[node], node.meta["val"])
        return left


def _same(made: Tensor, traced: torch.Tensor) -> None:
    assert (made.shape, made.dtype) == (tuple(traced.shape), KINDS[traced.dtype])


def _callable(plugin):
    """Names of plugins as what makes layers: called with tensors, they say which and of what."""
    register = plugin.register

    def registering(name):
        decorate = register(name)

        def wrapped(function):
            done = decorate(function)
            space, _, short = name.partition("::")
            setattr(getattr(plugin.op, space), short, lambda *inputs: (name, inputs))
            return done

        return wrapped

    plugin.register = registering
    return plugin
