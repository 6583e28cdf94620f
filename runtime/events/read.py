"""Opens a recording of any known format, from a folder or out of a zip archive."""

from __future__ import annotations

import os
import re
from dataclasses import replace
from pathlib import Path, PurePosixPath

from runtime.errors import UserError
from runtime.events.container import Recording
from runtime.events.formats import FORMATS, File, Format, evt

HEAD = 4096


def read_recording(
    path: str | Path,
    *,
    format: str | None = None,
    size: tuple[int, int] | None = None,
    tick_us: float | None = None,
) -> Recording:
    """Reads a whole recording.

    Args:
        path: A file, or `archive.zip:member` (also `archive.zip!member`) for a file in a zip archive, or `file.mat:7`
            for one recording of a MATLAB file that holds several.
        format: Name of the format; without it the content decides, then the suffix.
        size: (width, height) of the sensor, in place of what the file says or does not say.
        tick_us: Length of one tick in microseconds, in place of what the file says or implies.

    Returns:
        The events in the file's order with the file's times; nothing is sorted, cropped or dropped that is an event.

    Raises:
        UserError: If the file cannot be opened, is of no known format, breaks off or contradicts itself.
    """
    if size is not None and not (len(size) == 2 and all(0 < side <= 1 << 16 for side in size)):
        raise UserError(f"sensor size {size} is not possible; give (width, height), each from 1 to {1 << 16}")
    if tick_us is not None and not 0 < tick_us < float("inf"):
        raise UserError(f"a tick of {tick_us} us is not possible; give a positive number of microseconds")
    try:
        name, data, entry = _load(path)
        file = File(data, name, size, tick_us, entry)
        kind = _format(file, format)
        recording = kind.decode(file)
    except MemoryError:
        raise UserError(f"{path}: needs more memory than this machine has; cut the recording into parts") from None
    width, height = size or (recording.width, recording.height)
    tick = recording.tick_us if tick_us is None else float(tick_us)
    return replace(recording, width=width, height=height, tick_us=tick, source=name, format=kind.name)


def _load(path: str | Path) -> tuple[str, bytes, int | None]:
    """The name to show, the bytes of a file or zip member, and the entry asked for of a MATLAB file."""
    text, entry = str(path), None
    try:
        if not os.path.exists(text):
            if parts := re.fullmatch(r"(.+\.mat)[:!](\d{1,9})", text, re.IGNORECASE | re.DOTALL):
                text, entry = parts[1], int(parts[2])
            if not os.path.exists(text) and (
                parts := re.fullmatch(r"(.+?\.zip)[:!](.+)", text, re.IGNORECASE | re.DOTALL)
            ):
                return text, _load_member(parts[1], parts[2]), entry
        data = Path(text).read_bytes()
        return text if entry is None else f"{text}:{entry}", data, entry
    except FileNotFoundError:
        raise UserError(f"{text}: no such file; check the path") from None
    except IsADirectoryError:
        raise UserError(f"{text}: is a folder; name one recording inside it") from None
    except (OSError, ValueError) as error:
        raise UserError(f"{text}: cannot be read ({getattr(error, 'strerror', None) or error})") from None


def _load_member(archive: str, member: str) -> bytes:
    import zipfile
    import zlib

    try:
        with zipfile.ZipFile(archive) as file:
            return file.read(member)
    except FileNotFoundError:
        raise UserError(f"{archive}: no such file; check the path") from None
    except IsADirectoryError:
        raise UserError(f"{archive}: is a folder, not a zip archive") from None
    except KeyError:
        with zipfile.ZipFile(archive) as file:
            raise UserError(f"{archive}: has no member {member!r}; {_some_members(file.namelist())}") from None
    except (OSError, EOFError, RuntimeError, NotImplementedError, zipfile.BadZipFile, zlib.error) as error:
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"{archive}: member {member!r} cannot be read ({reason}); copy the archive again") from None


def _some_members(names: list[str]) -> str:
    known = {suffix for kind in FORMATS for suffix in kind.suffixes}
    recordings = [name for name in names if PurePosixPath(name).suffix.lower() in known]
    return f"it holds {len(recordings)} recordings" + (f", for example {recordings[0]!r}" if recordings else "")


def _format(file: File, name: str | None) -> Format:
    """The format of a file: as told, else by its first bytes, else by its suffix."""
    known = ", ".join(f"{kind.name} ({kind.title})" for kind in FORMATS)
    if name is not None:
        for kind in FORMATS:
            if kind.name == name:
                return kind
        raise UserError(f"format {name!r} does not exist; choose one of {known}")
    if not file.data:
        raise file.error("is empty (0 bytes); copy or record it again")
    head = file.data[:HEAD]
    suffix = PurePosixPath(file.name.replace("\\", "/")).suffix.lower()
    for kind in FORMATS:
        if kind.recognises is not None and kind.recognises(head):
            return kind
    if head[:4] == b"PK\x03\x04":
        raise file.error(f"is a zip archive; name one recording in it as archive.zip:member; {_members_of(file)}")
    if encoding := evt.parse(head).encoding:
        raise file.error(
            f"is encoded as EVT {encoding}, which is not read; convert it to EVT 3.0 with the camera's tools"
        )
    named = [kind for kind in FORMATS if suffix in kind.suffixes]
    for kind in named:
        if kind.recognises is None:
            return kind
    if named:
        titles = " or ".join(kind.title for kind in named)
        raise file.error(f"is named like {titles} but does not begin like it; it is damaged or something else")
    raise file.error(f"is of no known format; name it with --format if it is one of {known}")


def _members_of(file: File) -> str:
    import io
    import zipfile

    try:
        with zipfile.ZipFile(io.BytesIO(file.data)) as archive:
            return _some_members(archive.namelist())
    except (OSError, zipfile.BadZipFile):
        return "but it is damaged, so copy it again first"
