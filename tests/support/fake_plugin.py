"""A stand-in of `tensorrt.plugin`: what its checks demand and how it asks, after the sources of TensorRT 10.13 and 11.

Symbolic integers are known only while shapes are asked for, have no reflected operators, and cannot be mixed with those
of a phase without shapes. A plugin gets input pointers, then its integers, then output pointers.
"""

from __future__ import annotations

import inspect
import typing
from types import SimpleNamespace

OPERATIONS = {
    "+": lambda a, b: a + b,
    "-": lambda a, b: a - b,
    "*": lambda a, b: a * b,
    "//": lambda a, b: a // b,
    "cdiv": lambda a, b: -(-a // b),
    "max": max,
    "min": min,
}


def module() -> SimpleNamespace:
    """A fresh `tensorrt.plugin`; `drive` stands for the builder."""
    registry, state = {}, SimpleNamespace(known=False)

    class SymInt32:
        def __init__(self, value=None):
            if isinstance(value, SymInt32):
                self.value = value.value
            else:
                # Without a shape phase a number has no meaning.
                self.value = value if state.known else None

        def _op(self, name, other):
            other = type(self)(other) if isinstance(other, int) else other
            if self.value is None or other.value is None:
                raise TypeError("operation(): incompatible function arguments")
            made = type(self)()
            made.value, made.is_fake = OPERATIONS[name](self.value, other.value), False
            return made

        def __add__(self, other):
            return self._op("+", other)

        def __sub__(self, other):
            return self._op("-", other)

        def __mul__(self, other):
            return self._op("*", other)

        def __floordiv__(self, other):
            return self._op("//", other)

    class ShapeExpr(SymInt32):
        def __init__(self, value=None):
            super().__init__(value)
            self.is_fake = self.value is None

        def _op(self, name, other):
            return ShapeExpr() if self.is_fake else super()._op(name, other)

    class SymExprs:
        def __init__(self, length):
            self.values = [None] * length

    class SymIntExprs(SymExprs):
        def __setitem__(self, index, value):
            assert isinstance(value, SymInt32)
            self.values[index] = value

    class TensorDesc:
        def __init__(self, shape_expr=None, dtype=None, source=None):
            self.shape_expr, self.dtype, self.source = shape_expr, dtype, source

        def aliased(self):
            return TensorDesc(self.shape_expr, self.dtype, self)

    class KernelLaunchParams:
        NAMES = ("grid_x", "grid_y", "grid_z", "block_x", "block_y", "block_z", "shared_mem")

        def __init__(self):
            for name in self.NAMES:
                setattr(self, name, int(name != "shared_mem"))

        def __setattr__(self, name, value):
            assert name in self.NAMES, name
            self.__dict__[name] = SymInt32(value)

    def both(name):
        def function(first, second):
            if isinstance(first, int):
                if isinstance(second, int):
                    raise ValueError("Both arguments cannot be 'int's")
                first = ShapeExpr(first)
            return first._op(name, second)

        return function

    def from_shape_expr(shape, dtype):
        assert isinstance(shape, tuple)
        return TensorDesc([each if isinstance(each, ShapeExpr) else ShapeExpr(each) for each in shape], dtype)

    op = SimpleNamespace()

    def register(name):
        space, _, plugin = name.partition("::")
        assert "." not in name and plugin and space not in ("", "trt", "tensorrt", "std")

        def decorate(function):
            if not hasattr(op, space):
                setattr(op, space, SimpleNamespace())
            if hasattr(getattr(op, space), plugin):
                raise ValueError(f"already has a definition for '{plugin}'")
            signature = inspect.signature(function)
            for parameter in signature.parameters.values():
                assert parameter.kind is inspect.Parameter.POSITIONAL_OR_KEYWORD
                assert parameter.default is inspect.Parameter.empty
                assert issubclass(parameter.annotation, TensorDesc)
            answer = signature.return_annotation
            assert typing.get_origin(answer) is tuple
            assert all(issubclass(each, TensorDesc) for each in typing.get_args(answer))
            setattr(getattr(op, space), plugin, name)
            registry[name] = SimpleNamespace(
                describe=function, inputs=list(signature.parameters), outputs=len(typing.get_args(answer)), kernel=None
            )
            return function

        return decorate

    def aot_impl(name):
        def decorate(function):
            plugin, signature = registry[name], inspect.signature(function)
            assert list(signature.parameters) == [*plugin.inputs, "outputs", "tactic"]
            first, second, params, extra = typing.get_args(signature.return_annotation)
            assert first in (str, bytes) and second in (str, bytes)
            assert issubclass(params, KernelLaunchParams) and issubclass(extra, SymExprs)
            plugin.kernel = function
            return function

        return decorate

    def drive(name, shapes, dtypes):
        """What a builder asks of a plugin, in its order; returns what it would launch."""
        plugin = registry[name]
        # Types first, with shapes that nobody knows; numbers may already mean something, from another plugin.
        blank = [TensorDesc([ShapeExpr() for _ in shape], dtype) for shape, dtype in zip(shapes, dtypes, strict=True)]
        types = [described.dtype for described in plugin.describe(*blank)]
        state.known = True
        inputs = [TensorDesc([ShapeExpr(n) for n in shape], dtype) for shape, dtype in zip(shapes, dtypes, strict=True)]
        made = plugin.describe(*inputs)
        assert [each.dtype for each in made] == types
        entry, code, params, extra = plugin.kernel(*inputs, made, 0)
        assert isinstance(params, KernelLaunchParams) and isinstance(extra, SymIntExprs)
        return SimpleNamespace(
            entry=entry,
            code=code,
            types=types,
            shapes=[[each.value for each in described.shape_expr] for described in made],
            aliased={place: inputs.index(d.source) for place, d in enumerate(made) if d.source is not None},
            grid=[params.grid_x.value, params.grid_y.value, params.grid_z.value],
            block=[params.block_x.value, params.block_y.value, params.block_z.value],
            shared=params.shared_mem.value,
            arguments=["pointer"] * len(inputs) + [each.value for each in extra.values] + ["pointer"] * len(made),
        )

    return SimpleNamespace(
        SymInt32=SymInt32,
        SymExprs=SymExprs,
        SymIntExprs=SymIntExprs,
        ShapeExpr=ShapeExpr,
        TensorDesc=TensorDesc,
        KernelLaunchParams=KernelLaunchParams,
        cdiv=both("cdiv"),
        max=both("max"),
        min=both("min"),
        from_shape_expr=from_shape_expr,
        register=register,
        aot_impl=aot_impl,
        op=op,
        registry=registry,
        drive=drive,
    )
