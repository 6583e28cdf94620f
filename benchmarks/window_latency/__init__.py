"""Latency and memory of one window: `python -m benchmarks.window_latency`."""
