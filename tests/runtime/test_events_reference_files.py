"""Real recordings, column by column, against what several decoders agree on."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import zipfile

import numpy as np
import pytest

from runtime.events import check_stream, read_recording

FILES = {
    "recordings/gen3_evt2.raw": "evt2",
    "recordings/gen41_evt3.raw": "evt3",
    "recordings/dvxplorer_320x240.aedat4": "aedat4",
    "recordings/davis346_clip.aedat4": "aedat4",
    "recordings/davis346_frames_imu.aedat4": "aedat4",
    "recordings/davis346_frames_only.aedat4": "aedat4",
    "recordings/ncars_sample.dat": "dat",
    "recordings/pokerdvs_club.es": "es",
    "recordings/ncaltech101_faces_easy_0001.bin": "nmnist",
    "recordings/evt3_gen3_triggers_ros1.bag": "rosbag1",
    "cochlea/130Hz_mono_64ch_ONOFF_addr2b_ts02.aedat": "cochlea",
    "cochlea/enun_stereo_64ch_ONOFF_addr4b_ts1.aedat": "cochlea",
    "cochlea/sound_mono_32ch_ONOFF_addr2b_ts02.aedat": "cochlea",
}


def digest(column: np.ndarray) -> str:
    return hashlib.sha256(column.astype("<i8").tobytes()).hexdigest()[:16]


@pytest.fixture(scope="module")
def facts(shared) -> dict:
    return json.loads((shared / "data/facts.json").read_text())


@pytest.mark.parametrize("name", FILES)
def test_recording(name, shared, facts):
    fact, recording = facts[name], read_recording(shared / "data" / name)
    events = recording.events
    assert recording.format == FILES[name] and len(events) == fact["events"]
    if "channels" in fact:
        assert (recording.width, recording.height) == (fact["channels"], 1 + fact["stereo"])
        address = events.y.astype(np.int64) * 2 * fact["channels"] + 2 * events.x.astype(np.int64) + events.p
        assert digest(address) == fact["sha_addr"]
    else:
        assert [recording.width, recording.height] == (fact["sensor"] or [None, None])
        if len(events):
            assert {axis: digest(getattr(events, axis)) for axis in "xyp"} == {a: fact[f"sha_{a}"] for a in "xyp"}
            assert (events.x.max(), events.y.max(), events.p.sum()) == (fact["x_max"], fact["y_max"], fact["on"])
    if len(events):
        assert (events.t[0], events.t[-1], recording.tick_us) == (fact["t_first"], fact["t_last"], fact["tick_us"])
        assert digest(events.t) == fact["sha_t"]
        check_stream(recording)


def test_taxels(shared):
    recording = read_recording(shared / "data/recordings/stmnist_sample.mat")
    t = recording.events.t
    assert len(t) == 2346 and (t[0], t[-1]) == (196_626, 895_745)
    check_stream(recording, width=10, height=10)


def test_alphabet(shared):
    path = shared / "data/alphabet/alphabet_ExtractedStabilized.mat"
    counts = []
    for entry in (0, 17, 75):
        events = read_recording(f"{path}:{entry}").events
        counts.append(len(events))
        assert events.t[0] == 0 and (np.diff(events.t) >= 0).all() and 98_000 <= events.t[-1] <= 140_000
        assert min(events.x.min(), events.y.min()) >= 1 and max(events.x.max(), events.y.max()) <= 32
    assert min(counts) >= 6347 and max(counts) <= 28_693


def test_labelled_set(shared):
    path = shared / "data/nmnist/nmnist_small.zip"
    with zipfile.ZipFile(path) as archive:
        rows = list(csv.DictReader(io.StringIO(archive.read("nmnist_small/index.csv").decode())))
    for row in rows[::40]:
        recording = read_recording(f"{path}:nmnist_small/{row['split']}/{row['label']}/{int(row['sample']):05d}.bin")
        events = recording.events
        assert (recording.width, recording.height, len(events)) == (34, 34, int(row["events"]))
        assert (events.t[0], events.t[-1]) == (int(row["t_first_us"]), int(row["t_last_us"]))
        assert events.p.sum() == int(row["on_events"])
