"""Training: `python -m train fit`."""
