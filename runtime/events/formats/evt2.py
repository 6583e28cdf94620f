"""EVT 2.0 `.raw`: a text header, then little-endian 32-bit words whose bits 31..28 say what they are.

    0, 1   event, OFF or ON: time bits 5..0 in 27..22, x in 21..11, y in 10..0
    8      time bits 33..6 in 27..0
    rest   triggers and vendor words, which carry no events

Events before the first time word have no time and are left out.
"""

from __future__ import annotations

import numpy as np

from runtime.events.container import Events, Recording
from runtime.events.formats import evt
from runtime.events.formats.clock import unwrap
from runtime.events.formats.format import File, Format

TIME_HIGH = 8
HIGH_BITS = 28


def decode(file: File) -> Recording:
    """Reads the events."""
    header = evt.parse(file.data)
    evt.check_words(file, header, 4)
    words = np.frombuffer(file.data, "<u4", offset=header.end)
    kind = words >> 28
    times = kind == TIME_HIGH
    high = unwrap(words[times] & 0x0FFFFFFF, HIGH_BITS)
    # The number of time words up to an event says which of them is in force.
    in_force = np.cumsum(times)
    events = (kind <= 1) & (in_force > 0)
    word = words[events]
    t = (high[in_force[events] - 1] << 6) | ((word >> 22) & 0x3F)
    return Recording(Events(t, (word >> 11) & 0x7FF, word & 0x7FF, kind[events] == 1), header.width, header.height)


FORMAT = Format("evt2", "EVT 2.0", (".raw",), lambda head: evt.parse(head).encoding == "2.0", decode)
