"""AEDAT 2.0 (jAER): a text header, then big-endian records of a 32-bit address and a 32-bit time in microseconds.

    chip      x       y       ON          a change event if
    DVS128    7..1    14..8   bit 0 = 0   bit 15 (external event) is 0
    DAVIS     21..12  30..22  bit 11 = 1  bits 31 (frame, motion) and 10 (external event) are 0

The header names the chip (`# AEChip: ...`); one that does not, with addresses of 16 bits, is a DVS128. Its polarity bit
is 0 for ON, as jAER, its MATLAB readers and dv-processing have it; the vendor's format page says the opposite.
x and y are kept as stored: row 0 is the bottom row, and jAER shows columns mirrored.
"""

from __future__ import annotations

import re

import numpy as np

from runtime.events.container import Events, Recording
from runtime.events.formats.clock import unwrap
from runtime.events.formats.format import File, Format
from runtime.events.formats.header import text_header

MAGIC = b"#!AER-DAT2.0"
RECORD = 8
DAVIS_SIZES = {"128": (128, 128), "208": (208, 192), "240": (240, 180), "346": (346, 260), "640": (640, 480)}


def decode(file: File) -> Recording:
    """Reads the events."""
    if not file.data.startswith(MAGIC):
        raise file.error("does not begin with '#!AER-DAT2.0'; it is another format or damaged")
    lines, begin = text_header(file.data, "#", last="End Of ASCII Header")
    if rest := (len(file.data) - begin) % RECORD:
        raise file.error(f"breaks off inside the event at byte {len(file.data) - rest}; copy it again")
    rows = np.frombuffer(file.data, ">u4", offset=begin).reshape(-1, 2)
    address = rows[:, 0].astype(np.uint32)
    chip = next((line.split(":", 1)[1].strip() for line in lines if line.lower().startswith("aechip:")), None)
    t = unwrap(rows[:, 1], 32)
    if "davis" in (chip or "").lower():
        real = address & 0x8000_0400 == 0
        address, t = address[real], t[real]
        digits = re.search(r"davis(\d{3})", chip.lower()) if chip else None
        width, height = DAVIS_SIZES.get(digits[1], (None, None)) if digits else (None, None)
        return Recording(
            Events(t, (address >> 12) & 0x3FF, (address >> 22) & 0x1FF, address & 0x800 != 0), width, height
        )
    if re.search(r"dvs128|tmpdiff128", (chip or "").lower()) or (chip is None and not (address >> 16).any()):
        real = address & 0x8000 == 0
        address, t = address[real], t[real]
        return Recording(Events(t, (address >> 1) & 0x7F, (address >> 8) & 0x7F, address & 1 == 0), 128, 128)
    raise file.error(
        f"was recorded with chip {chip}, whose addresses are not known; DVS128 and DAVIS are"
        if chip
        else "does not name its chip and its addresses are not those of a DVS128; add a header line '# AEChip: ...'"
    )


FORMAT = Format("aedat2", "AEDAT 2.0", (".aedat", ".aedat2"), lambda head: head.startswith(MAGIC), decode)
