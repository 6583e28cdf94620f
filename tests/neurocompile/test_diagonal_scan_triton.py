from __future__ import annotations

import pytest

pytest.importorskip("triton", reason="Triton is published for Linux only")

TOLERANCE = {"float64": 1e-13, "float32": 2e-6, "bfloat16": 2e-6, "float16": 2e-6}

# programs: 0 keeps sequences whole, 4 leaves chunks of two tiles and more, 512 makes every tile a chunk.
CASES = [
    {"batch": 2, "steps": steps, "width": width, "dtype": dtype, "programs": programs, "initial": initial}
    for steps, width, dtype, programs, initial in [
        (1, 3, "float32", 512, True),
        (1, 1, "float32", 0, False),
        (32, 2, "float32", 512, True),
        (63, 3, "float32", 0, True),
        (63, 3, "float32", 512, False),
        (100, 5, "float32", 4, True),
        (100, 1, "float32", 512, True),
        (111, 2, "float32", 0, True),
        (111, 2, "float32", 4, False),
        (111, 2, "float32", 512, True),
        (5, 35, "float32", 512, True),
        (63, 2, "bfloat16", 512, True),
        (111, 1, "float16", 4, True),
        (100, 1, "float64", 4, True),
    ]
]


@pytest.fixture(scope="module")
def interpreted(interpret):
    """Errors of all cases."""
    return interpret("diagonal_scan_interpreted.py", CASES)


@pytest.mark.parametrize("index", range(len(CASES)), ids=lambda index: "-".join(map(str, CASES[index].values())))
def test_states_and_all_gradients_in_the_interpreter(interpreted, index):
    errors, bound = interpreted[index], TOLERANCE[CASES[index]["dtype"]]
    assert len(errors) == 8
    assert {name: error for name, error in errors.items() if not error <= bound} == {}
