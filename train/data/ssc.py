"""SSC, the spiking speech commands: 35 English words, 75466 + 9981 + 20382 recordings of about a second.

`ssc_train.h5`, `ssc_valid.h5` and `ssc_test.h5`, see `train.data.heidelberg`; validation is the set's own.
"""

from __future__ import annotations

from train.data.heidelberg import Heidelberg


class SSC(Heidelberg):
    """The spiking speech commands."""

    name = "ssc"
    files = {"train": "train", "validation": "valid", "test": "test"}  # noqa: RUF012
    classes = 35
