"""Cochlea recordings `.aedat` without a header: big-endian records of an address and a time.

    address   2 or 4 bytes: ear * 2 channels + 2 * channel + polarity
    time      u32, ticks

What the bytes mean stands in the file's name alone, `enun_stereo_64ch_ONOFF_addr4b_ts1.aedat`: mono or stereo,
channels, address bytes, and the tick in microseconds, whose leading zero stands for `0.` (`ts02` is 0.2 us).
x is the channel, y the ear.
"""

from __future__ import annotations

import re

import numpy as np

from runtime.events.container import Events, Recording
from runtime.events.formats.clock import unwrap
from runtime.events.formats.format import File, Format

ADDRESS_TYPES = {2: ">u2", 4: ">u4"}


def decode(file: File) -> Recording:
    """Reads the events."""
    name = re.split(r"[/\\:!]", file.name)[-1].lower()
    ears, channels, address, tick = (
        re.search(pattern, name)
        for pattern in (r"mono|stereo", r"(?<!\d)(\d{1,4})ch(?![a-z])", r"addr([24])b", r"ts(0?)(\d{1,4})(?!\d)")
    )
    if not (ears and channels and address and tick and "onoff" in name and int(channels[1]) and int(tick[2])):
        raise file.error(
            "has no header, and its name does not say what its bytes mean; name it like "
            "sound_stereo_64ch_ONOFF_addr4b_ts1.aedat (mono or stereo, channels, address bytes, tick in us)"
        )
    width, height = int(channels[1]), 2 if ears[0] == "stereo" else 1
    record = np.dtype([("address", ADDRESS_TYPES[int(address[1])]), ("t", ">u4")])
    if rest := len(file.data) % record.itemsize:
        raise file.error(
            f"breaks off inside the event at byte {len(file.data) - rest}; copy it again or check its name"
        )
    rows = np.frombuffer(file.data, record)
    place = rows["address"].astype(np.int64)
    outside = place >= 2 * width * height
    if outside.any():
        row = int(outside.argmax())
        raise file.error(
            f"event {row} has address {place[row]}, but {height} x {width} channels end at {2 * width * height - 1}; "
            "check the name of the file"
        )
    ear, place = np.divmod(place, 2 * width)
    tick_us = float(f"0.{tick[2]}" if tick[1] else tick[2])
    return Recording(Events(unwrap(rows["t"], 32), place >> 1, ear, place & 1 == 1), width, height, tick_us)


FORMAT = Format("cochlea", "cochlea addresses, described by the file's name", (".aedat",), None, decode)
