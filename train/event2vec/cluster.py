"""Clusters of events with intensities, made once per recording: `python -m train prepare cluster`.

    python -m train prepare cluster --root FOLDER [--clusters 1024] [--workers 1]

reads `FOLDER/{train,test}/CLASS/NAME.npy` (or .npz) and writes `FOLDER/kmeans_N/{train,test}/CLASS/NAME.npy.npz` with
float64 x, y, t, bool p and int64 intensity. As published: k-means on (x / (W-1), y / (H-1), t / t_last) within each
polarity, cluster counts in proportion to its events, intensity = events of a cluster, clusters sorted by time.
"""

from __future__ import annotations

import argparse
import os
import warnings
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np

from runtime.errors import UserError
from train.event2vec.files import read
from train.event2vec.points import Points

SIDE = 128


def cluster(points: Points, clusters: int, width: int = SIDE, height: int = SIDE, seed: int = 0) -> Points:
    """Replaces events by clusters.

    Args:
        points: The events, in time order.
        clusters: Number N of clusters; recordings of no more events are kept, each event with intensity 1.
        width: Sensor columns W.
        height: Sensor rows H.
        seed: Of the first centres.

    Returns:
        N clusters, or fewer where events coincide so often that some would be empty; their times lie in [0, 1] and do
        not begin at exactly 0. A polarity with events has a cluster; the published program fails on recordings of one
        polarity.

    Raises:
        UserError: If all times are equal, which have no scale, or scikit-learn is not installed.
    """
    count = len(points)
    if count <= clusters:
        return Points(points.t, points.x, points.y, points.p.astype(bool), np.ones(count, np.int64))
    t = (points.t - points.t[0]).astype(np.float64)
    if not t[-1] > 0:
        raise UserError(f"its {count} events all have the same time, so there is no scale of time; leave it out")
    place = np.stack([points.x / (width - 1), points.y / (height - 1), t / t[-1]], 1)
    on = points.p.astype(bool)
    share = int(on.mean() * clusters)
    if on.any() and not on.all():
        share = min(max(share, 1), clusters - 1)
    parts = []
    for polarity, chosen, number in ((True, on, share), (False, ~on, clusters - share)):
        if number:
            centres, sizes = _kmeans(place[chosen], number, seed)
            parts.append((centres, sizes, np.full(len(sizes), polarity)))
    centres, sizes, p = (np.concatenate(columns) for columns in zip(*parts, strict=True))
    order = np.argsort(centres[:, 2], kind="stable")
    x, y, t = (centres[order] * [width - 1, height - 1, 1]).T
    return Points(t, x, y, p[order], sizes[order])


def _kmeans(place: np.ndarray, number: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """(number, 3) centres and how many points belong to each; fewer where points coincide, so that none is empty."""
    try:
        from sklearn.cluster import KMeans
        from sklearn.exceptions import ConvergenceWarning
    except ImportError as error:
        raise UserError("prepare cluster needs scikit-learn: pip install 'scikit-learn>=1.4'") from error
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        found = KMeans(n_clusters=number, random_state=seed, n_init="auto").fit(place)
    counts = np.bincount(found.labels_, minlength=number)
    # An intensity of 0 would silence a token, and self-supervised training divides by it.
    filled = counts > 0
    return found.cluster_centers_[filled], counts[filled]


def convert(job: tuple[Path, Path], clusters: int) -> None:
    """Clusters one file into another, whole or not at all.

    Raises:
        UserError: If the file cannot be read or clustered; names it.
    """
    source, target = job
    if target.exists():
        return
    try:
        made = cluster(read(source), clusters)
    except UserError as error:
        if str(source) in str(error):
            raise
        raise UserError(f"{source}: {error}") from error
    target.parent.mkdir(parents=True, exist_ok=True)
    # Not called .npz, so that nobody reads what an interruption leaves; opened here, since numpy would call it so.
    begun = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    try:
        with begun.open("wb") as file:
            np.savez(file, x=made.x, y=made.y, t=made.t, p=made.p, intensity=np.asarray(made.intensity))
        begun.rename(target)
    finally:
        begun.unlink(missing_ok=True)


def jobs(root: Path, clusters: int) -> Iterator[tuple[Path, Path]]:
    """Every recording and the file that its clusters go into."""
    for split in ("train", "test"):
        for source in sorted((root / split).glob("*/*.np[yz]")):
            yield source, root / f"kmeans_{clusters}" / split / source.parent.name / f"{source.name}.npz"


def main(arguments: list[str]) -> int:
    """Runs `prepare`."""
    parser = argparse.ArgumentParser(
        prog="python -m train prepare",
        description="Make from a data set what a configuration reads; goes on where it stopped.",
    )
    parser.add_argument("what", choices=["cluster"], help="clusters of events by k-means, with intensities")
    parser.add_argument("--root", type=Path, required=True, help="folder that holds train and test")
    parser.add_argument("--clusters", type=int, default=1024, help="clusters per recording (default: 1024)")
    parser.add_argument("--workers", type=int, default=1, help="processes (default: 1)")
    options = parser.parse_args(arguments)
    if options.clusters < 2 or options.workers < 1:
        raise UserError("prepare cluster needs at least 2 clusters and 1 worker")
    found = list(jobs(options.root, options.clusters))
    if not found:
        raise UserError(f"{options.root}: holds no train/CLASS/NAME.npy; give --root the folder above `train`")
    work = partial(convert, clusters=options.clusters)
    try:
        if options.workers == 1:
            for job in found:
                work(job)
        else:
            with ProcessPoolExecutor(options.workers) as pool:
                list(pool.map(work, found, chunksize=16))
    except OSError as error:
        raise UserError(f"{error.filename}: {error.strerror}; name a folder that can be written") from error
    print(f"{len(found)} recordings in {options.clusters} clusters each: {options.root / f'kmeans_{options.clusters}'}")
    return 0
