"""Aligned columns for terminals."""

from __future__ import annotations

from collections.abc import Sequence


def table(header: Sequence[str], rows: Sequence[Sequence[str]], left: int = 1) -> str:
    """Lines of aligned columns.

    Args:
        header: Names of the columns.
        rows: Cells, as many a row as there are names.
        left: The first `left` columns are aligned to the left, the others to the right.

    Returns:
        The lines, without a newline at the end.
    """
    widths = [max(len(row[k]) for row in (header, *rows)) for k in range(len(header))]
    return "\n".join(line(row, widths, left) for row in (header, *rows))


def line(cells: Sequence[str], widths: Sequence[int], left: int = 1) -> str:
    """One row of `table`, for rows that come one by one."""
    parts = (
        f"{cell:<{w}}" if k < left else f"{cell:>{w}}" for k, (cell, w) in enumerate(zip(cells, widths, strict=True))
    )
    return "  ".join(parts).rstrip()
