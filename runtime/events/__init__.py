"""Events, recordings, and the file formats they come in."""

from runtime.events.container import Events, Recording
from runtime.events.read import read_recording

__all__ = ["Events", "Recording", "read_recording"]
