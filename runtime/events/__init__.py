"""Events, recordings, and the file formats they come in."""

from runtime.events.container import Events, Recording

__all__ = ["Events", "Recording"]
