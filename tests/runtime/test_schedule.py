from __future__ import annotations

from itertools import accumulate

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.program import ITEMS, REQUEST, ProgramSpec, StageSpec, TensorSpec, Trigger
from runtime.schedule import counts, cycle, firings


def program(triggers: list[Trigger]) -> ProgramSpec:
    stages = [StageSpec(f"s{k}", trigger, ()) for k, trigger in enumerate(triggers)]
    answer = StageSpec("answer", Trigger(REQUEST), (), (TensorSpec("logits", "float32", (2,)),))
    return ProgramSpec("test", {}, (), (), (*stages, answer))


@st.composite
def triggers(draw) -> list[Trigger]:
    made = []
    for k in range(draw(st.integers(1, 5))):
        every = draw(st.integers(1, 6))
        after = draw(st.sampled_from([ITEMS, *(f"s{j}" for j in range(k))]))
        made.append(Trigger(after, every, draw(st.integers(0, every - 1))))
    return made


def by_hand(chosen: list[Trigger], items: int) -> list[list[int]]:
    """Every firing of every stage, by the trigger's own words."""
    fired = []
    counted = {ITEMS: 0, **{f"s{k}": 0 for k in range(len(chosen))}}

    def fire(source: str, row: list[int]) -> None:
        n = counted[source]
        counted[source] += 1
        for k, trigger in enumerate(chosen):
            if trigger.after == source and n % trigger.every == trigger.phase:
                row.append(k)
                fire(f"s{k}", row)

    for _ in range(items):
        fired.append([])
        fire(ITEMS, fired[-1])
    return fired


@given(triggers())
def test_the_table_repeats_what_the_triggers_say(chosen):
    spec = program(chosen)
    table = firings(spec)
    assert len(table) == cycle(spec)
    items = min(2 * len(table) + 3, 2000)
    assert [list(table[n % len(table)]) for n in range(items)] == by_hand(chosen, items)


@given(triggers(), st.integers(0, 300))
def test_counts_are_the_sums_of_the_firings(chosen, items):
    spec = program(chosen)
    table = firings(spec)
    fired = [stage for n in range(items) for stage in table[n % len(table)]]
    assert counts(spec, items) == [*(fired.count(k) for k in range(len(chosen) + 1)), items]


def test_nested_groups_multiply():
    spec = program([Trigger(), Trigger("s0", 16, 15), Trigger("s1", 16, 15)])
    assert cycle(spec) == 256
    assert list(accumulate(len(fired) for fired in firings(spec)))[-1] == 256 + 16 + 1
    assert firings(spec)[255] == (0, 1, 2)


def test_a_cycle_too_long_for_a_table_is_refused():
    with pytest.raises(ValueError, match="come round"):
        firings(program([Trigger(ITEMS, 1021), Trigger(ITEMS, 1031)]))
