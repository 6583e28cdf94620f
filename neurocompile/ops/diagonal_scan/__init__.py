"""The op `diagonal_scan` (event-ssm's S5 recurrence)."""

from neurocompile.ops.diagonal_scan.dispatch import diagonal_scan

__all__ = ["diagonal_scan"]
