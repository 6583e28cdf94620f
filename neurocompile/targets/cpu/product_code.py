"""C of a matrix-vector product: a panel's outputs stay in registers while its weights stream by.

Per input k, `vectors` multiply-adds of one broadcast x[k] with neighbouring weights. Narrow panels take several inputs
at once into accumulators of their own, because a multiply-add takes about four cycles and two start in each.
"""

from __future__ import annotations

from dataclasses import dataclass

from neurocompile.lowering.loops import MatVec
from neurocompile.targets.cpu.layout import GRAIN, panels
from neurocompile.targets.cpu.memory import Memory

IN_FLIGHT = 8


@dataclass(frozen=True)
class Shape:
    """How matrices are cut for a kind of processor.

    Attributes:
        lanes: Floats in its vector.
        widest: Widest panel.
        ahead: Bytes to prefetch ahead, 0 for none.
    """

    lanes: int
    widest: int
    ahead: int


def unroll(width: int, shape: Shape) -> int:
    """Inputs that a panel of this width takes at once."""
    vectors = max(width // shape.lanes, 1)
    return max(1, IN_FLIGHT // vectors)


def kernel(width: int, shape: Shape) -> list[str]:
    """The function that adds Σ_k x[k] W[k, :] of one panel to its accumulators."""
    vectors, steps = max(width // shape.lanes, 1), unroll(width, shape)
    several = max(steps, 2)
    names = [[f"a{u}_{v}" for v in range(vectors)] for u in range(steps)]
    lines = [
        f"/* {width} outputs: {vectors} vectors, {steps} inputs in flight. */",
        f"NC_INLINE const float *nc_panel_{width}(const float *w, const float *x, ptrdiff_t inputs, vf *sum) {{",
    ]
    for u, row in enumerate(names):
        lines += [f"    vf {name} = {f'sum[{v}]' if u == 0 else '{0}'};" for v, name in enumerate(row)]
    lines += ["    ptrdiff_t k = 0;", f"    for (; k + {several} <= inputs; k += {several}, w += {several * width}) {{"]
    for u in range(several):
        lines.append(f"        const vf x{u} = nc_splat(x[k + {u}]);")
    for u in range(several):
        lines += _prefetch(width, u, shape)
        for v in range(vectors):
            lines.append(f"        {names[u % steps][v]} += x{u} * nc_load(w + {u * width + v * shape.lanes});")
    lines += ["    }", f"    for (; k < inputs; k++, w += {width}) {{", "        const vf x0 = nc_splat(x[k]);"]
    lines += [f"        {names[0][v]} += x0 * nc_load(w + {v * shape.lanes});" for v in range(vectors)]
    lines.append("    }")
    for v in range(vectors):
        lines.append(f"    sum[{v}] = {' + '.join(names[u][v] for u in range(steps))};")
    return [*lines, "    return w;", "}"]


def _prefetch(width: int, step: int, shape: Shape) -> list[str]:
    if not shape.ahead:
        return []
    lines = range(step * width * 4, (step + 1) * width * 4, 64)
    return [f"        __builtin_prefetch((const char *)w + {shape.ahead + line});" for line in lines]


def product_code(product: MatVec, memory: Memory, shape: Shape) -> list[str]:
    """Lines of C for a product; its panels have kernels."""
    offset = memory.weights.offsets[product.weight.name]
    lines = []
    for panel in panels(product.inputs, product.outputs, shape.widest):
        vectors = max(panel.width // shape.lanes, 1)
        lines += [
            "{",
            f"    vf sum[{vectors}] = {{0}};",
            f"    const float *weights = (const float *)(w + {offset + panel.offset});",
        ]
        for access, length in product.pieces:
            pointer = memory.pointer(access, ("0",))
            if access.strides[0] not in (0, 1):
                lines.append(f"    float strided[{length}];")
                lines.append(f"    for (int k = 0; k < {length}; k++) strided[k] = {memory.element(access, ('k',))};")
                pointer = "strided"
            lines.append(f"    weights = nc_panel_{panel.width}(weights, {pointer}, {length}, sum);")
        lines.append("    (void)weights;")
        for v in range(vectors):
            count = min(shape.lanes, panel.outputs - v * shape.lanes)
            if count <= 0:
                continue
            target = memory.pointer(product.out, (str(panel.begin + v * shape.lanes),))
            stride = product.out.strides[0]
            if stride not in (0, 1):
                lines.append(f"    nc_store_strided({target}, {stride}, sum[{v}], {count});")
            elif count == shape.lanes:
                lines.append(f"    nc_store({target}, sum[{v}]);")
            else:
                lines.append(f"    nc_store_part({target}, sum[{v}], {count});")
        lines.append("}")
    return lines


def widths(products: list[MatVec], shape: Shape) -> list[int]:
    """The panel widths that occur."""
    return sorted({p.width for m in products for p in panels(m.inputs, m.outputs, shape.widest)})


def fits(shape: Shape) -> bool:
    """Whether panels are made of whole vectors."""
    return GRAIN % shape.lanes == 0 and shape.widest % GRAIN == 0
