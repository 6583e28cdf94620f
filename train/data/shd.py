"""SHD, the spiking Heidelberg digits: ten digits in English and German, 8156 + 2264 recordings of about a second.

`shd_train.h5` and `shd_test.h5`, see `train.data.heidelberg`; validation is a part of train.
"""

from __future__ import annotations

from train.data.heidelberg import Heidelberg


class SHD(Heidelberg):
    """The spiking Heidelberg digits."""

    name = "shd"
    files = {"train": "train", "test": "test"}  # noqa: RUF012
    classes = 20
