"""EVT 3.0 `.raw`: a text header, then little-endian 16-bit words whose bits 15..12 say what they are.

    0    row: y in 10..0                        6   time bits 11..0
    2    event: polarity in 11, x in 10..0      8   time bits 23..12
    3    vector base: polarity in 11, x in 10..0
    4    vector: events at base + i for each set bit i of 11..0; the base advances by 12
    5    vector: the same with 8 bits; the base advances by 8
    rest triggers and vendor words, which carry no events

Every word stands until the next of its kind. Times are taken as written: a time word that steps back a little is no
overflow (cameras that start mid-stream write such words); only a step back by more than half the range is one. Events
before the first row and the first time words, and vectors before the first base, have no place and are left out.
"""

from __future__ import annotations

import numpy as np

from runtime.events.container import Events, Recording
from runtime.events.formats import evt
from runtime.events.formats.clock import unwrap
from runtime.events.formats.format import File, Format

ROW, SINGLE, BASE, VECTOR_12, VECTOR_8, TIME_LOW, TIME_HIGH = 0, 2, 3, 4, 5, 6, 8
CHUNK = 1 << 18


class Decoder:
    """Decodes a stream of words that arrives in pieces; the pieces may end anywhere between two words."""

    def __init__(self) -> None:
        # Of each kind, the value in force; absent before the first such word. The base carries its advance.
        self._force: dict[int, int] = {}

    def feed(self, words: np.ndarray) -> Events:
        """Events of the next words.

        Args:
            words: (N,) uint16.
        """
        parts = (self._chunk(words[start : start + CHUNK]) for start in range(0, len(words), CHUNK))
        return Events.concatenate(parts)

    def _chunk(self, words: np.ndarray) -> Events:
        kind = words >> 12
        vector = (kind == VECTOR_12) | (kind == VECTOR_8)
        at = np.flatnonzero(vector | (kind == SINGLE))
        y, has_y = self._latest(ROW, kind, words & 0x7FF, at)
        low, has_low = self._latest(TIME_LOW, kind, words & 0xFFF, at)
        high, has_high = self._latest(TIME_HIGH, kind, words & 0xFFF, at)
        base, has_base = self._bases(words, kind, at)
        single = kind[at] == SINGLE
        keep = has_y & has_low & has_high & (single | has_base)
        word, time, rows = words[at][keep], ((high << 12) | low)[keep], y[keep]
        single, base = single[keep], base[keep]
        # A single event is a vector with only its first bit set.
        bits = np.where(single, 1, word & np.where(kind[at][keep] == VECTOR_8, 0xFF, 0xFFF)).astype("<u2")
        set_bits = np.flatnonzero(np.unpackbits(bits.view(np.uint8), bitorder="little").view(np.bool_))
        row, bit = set_bits >> 4, set_bits & 15
        x = np.minimum(np.where(single, word & 0x7FF, base >> 1)[row] + bit, 0xFFFF)
        on = np.where(single, (word >> 11) & 1, base & 1)[row]
        return Events(time[row], x, rows[row], on == 1)

    def _latest(
        self, setter: int, kind: np.ndarray, values: np.ndarray, at: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """The value in force at each of `at`, and whether there is one; keeps the last for the next chunk."""
        mask = kind == setter
        told = values[mask].astype(np.int64)
        before = [self._force[setter]] if setter in self._force else []
        told = np.concatenate([np.array(before, np.int64), told])
        if setter == TIME_HIGH and len(told):
            loops = int(told[0]) >> 12 << 12
            told[0] -= loops
            told = loops + unwrap(told, 12)
        if len(told):
            self._force[setter] = int(told[-1])
        which = np.cumsum(mask, dtype=np.int32)[at] - 1 + len(before)
        return (told[which] if len(told) else np.zeros(len(at), np.int64)), which >= 0

    def _bases(self, words: np.ndarray, kind: np.ndarray, at: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """At each of `at`, base x including the advance of the vectors since, times two plus polarity."""
        advance = (kind == VECTOR_12) * np.int32(12) + (kind == VECTOR_8) * np.int32(8)
        passed = np.cumsum(advance, dtype=np.int32) - advance
        told = (words & 0x7FF).astype(np.int64) - passed
        base, known = self._latest(BASE, kind, told * 2 + ((words >> 11) & 1), at)
        if BASE in self._force:
            self._force[BASE] += 2 * int(advance.sum())
        return base + 2 * passed[at], known


def decode(file: File) -> Recording:
    """Reads the events."""
    header = evt.parse(file.data)
    evt.check_words(file, header, 2)
    events = Decoder().feed(np.frombuffer(file.data, "<u2", offset=header.end))
    return Recording(events, header.width, header.height)


FORMAT = Format("evt3", "EVT 3.0", (".raw",), lambda head: evt.parse(head).encoding == "3.0", decode)
