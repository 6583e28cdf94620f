"""What a pass tells about itself."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Change:
    """One rewrite.

    Attributes:
        rule: Name of the pass.
        stage: The stage whose graph was rewritten.
        what: What became of what, for the export report.
    """

    rule: str
    stage: str
    what: str
