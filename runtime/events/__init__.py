"""Events, recordings, and the file formats they come in."""

from runtime.events.adapters import parse_roi, parse_size, resize, roi, sort_by_time
from runtime.events.checks import check_stream
from runtime.events.container import Events, Recording
from runtime.events.read import read_recording
from runtime.events.write import write_recording

__all__ = [
    "Events",
    "Recording",
    "check_stream",
    "parse_roi",
    "parse_size",
    "read_recording",
    "resize",
    "roi",
    "sort_by_time",
    "write_recording",
]
