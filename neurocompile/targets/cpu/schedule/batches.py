"""C of a product for several inputs at once: every weight is loaded once and used for all of them."""

from __future__ import annotations

from collections.abc import Sequence

from neurocompile.lowering.loops import MatVec
from neurocompile.targets.cpu.code.products import Shape, product_inputs, store_sum, whole_sum
from neurocompile.targets.cpu.placement.formats import Format
from neurocompile.targets.cpu.placement.layout import panels
from neurocompile.targets.cpu.placement.memory import Memory

SLOTS = 4
"""Inputs at once: few enough for their sums to stay in registers, many enough that loads no longer decide."""


def columns_of(shape: Shape, form: Format) -> int:
    """Vectors of outputs whose sums, for all inputs, fit into half of the registers."""
    columns = 4 if shape.lanes == 16 else shape.widest // shape.lanes // SLOTS * form.sums
    return max(1, columns // form.sums)


def batch_widths(products: list[MatVec], shape: Shape, form: Format) -> list[tuple[int, int]]:
    """The (panel width, vectors at once) that occur."""
    found = set()
    for product in products:
        for panel in panels(product, shape.widest, form):
            found |= {(panel.width, count) for _, count in _passes(panel.width, shape, form)}
    return sorted(found)


def _passes(width: int, shape: Shape, form: Format) -> list[tuple[int, int]]:
    vectors, columns = width // shape.lanes, columns_of(shape, form)
    return [(begin, min(columns, vectors - begin)) for begin in range(0, vectors, columns)]


def batch_kernel(width: int, columns: int, shape: Shape, form: Format) -> list[str]:
    """The function that adds one piece's Σ_k x[k] W[k, :] to the sums of some of a panel's outputs, for all inputs."""
    kind, number = ("vi", "int32_t") if form.name == "int8" else ("vf", "float")
    inputs = ", ".join(f"const {number} *x{m}" for m in range(SLOTS))
    each = columns * form.sums
    sums = [[f"a{m}_{v}" for v in range(each)] for m in range(SLOTS)]
    lines = [
        f"/* {columns} of the {width // shape.lanes} vectors of {width} outputs, {SLOTS} inputs. */",
        f"NC_INLINE const unsigned char *nc_panel_{width}_{columns}(",
        f"    const unsigned char *w, {inputs}, ptrdiff_t steps, {kind} *sum) {{",
    ]
    lines += [f"    {kind} {name} = sum[{m * each + v}];" for m, row in enumerate(sums) for v, name in enumerate(row)]
    lines.append(f"    for (ptrdiff_t k = 0; k < steps; k++, w += {width * form.step_bytes}) {{")
    for v in range(columns):
        lines += [f"        {line}" for line in _load(v, f"w + {v * shape.lanes * form.step_bytes}", form)]
    for m in range(SLOTS):
        lines += [f"        {line}" for line in _add(m, sums[m], form)]
    lines.append("    }")
    lines += [f"    sum[{m * each + v}] = {name};" for m, row in enumerate(sums) for v, name in enumerate(row)]
    return [*lines, "    return w;", "}"]


def _load(v: int, place: str, form: Format) -> list[str]:
    if form.name == "int8":
        load = "nc_load_words" if form.sums == 2 else "nc_load_bytes"
        return [f"const vi w{v} = {load}({place});"]
    if form.name == "bf16":
        return [f"const vi z{v} = nc_load_words({place});", f"const vf w{v} = (vf)(z{v} << 16);"]
    return [f"const vf w{v} = nc_load((const float *)({place}));"]


def _add(m: int, sums: list[str], form: Format) -> list[str]:
    if form.sums == 2:
        columns = len(sums) // 2
        first = [f"const vi s{m} = nc_splat_int(x{m}[2 * k]), t{m} = nc_splat_int(x{m}[2 * k + 1]);"]
        first += [f"{a} = nc_dot_quads({a}, w{v}, s{m});" for v, a in enumerate(sums[:columns])]
        return first + [f"{a} = nc_dot_quads({a}, w{v}, t{m});" for v, a in enumerate(sums[columns:])]
    if form.name == "int8":
        return [f"const vi s{m} = nc_splat_int(x{m}[k]);"] + [
            f"{a} = nc_dot_pairs({a}, w{v}, s{m});" for v, a in enumerate(sums)
        ]
    if form.name == "bf16":
        first = [f"const vf s{m} = nc_splat(x{m}[2 * k]), t{m} = nc_splat(x{m}[2 * k + 1]);"]
        first += [f"{a} += s{m} * w{v};" for v, a in enumerate(sums)]
        return first + [f"{a} += t{m} * (vf)z{v};" for v, a in enumerate(sums)]
    return [f"const vf s{m} = nc_splat(x{m}[k]);"] + [f"{a} += s{m} * w{v};" for v, a in enumerate(sums)]


def batch_product(product: MatVec, memories: Sequence[Memory], shape: Shape, form: Format) -> list[str]:
    """Lines of C for a product with one input and one output per memory."""
    offset = memories[0].weights.offsets[product.weight.name]
    lines, pieces = [], []
    for m, memory in enumerate(memories):
        made, found = product_inputs(product, memory, form, f"_{m}")
        lines += made
        pieces.append(found)
    kind = "vi" if form.name == "int8" else "vf"
    for panel in panels(product, shape.widest, form):
        for begin, columns in _passes(panel.width, shape, form):
            skipped = begin * shape.lanes * form.step_bytes
            lines += ["{", f"    {kind} sum[{SLOTS * columns * form.sums}] = {{{{0}}}};"]
            lines.append(f"    const unsigned char *weights = w + {offset + panel.offset + skipped};")
            for number, (_, length) in enumerate(pieces[0]):
                xs = ", ".join(found[number][0] for found in pieces)
                steps = -(-length // form.group)
                lines.append(f"    weights = nc_panel_{panel.width}_{columns}(weights, {xs}, {steps}, sum);")
            lines.append("    (void)weights;")
            for m, memory in enumerate(memories):
                for v in range(columns):
                    low, high = (f"sum[{(m * form.sums + part) * columns + v}]" for part in (0, form.sums - 1))
                    name = whole_sum(low, high, form, f"_{m}")
                    line = store_sum(product, panel, begin + v, name, memory, shape, form, f"_{m}")
                    lines += [f"    {line}"] if line else []
            lines.append("}")
    return ["{", *(f"    {line}" for line in lines), "}"]
