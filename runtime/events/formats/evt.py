"""What EVT 2.0 and EVT 3.0 `.raw` files share: the text header with the encoding and, in words or hints, the sensor."""

from __future__ import annotations

import re
from dataclasses import dataclass

from runtime.events.formats.format import File
from runtime.events.formats.header import text_header

# Sensors by the generation that headers name when they give no size: `% plugin_name hal_plugin_gen41_evk3`.
GENERATIONS = {"3": (640, 480), "4": (1280, 720)}
SENSORS = {"imx636": (1280, 720), "imx646": (1280, 720), "genx320": (320, 320)}


@dataclass(frozen=True)
class Header:
    """What the header says.

    Attributes:
        encoding: `2.0`, `3.0`, ..., or `None`.
        width: Sensor columns, or `None`.
        height: Sensor rows, or `None`.
        end: Offset of the first word.
    """

    encoding: str | None
    width: int | None
    height: int | None
    end: int


def parse(data: bytes) -> Header:
    """Reads the header; without one, everything is `None` and the words begin at byte 0."""
    lines, end = text_header(data, "%", last="end")
    text = "\n".join(lines).lower()
    encoding = re.search(r"^evt (\d\.\d)", text, re.MULTILINE)
    if encoding is None:
        encoding = re.search(r"^format evt(\d+(?:\.\d)?)", text, re.MULTILINE)
    name = encoding[1] if encoding else None
    width, height = _size(text)
    return Header({"2": "2.0", "21": "2.1", "3": "3.0", "4": "4.0"}.get(name or "", name), width, height, end)


def _size(text: str) -> tuple[int, int] | tuple[None, None]:
    if geometry := re.search(r"^geometry (\d{1,5})x(\d{1,5})", text, re.MULTILINE):
        return int(geometry[1]), int(geometry[2])
    width, height = re.search(r"\bwidth=(\d{1,5})", text), re.search(r"\bheight=(\d{1,5})", text)
    if width and height:
        return int(width[1]), int(height[1])
    for name, size in SENSORS.items():
        if name in text:
            return size
    generation = re.search(r"generation (\d)\.\d", text) or re.search(r"plugin_name .*gen(\d)\d?_", text)
    return GENERATIONS.get(generation[1], (None, None)) if generation else (None, None)


def check_words(file: File, header: Header, bytes_each: int) -> None:
    """Refuses a file that breaks off inside a word."""
    if rest := (len(file.data) - header.end) % bytes_each:
        whole = len(file.data) - rest
        raise file.error(
            f"breaks off inside the word at byte {whole}; copy it again, or keep what is whole with head -c {whole}"
        )
