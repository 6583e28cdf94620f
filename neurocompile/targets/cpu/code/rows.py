"""C of products of many rows and of table rows.

A block of rows times a panel of outputs stays in registers while the weights stream by: per input, the panel's weights
are loaded once for all rows of the block.
"""

from __future__ import annotations

from neurocompile.lowering.loops import Access, MatMul, Rows, Scatter
from neurocompile.targets.cpu.code.products import Shape
from neurocompile.targets.cpu.placement.formats import Format
from neurocompile.targets.cpu.placement.layout import ITEM_BYTES, panels, row_stride
from neurocompile.targets.cpu.placement.memory import TYPES, Memory
from runtime.errors import InternalError, UserError

MOST_ROWS = 12


def registers(shape: Shape) -> int:
    """Vector registers of the processor."""
    return 32 if shape.lanes == 16 or shape.widest // shape.lanes > 8 else 16


def widest_panel(shape: Shape) -> int:
    """Outputs of the widest panel of a product of many rows."""
    return 64 if shape.lanes == 16 else 16


def block_rows(vectors: int, shape: Shape) -> int:
    """Rows of a block, so that sums take three quarters of the registers."""
    return max(1, min(MOST_ROWS, registers(shape) * 3 // 4 // vectors))


def blocks(products: list[MatMul], shape: Shape, form: Format) -> list[tuple[int, int]]:
    """The (panel width, rows) for which kernels are needed."""
    if products and form.name == "int8":
        raise UserError(
            "windows of events are compiled with weights in fp32 or bf16, not int8; export for cpu-fp32 or cpu-bf16"
        )
    widths = {panel.width for product in products for panel in panels(product, widest_panel(shape), form)}
    return sorted({(width, rows) for width in widths for rows in (1, block_rows(width // shape.lanes, shape))})


def block_kernel(width: int, rows: int, shape: Shape, form: Format) -> list[str]:
    """The function that adds Σ_k x[r, k] W[k, :] of one piece to the sums of a block."""
    vectors = width // shape.lanes
    names = [[f"a{r}_{v}" for v in range(vectors)] for r in range(rows)]
    lines = [
        f"/* {rows} rows, {width} outputs. */",
        f"static __attribute__((noinline, unused)) void nc_block_{width}_{rows}(",
        "    const unsigned char *w, const float *x, ptrdiff_t stride, ptrdiff_t length, vf *sum) {",
    ]
    lines += [f"    vf {name} = sum[{r * vectors + v}];" for r, row in enumerate(names) for v, name in enumerate(row)]
    lines += [f"    const float *x{r} = x + {r} * stride;" for r in range(rows)]
    step = width * form.step_bytes
    if form.name == "bf16":
        lines.append(f"    for (ptrdiff_t k = 0; k + 2 <= length; k += 2, w += {step}) {{")
        lines += _words(names, shape, odd=True)
        lines += ["    }", "    if (length % 2) {", "        const ptrdiff_t k = length - 1;"]
        lines += [*_words(names, shape, odd=False), "    }"]
    else:
        lines.append(f"    for (ptrdiff_t k = 0; k < length; k++, w += {step}) {{")
        for v in range(vectors):
            lines.append(f"        const vf w{v} = nc_load((const float *)w + {v * shape.lanes});")
        for r, row in enumerate(names):
            lines.append(f"        const vf y{r} = nc_splat(x{r}[k]);")
            lines += [f"        {name} += y{r} * w{v};" for v, name in enumerate(row)]
        lines.append("    }")
    lines += [f"    sum[{r * vectors + v}] = {name};" for r, row in enumerate(names) for v, name in enumerate(row)]
    return [*lines, "}", ""]


def _words(names: list[list[str]], shape: Shape, odd: bool) -> list[str]:
    """A step of two inputs, or of the last one where their number is odd."""
    lines = []
    for v in range(len(names[0])):
        lines.append(f"        const vi p{v} = nc_load_words(w + {4 * v * shape.lanes});")
        lines.append(f"        const vf w{v} = (vf)(p{v} << 16){f', u{v} = (vf)p{v}' if odd else ''};")
    for r, row in enumerate(names):
        lines.append(f"        const vf y{r} = nc_splat(x{r}[k]){f', z{r} = nc_splat(x{r}[k + 1])' if odd else ''};")
        lines += [f"        {name} += y{r} * w{v};" for v, name in enumerate(row)]
        lines += [f"        {name} += z{r} * u{v};" for v, name in enumerate(row) if odd]
    return lines


def mat_mul_code(product: MatMul, memory: Memory, shape: Shape, form: Format) -> list[str]:
    """Lines of C for a product of many rows; its blocks have kernels."""
    if product.out.strides[1] not in (0, 1) or any(a.strides[1] not in (0, 1) for a, _ in product.pieces):
        raise InternalError("a product of many rows needs neighbouring inputs and outputs side by side")
    lines = ["{", f"    const unsigned char *matrix = w + {memory.weights.offsets[product.weight.name]};"]
    for panel in panels(product, widest_panel(shape), form):
        vectors = panel.width // shape.lanes
        most = block_rows(vectors, shape)
        lines.append("    ptrdiff_t r = 0;" if panel.begin == 0 else "    r = 0;")
        for rows in sorted({most, 1}, reverse=True):
            lines.append(f"    for (; r + {rows} <= {product.rows}; r += {rows}) {{")
            lines.append(f"        vf sum[{rows * vectors}] = {{{{0}}}};")
            offset = panel.offset
            for access, length in product.pieces:
                pointer = memory.pointer(access, ("r", "0"))
                lines.append(f"        nc_block_{panel.width}_{rows}(")
                lines.append(f"            matrix + {offset}, {pointer}, {access.strides[0]}, {length}, sum);")
                offset += -(-length // form.group) * panel.width * form.step_bytes
            for row in range(rows):
                for v in range(vectors):
                    count = min(shape.lanes, panel.outputs - v * shape.lanes)
                    target = memory.pointer(product.out, (f"(r + {row})", str(panel.begin + v * shape.lanes)))
                    value = f"sum[{row * vectors + v}]"
                    if count == shape.lanes:
                        lines.append(f"        nc_store({target}, {value});")
                    elif count > 0:
                        lines.append(f"        nc_store_part({target}, {value}, {count});")
            lines.append("    }")
    return [*lines, "}"]


def rows_code(rows: Rows, memory: Memory) -> list[str]:
    """Lines of C that fetch rows of a table or a state."""
    buffer = rows.table.buffer
    storage = memory.storage(buffer)
    padded = buffer.kind == "weight" and storage in ITEM_BYTES
    step = row_stride(rows.width, storage) if padded else rows.width
    lines = [
        f"for (ptrdiff_t r = 0; r < {rows.rows}; r++) {{",
        f"    const {TYPES[storage]} *row = {memory.base(buffer)} + {_row(rows, memory)} * {step};",
        f"    {TYPES[rows.out.buffer.dtype]} *to = {memory.pointer(rows.out, ('r', '0'))};",
    ]
    if storage == "bf16":
        lines.append(f"    for (ptrdiff_t k = 0; k < {rows.width}; k++) to[k] = nc_from_bf16(row[k]);")
    else:
        lines.append(f"    memcpy(to, row, {rows.width} * sizeof *to);")
    return [*lines, "}"]


def scatter_code(scatter: Scatter, memory: Memory) -> list[str]:
    """Lines of C that replace rows; where the table is a state, nothing else of it is touched."""
    out, source = scatter.out.buffer, scatter.source.buffer
    copy = f"memcpy({memory.base(out)}, {memory.base(source)}, {out.size} * sizeof *{memory.base(out)});"
    return [
        *([] if out == source else [copy]),
        f"for (ptrdiff_t r = 0; r < {scatter.rows}; r++)",
        f"    memcpy({memory.base(out)} + {_row(scatter, memory)} * {scatter.width},",
        f"           {memory.pointer(scatter.x, ('r', '0'))}, {scatter.width} * sizeof *{memory.base(out)});",
    ]


def _row(statement: Rows | Scatter, memory: Memory) -> str:
    """The row of iteration `r`. The front end has checked its items; what states say is kept within the table."""
    index = memory.element(statement.index, ("r",))
    return index if statement.index.buffer.kind == "item" else f"nc_row({index}, {statement.table_rows})"


def dense(access: Access) -> bool:
    """Whether the elements of the last dimension lie side by side."""
    return access.strides[-1] in (0, 1)
