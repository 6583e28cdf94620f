"""Latency per event, measured where it counts: one event at a time, with carried state, on a proved bundle."""
