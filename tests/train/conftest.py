"""Made-up sets, written once."""

from __future__ import annotations

from pathlib import Path

import pytest

from train.data.generate import main


@pytest.fixture(scope="session")
def made_up(tmp_path_factory) -> dict[str, Path]:
    """Data set -> folder with a few recordings in its layout."""
    pytest.importorskip("h5py")
    roots = {}
    for name, samples in (("shd", 2), ("ssc", 2), ("dvs_gesture", 3), ("dvs_lip", 2), ("asl_dvs", 3), ("nmnist", 4)):
        roots[name] = tmp_path_factory.mktemp("sets") / name
        assert main([name, "--root", str(roots[name]), "--samples", str(samples), "--events", "300"]) == 0
    return roots
