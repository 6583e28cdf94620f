"""C of a matrix-vector product: a panel's outputs stay in registers while its weights stream by.

Per input k, a panel needs one multiply-add of the broadcast x[k] with neighbouring weights for each of its vectors.
Narrow panels take several steps at once into accumulators of their own, because a multiply-add takes about four cycles
and two start in each.
"""

from __future__ import annotations

from dataclasses import dataclass

from neurocompile.lowering.loops import MatVec
from neurocompile.targets.cpu.placement.formats import LARGEST_WEIGHT, Format
from neurocompile.targets.cpu.placement.layout import Panel, panels
from neurocompile.targets.cpu.placement.memory import Memory

IN_FLIGHT = 8


@dataclass(frozen=True)
class Shape:
    """How matrices are cut for a kind of processor.

    Attributes:
        lanes: Floats in its vector.
        widest: Widest panel.
    """

    lanes: int
    widest: int


def kernel(width: int, shape: Shape, form: Format) -> list[str]:
    """The function that adds one piece's Σ_k x[k] W[k, :] to a panel's sums; it returns where it stopped reading."""
    vectors = width // shape.lanes
    sums = form.sums * vectors
    rows = max(1, IN_FLIGHT // sums)
    several = max(rows, 2)
    kind, inputs = ("vi", "const int32_t *x") if form.name == "int8" else ("vf", "const float *x")
    names = [[f"a{u}_{v}" for v in range(sums)] for u in range(rows)]
    step = width * form.step_bytes
    lines = [
        f"/* {width} outputs: {vectors} vectors, {rows} steps in flight. */",
        f"NC_INLINE const unsigned char *nc_panel_{width}(",
        f"    const unsigned char *w, {inputs}, ptrdiff_t steps, {kind} *sum) {{",
    ]
    for u, row in enumerate(names):
        lines += [f"    {kind} {name} = {f'sum[{v}]' if u == 0 else '{0}'};" for v, name in enumerate(row)]
    lines += ["    ptrdiff_t k = 0;", f"    for (; k + {several} <= steps; k += {several}, w += {several * step}) {{"]
    lines += [line for u in range(several) for line in _step(u, names[u % rows], u * step, shape, form)]
    lines += ["    }", f"    for (; k < steps; k++, w += {step}) {{", *_step(0, names[0], 0, shape, form), "    }"]
    for v in range(sums):
        lines.append(f"    sum[{v}] = {' + '.join(names[u][v] for u in range(rows))};")
    return [*lines, "    return w;", "}"]


def _step(u: int, names: list[str], offset: int, shape: Shape, form: Format) -> list[str]:
    """One step: all vectors of a panel."""
    vectors = len(names) // form.sums
    sums = [(name, f"w + {offset + v % vectors * shape.lanes * form.step_bytes}") for v, name in enumerate(names)]
    if form.name == "int8" and form.group == 4:
        # x is 256 h + l.
        first = [f"        const vi l{u} = nc_splat_int(x[2 * (k + {u})]), h{u} = nc_splat_int(x[2 * (k + {u}) + 1]);"]
        low = [f"        {a} = nc_dot_quads({a}, nc_load_words({w}), l{u});" for a, w in sums[:vectors]]
        return first + low + [f"        {a} = nc_dot_quads({a}, nc_load_words({w}), h{u});" for a, w in sums[vectors:]]
    if form.name == "int8":
        first = [f"        const vi x{u} = nc_splat_int(x[k + {u}]);"]
        return first + [f"        {a} = nc_dot_pairs({a}, nc_load_bytes({w}), x{u});" for a, w in sums]
    if form.name == "bf16":
        first = [f"        const vf x{u} = nc_splat(x[2 * (k + {u})]), y{u} = nc_splat(x[2 * (k + {u}) + 1]);"]
        low = [f"        {a} += x{u} * (vf)(nc_load_words({w}) << 16);" for a, w in sums]
        return first + low + [f"        {a} += y{u} * (vf)nc_load_words({w});" for a, w in sums]
    first = [f"        const vf x{u} = nc_splat(x[k + {u}]);"]
    return first + [f"        {a} += x{u} * nc_load((const float *)({w}));" for a, w in sums]


def product_code(product: MatVec, memory: Memory, shape: Shape, form: Format) -> list[str]:
    """Lines of C for a product; its panels have kernels."""
    offset = memory.weights.offsets[product.weight.name]
    lines, pieces = product_inputs(product, memory, form)
    for panel in panels(product, shape.widest, form):
        vectors = panel.width // shape.lanes
        kind = "vi" if form.name == "int8" else "vf"
        lines += ["{", f"    {kind} sum[{form.sums * vectors}] = {{{{0}}}};"]
        lines.append(f"    const unsigned char *weights = w + {offset + panel.offset};")
        for pointer, length in pieces:
            steps = -(-length // form.group)
            lines.append(f"    weights = nc_panel_{panel.width}(weights, {pointer}, {steps}, sum);")
        lines.append("    (void)weights;")
        for v in range(vectors):
            result = whole_sum(f"sum[{v}]", f"sum[{vectors + v}]", form)
            line = store_sum(product, panel, v, result, memory, shape, form)
            lines += [f"    {line}"] if line else []
        lines.append("}")
    return ["{", *(f"    {line}" for line in lines), "}"]


def whole_sum(low: str, high: str, form: Format, tag: str = "") -> str:
    """Σ x W of an output out of its sums; 8-bit products in fours sum the lower and the upper byte of x apart."""
    if form.sums == 1:
        return low
    return f"({low} + ({high} << 8)" + (f" - excess{tag})" if form.excess else ")")


def store_sum(
    product: MatVec, panel: Panel, v: int, result: str, memory: Memory, shape: Shape, form: Format, tag: str = ""
) -> str:
    """Writes vector `v` of a panel's sums where it belongs; empty if it holds nothing but padding."""
    count = min(shape.lanes, panel.outputs - v * shape.lanes)
    if count <= 0:
        return ""
    if form.name == "int8":
        offset = memory.weights.offsets[product.weight.name]
        scales = f"nc_load((const float *)(w + {offset + panel.scales + 4 * v * shape.lanes}))"
        result = f"__builtin_convertvector({result}, vf) * (scale{tag} * {scales})"
    target = memory.pointer(product.out, (str(panel.begin + v * shape.lanes),))
    stride = product.out.strides[0]
    if stride not in (0, 1):
        return f"nc_store_strided({target}, {stride}, {result}, {count});"
    return f"nc_store({target}, {result});" if count == shape.lanes else f"nc_store_part({target}, {result}, {count});"


def product_inputs(
    product: MatVec, memory: Memory, form: Format, tag: str = ""
) -> tuple[list[str], list[tuple[str, int]]]:
    """Prepares x: pieces that lie apart, or that fill no whole step, are copied; 8-bit weights need whole numbers.

    Args:
        product: The product.
        memory: Where x lies.
        form: How the weights are kept.
        tag: Added to every name that the lines declare.

    Returns:
        (lines, pieces as (pointer, length)).
    """
    lines, pieces = [], []
    for number, (access, length) in enumerate(product.pieces):
        pointer = memory.pointer(access, ("0",))
        padded = -(-length // form.group) * form.group
        copied = access.strides[0] not in (0, 1) or memory.storage(access.buffer) != "float32"
        if copied or (padded != length and form.name == "bf16"):
            lines.append(f"float piece_{number}{tag}[{padded}] = {{0}};")
            element = memory.element(access, ("k",))
            lines.append(f"for (ptrdiff_t k = 0; k < {length}; k++) piece_{number}{tag}[k] = {element};")
            pointer = f"piece_{number}{tag}"
        pieces.append((pointer, length))
    if form.name != "int8":
        return lines, pieces
    largest = min(form.largest_input, (2**31 - 1) // (LARGEST_WEIGHT * product.inputs))
    lines.append(f"float size{tag} = 0;")
    lines += [f"size{tag} = nc_largest({pointer}, {length}, size{tag});" for pointer, length in pieces]
    lines.append(f"const float scale{tag} = size{tag} / {largest};")
    lines.append(f"const float inverse{tag} = size{tag} > 0 ? {largest} / size{tag} : 0;")
    whole = []
    if form.excess:
        lines.append(f"uint32_t total{tag} = 0;")
    for number, (pointer, length) in enumerate(pieces):
        lines.append(f"_Alignas(64) int32_t whole_{number}{tag}[{form.sums * -(-length // form.group)}];")
        function = "nc_whole_quads" if form.group == 4 else "nc_whole_numbers"
        call = f"{function}({pointer}, {length}, inverse{tag}, whole_{number}{tag});"
        lines.append(f"total{tag} += {call}" if form.excess else call)
        whole.append((f"whole_{number}{tag}", length))
    if form.excess:
        lines.append(f"const int32_t excess{tag} = (int32_t)({form.excess} * total{tag});")
    return lines, whole


def widths(products: list[MatVec], shape: Shape, form: Format) -> list[int]:
    """The panel widths that occur."""
    return sorted({panel.width for product in products for panel in panels(product, shape.widest, form)})
