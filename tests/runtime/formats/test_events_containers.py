"""ROS bags, NumPy and MATLAB files."""

from __future__ import annotations

import io
import zipfile

import numpy as np
import pytest

from runtime.errors import UserError
from runtime.events import Events, read_recording
from runtime.events.formats import File, matlab, numpy_columns, ros1


@pytest.mark.parametrize("compression", [b"none", b"bz2", b"lz4"])
def test_bag_compressions(compression, writers, same):
    events = writers.make_events(500)
    recording = ros1.decode(File(writers.rosbag1(events, compression), "a.bag"))
    same(recording.events, events)
    assert (recording.width, recording.height) == (34, 30)


def test_bag_errors(writers):
    def read(*records: bytes) -> None:
        ros1.decode(File(writers.bag(b"".join(records)), "a.bag"))

    with pytest.raises(UserError, match=r"holds no event packets .*, only /image \(sensor_msgs/Image\)"):
        read(writers.bag_connection(b"sensor_msgs/Image", b"/image"))
    with pytest.raises(UserError, match=r"holds no event packets .*, only nothing"):
        read()
    with pytest.raises(UserError, match=r"holds 2 event topics \(/left, /right\)"):
        read(writers.bag_connection(topic=b"/left"), writers.bag_connection(topic=b"/right", conn=1))
    with pytest.raises(UserError, match="topic /events is encoded as 'mono'; only little-endian evt3 is read"):
        read(writers.bag_connection(), writers.bag_message(b"", b"mono"))
    with pytest.raises(UserError, match=r"is a damaged bag .a message of /events breaks off"):
        read(writers.bag_connection(), writers.bag_message(b"abc"))
    with pytest.raises(UserError, match="topic /events changes its sensor size"):
        read(writers.bag_connection(), writers.bag_message(b""), writers.bag_message(b"", size=(1, 2)))
    data = writers.rosbag1(writers.make_events())
    with pytest.raises(UserError, match=r"is a damaged bag .*breaks off inside the record at byte"):
        ros1.decode(File(data[:-5], "a.bag"))


def npz(**arrays) -> File:
    out = io.BytesIO()
    np.savez_compressed(out, **arrays)
    return File(out.getvalue(), "a.npz")


GOOD = {"t": [1, 2, 3], "x": [0, 1, 2], "y": [5, 6, 7], "p": [True, False, True]}


@pytest.mark.parametrize(
    "change",
    [
        {"p": np.array([1, -1, 1], np.int8)},
        {"p": np.array([1, 0, 1], np.uint8)},
        {"t": np.array([1, 2, 3], np.float64)},
        {"t": np.array([1, 2, 3], ">u4")},
        {"x": np.array([0, 1, 2], np.int16)},
    ],
)
def test_npz_columns_of_any_whole_numbers(change, same):
    arrays = {name: np.array(column) for name, column in GOOD.items()}
    same(numpy_columns.decode_npz(npz(**arrays | change)).events, Events(*(np.array(GOOD[name]) for name in "txyp")))


def test_npz_by_other_names_and_without_y(same):
    recording = numpy_columns.decode_npz(npz(timestamps=[1, 2], units=[699, 3], tick_us=1000.0, width=700, height=1))
    same(recording.events, Events([1, 2], [699, 3], [0, 0], [True, True]))
    assert (recording.width, recording.height, recording.tick_us) == (700, 1, 1000.0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"x": [0, 1]}, r"column x has shape \(2,\), but t has \(3,\)"),
        ({"t": [[1, 2, 3]]}, r"has shape \(3,\), but t has \(1, 3\)|column t has shape \(1, 3\)"),
        ({"x": [-1, 1, 2]}, "column x goes from -1 to 2; it must be 0 to 65535"),
        ({"y": [0, 65536, 2]}, "column y goes from 0 to 65536"),
        ({"t": [0.5, 1, 2]}, "column t is not whole numbers; give times in ticks"),
        ({"t": [np.nan, 1, 2]}, "column t is not whole numbers"),
        ({"t": np.array([2**64 - 1, 1, 2], np.uint64)}, "column t reaches 18446744073709551615, beyond 63 bits"),
        ({"p": [0, 1, 2]}, "column p holds other values"),
        ({"p": ["a", "b", "c"]}, "column p is of type <U1; it must be numbers"),
        ({"width": -3}, "width must be one positive number"),
        ({"height": 2.5}, "height must be one positive number"),
        ({"tick_us": [1, 2]}, "tick_us must be one positive number"),
        ({"t": None}, "holds Python objects, which are never loaded"),
    ],
)
def test_npz_columns_that_cannot_be_events(change, message):
    with pytest.raises(UserError, match=message):
        numpy_columns.decode_npz(npz(**GOOD | change))


def test_npz_without_columns():
    with pytest.raises(UserError, match="has arrays a, b; it needs t, x, y and p"):
        numpy_columns.decode_npz(npz(a=[1], b=[2]))


def test_npz_that_promises_more_than_it_holds(writers):
    data = bytearray(writers.npz(writers.make_events()))
    at = data.index(b"PK\x01\x02")
    data[at + 24 : at + 28] = b"\xff\xff\xff\x7f"
    with pytest.raises(UserError, match=r"member t.npy promises more bytes than it can hold"):
        numpy_columns.decode_npz(File(bytes(data), "a.npz"))


def test_npy_that_promises_more_than_it_holds(writers):
    out = io.BytesIO()
    header = {"descr": [("t", "<i8"), ("x", "<u2")], "fortran_order": False, "shape": (10**15,)}
    np.lib.format.write_array_header_1_0(out, header)
    with pytest.raises(UserError, match=r"is no readable npy file .it breaks off at byte"):
        numpy_columns.decode_npy(File(out.getvalue(), "a.npy"))


def test_npy_of_plain_numbers_is_one_sentence():
    out = io.BytesIO()
    np.save(out, np.zeros((7, 4)))
    with pytest.raises(UserError, match=r"holds a plain array of shape \(7, 4\), whose columns have no names"):
        numpy_columns.decode_npy(File(out.getvalue(), "a.npy"))


def test_a_zip_archive_without_arrays_is_one_sentence(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        archive.writestr("b.txt", "no array")
    with pytest.raises(
        UserError, match=r"is a zip archive; name one recording in it as archive.zip:member; it holds 0"
    ):
        read_recording(tmp_path / "a.npz")


@pytest.mark.parametrize("packed", [True, False])
def test_mat_forms(packed, writers, same):
    events = writers.make_events()
    struct = writers.mat_struct(events, b"TD")
    same(matlab.decode(File(writers.mat(struct, packed=packed), "a.mat")).events, events)
    loose = [writers.mat_numbers(getattr(events, name).astype(np.int32)[:, None], name.encode()) for name in "xytp"]
    same(matlab.decode(File(writers.mat(*loose, packed=packed), "a.mat")).events, events)


def test_mat_cell_holds_several_recordings(tmp_path, writers, same):
    parts = [writers.make_events(seed=seed) for seed in range(3)]
    cell = writers.mat_matrix(1, (1, 3), b"ROI", *(writers.mat_struct(part) for part in parts))
    path = tmp_path / "a.mat"
    path.write_bytes(writers.mat(cell))
    for entry, part in enumerate(parts):
        recording = read_recording(f"{path}:{entry}")
        same(recording.events, part)
        assert recording.source == f"{path}:{entry}"
    for wrong in (path, f"{path}:3"):
        with pytest.raises(UserError, match=r"holds 3 recordings in ROI; name one as file.mat:0 to :2"):
            read_recording(wrong)


def test_mat_taxels(writers, same):
    train = np.zeros((5, 3))
    train[[2, 0, 3], [0, 1, 2]] = [1, -1, 1]
    train[4] = [0.5, 0.75, 1.0000004]
    recording = matlab.decode(File(writers.mat(writers.mat_numbers(train, b"spiketrain")), "a.mat"))
    same(recording.events, Events([500_000, 750_000, 1_000_000], [0, 0, 1], [1, 0, 1], [True, False, True]))
    assert (recording.width, recording.height) == (2, 2)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"MATLAB 7.3 MAT-file" + bytes(200), "was saved as version 7.3, which is not read; save it again with"),
        (b"MATLAB 5.0 MAT-file" + bytes(200), "is a damaged MATLAB file .its header names no byte order"),
        ("spiketrain (6, 3)", r"spiketrain has shape \(6, 3\); it must have one row a taxel of a square pad"),
        ("other", "has arrays other; it needs t, x, y and p"),
        ("deep", "it nests cells and structs deeper than 16"),
    ],
)
def test_mat_errors(data, message, writers):
    if data == "deep":
        data = writers.mat_numbers(np.zeros((1, 1)))
        for _ in range(20):
            data = writers.mat_matrix(1, (1, 1), b"", data)
        data = writers.mat(data)
    elif isinstance(data, str):
        data = writers.mat(writers.mat_numbers(np.zeros((6, 3)), data.split()[0].encode()))
    with pytest.raises(UserError, match=message):
        matlab.decode(File(data, "a.mat"))
