"""When each stage fires. The triggers of a program repeat, so one table of firings per item answers for all time."""

from __future__ import annotations

from math import gcd, lcm

from runtime.program import ITEMS, REQUEST, ProgramSpec

LONGEST = 1 << 20


def sources(spec: ProgramSpec) -> dict[str, int]:
    """What a trigger may wait for -> its number: the stages in table order, then the items."""
    return {**{stage.name: number for number, stage in enumerate(spec.stages)}, ITEMS: len(spec.stages)}


def firings(spec: ProgramSpec) -> list[tuple[int, ...]]:
    """The stages that each item of one cycle fires, in order.

    Args:
        spec: The program's tables.

    Returns:
        One tuple of stage numbers per item; item n of a stream fires `table[n % len(table)]`.

    Raises:
        ValueError: If the triggers need more than 2**20 items to come round.
    """
    followers = _followers(spec)
    counts = [0] * len(followers)
    shared: dict[tuple[int, ...], tuple[int, ...]] = {}
    table = []

    def cascade(source: int) -> list[int]:
        count, fired = counts[source], []
        counts[source] = count + 1
        for stage, every, phase in followers[source]:
            if count % every == phase:
                fired += [stage, *cascade(stage)]
        return fired

    for _ in range(cycle(spec)):
        fired = tuple(cascade(len(counts) - 1))
        table.append(shared.setdefault(fired, fired))
    return table


def cycle(spec: ProgramSpec) -> int:
    """Items after which every trigger is back where it began."""
    number = sources(spec)
    # Per source: it fires `times` times within `items` items, and its own triggers have come round after them.
    items, times = [1] * len(number), [1] * len(number)
    for stage in spec.stages:
        trigger = stage.trigger
        if trigger.after == REQUEST:
            continue
        mine, source = number[stage.name], number[trigger.after]
        rounds = trigger.every // gcd(times[source], trigger.every)
        items[mine] = items[source] * rounds
        times[mine] = times[source] * rounds // trigger.every
    result = lcm(*items)
    if result > LONGEST:
        raise ValueError(f"the triggers come round only after {result} items, more than {LONGEST}")
    return result


def counts(spec: ProgramSpec, items: int) -> list[int]:
    """How often each source has fired after `items` items, in the order of `sources`."""
    followers = _followers(spec)
    fired = [0] * len(followers)
    fired[-1] = items
    for source in (len(fired) - 1, *range(len(fired) - 1)):
        for stage, every, phase in followers[source]:
            fired[stage] = (fired[source] - phase + every - 1) // every
    return fired


def _followers(spec: ProgramSpec) -> list[list[tuple[int, int, int]]]:
    """Per source, what waits for it: (stage number, every, phase) in table order."""
    number = sources(spec)
    followers: list[list[tuple[int, int, int]]] = [[] for _ in number]
    for stage in spec.stages:
        trigger = stage.trigger
        if trigger.after != REQUEST:
            followers[number[trigger.after]].append((number[stage.name], trigger.every, trigger.phase))
    return followers
