"""The text header that several formats begin with: lines that start with one mark character."""

from __future__ import annotations

import re

LIMIT = 1 << 20


def text_header(data: bytes, mark: str, *, last: str | None = None) -> tuple[list[str], int]:
    r"""Lines of the header without mark and line end, and the offset of the first byte after it.

    A line counts only if all of it is printable: the first binary record may begin with the mark's byte too.

    Args:
        data: The file.
        mark: The character every line begins with.
        last: Content of the line that ends the header, where the format has one.
    """
    line = re.compile(re.escape(mark.encode()) + rb"([\t\x20-\x7e\x80-\xff]*)\r?\n")
    lines: list[str] = []
    end = 0
    while end < LIMIT and (found := line.match(data, end)):
        lines.append(found[1].decode("latin-1").strip())
        end = found.end()
        if lines[-1] == last:
            break
    return lines, end
