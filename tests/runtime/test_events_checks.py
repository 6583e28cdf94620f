"""Stream checks and adapters."""

from __future__ import annotations

import numpy as np
import pytest

from runtime.errors import UserError
from runtime.events import Events, Recording, check_stream, parse_roi, parse_size, resize, roi, sort_by_time

GOOD = Events([1, 2, 2, 9], [0, 1, 2, 33], [0, 33, 2, 3], [1, 0, 0, 1])


def test_good_streams_pass():
    check_stream(Recording(GOOD))
    check_stream(Recording(GOOD, 34, 34), width=34, height=34)
    check_stream(Recording(GOOD), width=34, height=34)
    check_stream(Recording(GOOD, 34, 34), width=34)


@pytest.mark.parametrize(
    ("recording", "message"),
    [
        (Recording(Events.empty(), source="a.raw"), "^a.raw: holds no events; check that it is the right file"),
        (
            Recording(GOOD, 346, 260, source="a.raw"),
            "^a.raw: is from a 346 x 260 sensor, but the model was trained for 34 x 34 .*--roi or scale with --resize",
        ),
        (Recording(GOOD, 34, 35), r"\(35 is not 34 high\)"),
        (
            Recording(Events([1, 2], [0, 34], [0, 0], [0, 0]), 34, 34),
            "event 1 at x=34, y=0 lies outside the sensor its file declares, 34 x 34 .1 events do",
        ),
        (
            Recording(Events([1, 2], [0, 0], [40, 50], [0, 0])),
            "event 0 at x=0, y=40 lies outside the sensor of the model",
        ),
        (
            Recording(Events([5, 7, 6, 6, 5], [0] * 5, [0] * 5, [0] * 5)),
            "time goes backwards at event 2, from 7 to 6 .and 1 more times in 5 events.; sort it with --sort",
        ),
    ],
)
def test_bad_streams_are_one_sentence(recording, message):
    with pytest.raises(UserError, match=message) as caught:
        check_stream(recording, width=34, height=34)
    assert "\n" not in str(caught.value)


def test_time_that_wraps_is_backwards():
    with pytest.raises(UserError, match="time goes backwards at event 1"):
        check_stream(Recording(Events([2**63 - 1, -(2**63)], [0, 0], [0, 0], [0, 0])))


def test_sorting_is_stable():
    events = Events([3, 1, 3, 1], [0, 1, 2, 3], [0] * 4, [0] * 4)
    sorted_, report = sort_by_time(Recording(events, 34, 34, 0.2, "a", "b"))
    assert sorted_.events.t.tolist() == [1, 1, 3, 3] and sorted_.events.x.tolist() == [1, 3, 0, 2]
    assert report == {"adapter": "sort_by_time", "steps_back": 2} and (sorted_.tick_us, sorted_.source) == (0.2, "a")
    assert sort_by_time(Recording(GOOD))[1]["steps_back"] == 0


def test_roi():
    events = Events([1, 2, 3, 4], [9, 10, 19, 20], [5, 5, 8, 5], [1, 0, 1, 0])
    cropped, report = roi(Recording(events, 40, 30), 10, 5, 10, 4)
    assert cropped.events.x.tolist() == [0, 9] and cropped.events.y.tolist() == [0, 3]
    assert cropped.events.t.tolist() == [2, 3] and cropped.events.p.tolist() == [False, True]
    assert (cropped.width, cropped.height) == (10, 4)
    assert report == {"adapter": "roi", "x": 10, "y": 5, "width": 10, "height": 4, "kept": 2, "dropped": 2}
    assert roi(Recording(events), 10, 5, 10, 4)[1] == report


@pytest.mark.parametrize("box", [(-1, 0, 5, 5), (0, 0, 0, 5), (0, 0, 70_000, 5), (36, 0, 5, 5), (0, 26, 5, 5)])
def test_roi_outside(box):
    with pytest.raises(UserError, match="region x="):
        roi(Recording(GOOD, 40, 30), *box)


@pytest.mark.parametrize(("before", "after"), [(8, 4), (4, 8), (7, 3), (3, 7), (346, 128), (5, 5), (1, 65536)])
def test_resize_is_where_the_centre_falls(before, after):
    x = np.arange(before)
    events = Events(x, x, np.zeros(before), np.ones(before))
    scaled, report = resize(Recording(events, before, 1), after, 1)
    assert scaled.events.x.tolist() == [int((2 * k + 1) * after // (2 * before)) for k in range(before)]
    assert scaled.events.x.max() < after and len(scaled.events) == before
    if before >= after:
        assert set(scaled.events.x.tolist()) == set(range(after))
        counts = np.bincount(scaled.events.x)
        assert counts.max() - counts.min() <= 1
    assert report == {
        "adapter": "resize",
        "from_width": before,
        "from_height": 1,
        "width": after,
        "height": 1,
    }


def test_resize_errors():
    with pytest.raises(UserError, match=r"does not say how large its sensor is.*--size"):
        resize(Recording(GOOD), 10, 10)
    with pytest.raises(UserError, match="size 0 x 10 is not possible"):
        resize(Recording(GOOD, 34, 34), 0, 10)
    with pytest.raises(UserError, match="has events outside its 10 x 34 sensor"):
        resize(Recording(GOOD, 10, 34), 10, 10)


def test_option_texts():
    assert parse_roi(" 1,2,30,40 ") == (1, 2, 30, 40) and parse_size("640x480") == parse_size("640,480") == (640, 480)
    for text in ("1,2,3", "a,b,c,d", "-1,2,3,4", "1,2,3,999999"):
        with pytest.raises(UserError, match="is not like X,Y,WIDTH,HEIGHT"):
            parse_roi(text)
    for text in ("640", "x480", "640x480x2", "1e3x5"):
        with pytest.raises(UserError, match="is not like WIDTHxHEIGHT"):
            parse_size(text)
