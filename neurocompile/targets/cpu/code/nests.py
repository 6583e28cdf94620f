"""C of a nest: whole vectors along the last dimension, then the rest of the lanes; what does not vary comes before.

Dimensions that folds keep are the outer loops, those that they combine the inner ones. If the last dimension is kept,
its lanes are results of their own; if it is combined, the lanes are summed up at the end.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from neurocompile.lowering.loops import Access, Apply, Constant, Fold, Let, Load, Nest, Store, folded
from neurocompile.targets.cpu.code.near import near
from neurocompile.targets.cpu.placement.memory import TYPES, Memory

SCALAR = {
    "neg": "-{0}",
    "abs": "fabsf({0})",
    "sqrt": "__builtin_sqrtf({0})",
    "reciprocal": "1.0f / {0}",
    "floor": "__builtin_floorf({0})",
    "not": "!{0}",
    "relu": "({0} > 0 || {0} != {0} ? {0} : 0)",
    "add": "{0} + {1}",
    "sub": "{0} - {1}",
    "mul": "{0} * {1}",
    "div": "{0} / {1}",
    "max": "({0} > {1} || {0} != {0} ? {0} : {1})",
    "min": "({0} < {1} || {0} != {0} ? {0} : {1})",
    "less": "{0} < {1}",
    "less_equal": "{0} <= {1}",
    "equal": "{0} == {1}",
    "and": "{0} && {1}",
    "or": "{0} || {1}",
    "select": "{0} ? {1} : {2}",
}
VECTOR = {
    "neg": "-{0}",
    "reciprocal": "1.0f / {0}",
    "not": "~{0}",
    "relu": "nc_max({0}, nc_splat(0))",
    "add": "{0} + {1}",
    "sub": "{0} - {1}",
    "mul": "{0} * {1}",
    "div": "{0} / {1}",
    "less": "{0} < {1}",
    "less_equal": "{0} <= {1}",
    "equal": "{0} == {1}",
    "and": "{0} & {1}",
    "or": "{0} | {1}",
    "cast": "nc_select({0}, nc_splat(1), nc_splat(0))",
}
FOLD_START = {"sum": "0", "max": "-INFINITY", "min": "INFINITY"}
FOLD_STEP = {"sum": "{0} + {1}", "max": "nc_max({0}, {1})", "min": "nc_min({0}, {1})"}


def nest_code(nest: Nest, memory: Memory, ahead: Sequence[str] = ()) -> list[str]:
    """Lines of C for a nest.

    Args:
        nest: The nest.
        memory: Where its operands lie.
        ahead: Done in every iteration over a whole vector, whose first element is number `i`; only where `takes_ahead`.
    """
    return _Writer(nest, memory, tuple(ahead)).lines()


def takes_ahead(nest: Nest, memory: Memory, lanes: int) -> bool:
    """Whether a nest is one loop over whole vectors in which something else can be done along."""
    writer = _Writer(nest, memory)
    writer.lines()
    return len(nest.shape) == 1 and nest.shape[0] >= lanes and not writer.folds and writer.is_vector


def literal(value: float | int | bool, dtype: str) -> str:
    """A C constant with exactly this value."""
    if dtype != "float32":
        return f"INT64_C({int(value)})" if dtype == "int64" else str(int(value))
    number = float(np.float32(value))
    if np.isnan(number):
        return "NAN"
    if np.isinf(number):
        return "INFINITY" if number > 0 else "-INFINITY"
    return f"{number.hex()}f" if number >= 0 else f"({number.hex()}f)"


@dataclass
class _Writer:
    nest: Nest
    memory: Memory
    ahead: tuple[str, ...] = ()
    steady: set[str] = field(default_factory=set)
    kinds: dict[str, str] = field(default_factory=dict)
    small: frozenset[str] = frozenset()

    def lines(self) -> list[str]:
        written = {line.access.buffer for line in self.nest.body if not isinstance(line, Let)}
        lets = [line for line in self.nest.body if isinstance(line, Let)]
        for let in lets:
            self.kinds[let.name] = _kind(let)
            if _is_steady(let, self.steady, written):
                self.steady.add(let.name)
        before = [self.scalar(let, ("0",) * len(self.nest.shape)) for let in lets if let.name in self.steady]
        loop = self.near_and_far() if self.is_vector else self.scalar_loop()
        return ["{", *(f"    {line}" for line in before + loop), "}"]

    @property
    def is_vector(self) -> bool:
        return bool(self.nest.shape) and all(self.fits_vector(line) for line in self.nest.body)

    def fits_vector(self, line: Let | Store | Fold) -> bool:
        if not isinstance(line, Let):
            return line.access.buffer.dtype == "float32" and (isinstance(line, Fold) or line.access.strides[-1] != 0)
        if line.name in self.steady:
            return True
        if isinstance(line.value, Load):
            access = line.value.access
            plain = self.memory.storage(access.buffer) == "float32" or access.strides[-1] in (0, 1)
            return self.kinds[line.name] == "float32" and plain
        return self.kinds[line.name] in ("float32", "bool")

    @property
    def folds(self) -> list[Fold]:
        return [line for line in self.nest.body if isinstance(line, Fold)]

    def split(self) -> tuple[list[int], list[int]]:
        """The dimensions that folds keep and those that they combine; without folds, all are combined into nothing."""
        every = range(len(self.nest.shape))
        gone = folded(self.folds[0].access, self.nest.shape) if self.folds else (True,) * len(every)
        return [d for d in every if not gone[d]], [d for d in every if gone[d]]

    def loops(self, dimensions: list[int], lines: list[str]) -> list[str]:
        """The lines inside loops over some dimensions."""
        heads = [f"for (ptrdiff_t i{d} = 0; i{d} < {self.nest.shape[d]}; i{d}++)" for d in dimensions]
        return [*heads, "{", *(f"    {line}" for line in lines), "}"] if heads else lines

    # One element at a time.

    def scalar_loop(self) -> list[str]:
        indices = tuple(f"i{d}" for d in range(len(self.nest.shape)))
        kept, gone = self.split()
        inner = []
        for line in self.nest.body:
            if isinstance(line, Let):
                if line.name not in self.steady:
                    inner.append(self.scalar(line, indices))
            elif isinstance(line, Store):
                inner.append(f"{self.memory.element(line.access, indices)} = {line.name};")
            else:
                k = self.folds.index(line)
                step = SCALAR["add" if line.kind == "sum" else line.kind].format(f"fold_{k}", line.name)
                inner.append(f"fold_{k} = {step};")
        lines = [f"float fold_{k} = {FOLD_START[fold.kind]};" for k, fold in enumerate(self.folds)]
        lines += self.loops(gone, inner) if gone else ["{", *(f"    {line}" for line in inner), "}"]
        lines += [f"{self.memory.element(f.access, indices)} = fold_{k};" for k, f in enumerate(self.folds)]
        return self.loops(kept, lines)

    def scalar(self, let: Let, indices: tuple[str, ...]) -> str:
        value, kind = let.value, self.kinds[let.name]
        ctype = "int" if kind == "bool" else TYPES[kind]
        if isinstance(value, Constant):
            text = literal(value.value, value.dtype)
        elif isinstance(value, Load):
            text = self.memory.element(value.access, indices)
        elif value.operation == "cast":
            text = f"({ctype}){value.operands[0]}" if kind != "bool" else f"{value.operands[0]} != 0"
        elif value.operation in SCALAR and not (value.operation == "abs" and kind != "float32"):
            text = SCALAR[value.operation].format(*value.operands)
        elif value.operation == "abs":
            text = f"({value.operands[0]} < 0 ? -{value.operands[0]} : {value.operands[0]})"
        else:
            text = f"nc_{value.operation}(nc_splat({value.operands[0]}))[0]"
        return f"const {ctype} {let.name} = {text};"

    # NC_LANES elements at a time.

    def near_and_far(self) -> list[str]:
        """The loop, and where arguments may be small, the same with functions for those."""
        far = self.vector_loop()
        condition, self.small = near(self.nest, self.steady, self.memory.weights)
        if not condition:
            return far
        blocks = [[f"    {line}" for line in loop] for loop in (self.vector_loop(), far)]
        return [f"if ({condition}) {{", *blocks[0], "} else {", *blocks[1], "}"]

    def vector_loop(self) -> list[str]:
        kept, gone = self.split()
        last = len(self.nest.shape) - 1
        return self.kept_lanes(kept[:-1], gone) if last in kept else self.combined_lanes(kept, gone[:-1])

    def whole_and_rest(self, make: Callable[[str], list[str]]) -> list[str]:
        """Along the last dimension: whole vectors, then the lanes that remain."""
        size = self.nest.shape[-1]
        lines = [f"for (ptrdiff_t i = 0; i + NC_LANES <= {size}; i += NC_LANES) {{", *make("NC_LANES"), "}"]
        lines += [f"if ({size} % NC_LANES) {{", f"    const ptrdiff_t i = {size} / NC_LANES * NC_LANES;"]
        return [*lines, *make(f"({size} % NC_LANES)"), "}"]

    def kept_lanes(self, outer: list[int], gone: list[int]) -> list[str]:
        """Every lane of the last dimension is a result."""

        def block(lanes: str) -> list[str]:
            lines = [f"vf fold_{k} = nc_splat({FOLD_START[fold.kind]});" for k, fold in enumerate(self.folds)]
            lines += self.loops(gone, self.vector_body(lanes, by_lane=True))
            ends = [Store(fold.access, f"fold_{k}") for k, fold in enumerate(self.folds)]
            return [f"    {line}" for line in (*lines, *(self.store(end, self.indices(), lanes) for end in ends))]

        return self.loops(outer, self.whole_and_rest(block))

    def combined_lanes(self, kept: list[int], outer: list[int]) -> list[str]:
        """The lanes of the last dimension are combined, or there is nothing to combine."""
        lines = [f"vf fold_{k} = nc_splat({FOLD_START[fold.kind]});" for k, fold in enumerate(self.folds)]
        # The remaining lanes are combined by themselves, as the empty ones of a part are no neutral elements.
        lines += [f"float rest_{k} = {FOLD_START[fold.kind]};" for k, fold in enumerate(self.folds)]
        lines += self.loops(outer, self.whole_and_rest(self.vector_body))
        for k, fold in enumerate(self.folds):
            combine = SCALAR["add" if fold.kind == "sum" else fold.kind]
            if fold.kind == "sum":
                lines.append(f"rest_{k} += nc_sum(fold_{k});")
            else:
                lines.append(f"for (int lane = 0; lane < NC_LANES; lane++) {{ const float one = fold_{k}[lane];")
                lines.append(f"    rest_{k} = {combine.format(f'rest_{k}', 'one')}; }}")
            lines.append(f"{self.memory.element(fold.access, self.indices())} = rest_{k};")
        return self.loops(kept, lines)

    def indices(self) -> tuple[str, ...]:
        """The loop variables; where folds combine the last dimension, theirs is not asked for."""
        return (*(f"i{d}" for d in range(len(self.nest.shape) - 1)), "i")

    def vector_body(self, lanes: str, by_lane: bool = False) -> list[str]:
        indices, whole = self.indices(), lanes == "NC_LANES"
        lines = list(self.ahead) if whole else []
        pairs: dict[str, str] = {}
        for line in self.nest.body:
            if isinstance(line, Store):
                lines.append(self.store(line, indices, lanes))
            elif isinstance(line, Fold):
                k = self.folds.index(line)
                name = self.operand(line.name)
                if whole or by_lane:
                    lines.append(f"fold_{k} = {FOLD_STEP[line.kind].format(f'fold_{k}', name)};")
                else:
                    combine = SCALAR["add" if line.kind == "sum" else line.kind].format(f"rest_{k}", "one")
                    lines.append(f"for (int lane = 0; lane < {lanes}; lane++) {{ const float one = {name}[lane];")
                    lines.append(f"    rest_{k} = {combine}; }}")
            elif line.name in self.steady:
                continue
            elif isinstance(line.value, Load):
                lines.append(f"const vf {line.name} = {self.load(line.value.access, indices, lanes)};")
            elif isinstance(line.value, Apply):
                lines += self.apply(line.name, line.value, pairs)
        return [f"    {line}" for line in lines]

    def apply(self, name: str, value: Apply, pairs: dict[str, str]) -> list[str]:
        operands = [self.operand(operand) for operand in value.operands]
        kind = "vi" if value.dtype == "bool" else "vf"
        if value.operation in ("sin", "cos"):
            # Both come from one reduction of the angle.
            source = operands[0]
            lines: list[str] = []
            if source not in pairs:
                pairs[source] = name
                call = f"nc_sincos{'_near' if name in self.small else ''}({source}, &sin_{name}, &cos_{name});"
                lines = [f"vf sin_{name}, cos_{name};", call]
            return [*lines, f"const vf {name} = {value.operation}_{pairs[source]};"]
        suffix = "_near" if name in self.small else ""
        form = VECTOR.get(value.operation) or f"nc_{value.operation}{suffix}({', '.join(operands)})"
        return [f"const {kind} {name} = {form.format(*operands)};"]

    def operand(self, name: str) -> str:
        if name not in self.steady:
            return name
        return f"nc_splat_mask({name})" if self.kinds[name] == "bool" else f"nc_splat({name})"

    def load(self, access: Access, indices: tuple[str, ...], lanes: str) -> str:
        pointer, stride = self.memory.pointer(access, indices), access.strides[-1]
        if stride == 0:
            return f"nc_splat({self.memory.element(access, indices)})"
        if stride != 1:
            return f"nc_load_strided({pointer}, {stride}, {lanes})"
        name = "nc_load_bf16" if self.memory.storage(access.buffer) == "bf16" else "nc_load"
        return f"{name}({pointer})" if lanes == "NC_LANES" else f"{name}_part({pointer}, {lanes})"

    def store(self, line: Store, indices: tuple[str, ...], lanes: str) -> str:
        pointer, name, stride = (
            self.memory.pointer(line.access, indices),
            self.operand(line.name),
            line.access.strides[-1],
        )
        if stride != 1:
            return f"nc_store_strided({pointer}, {stride}, {name}, {lanes});"
        return f"nc_store({pointer}, {name});" if lanes == "NC_LANES" else f"nc_store_part({pointer}, {name}, {lanes});"


def _kind(let: Let) -> str:
    return let.value.access.buffer.dtype if isinstance(let.value, Load) else let.value.dtype


def _is_steady(let: Let, steady: set[str], written: set) -> bool:
    value = let.value
    if isinstance(value, Constant):
        return True
    if isinstance(value, Apply):
        return all(name in steady for name in value.operands)
    return not any(value.access.strides) and value.access.buffer not in written
