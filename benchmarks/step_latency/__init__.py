"""Latency of single events: our compiled code, its floor, and the same graphs in every other stack that installs."""
