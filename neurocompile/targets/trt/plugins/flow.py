"""Which parameters of a kernel its loads and stores go through: read off the PTX text, to hold plans against.

Registers are followed from `ld.param` through every instruction that computes one from others, until nothing changes;
that holds for any order of instructions and any loop. What is loaded from memory carries no parameter on.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

_NAME = re.compile(r"%\w+")
_GUARD = re.compile(r"^@!?%\w+\s+")


@dataclass(frozen=True)
class Flow:
    """What a kernel does with its parameters.

    Attributes:
        used: Parameters that any instruction loads.
        read: Parameters through which global memory is read.
        written: Parameters through which global memory is written.
    """

    used: frozenset[str]
    read: frozenset[str]
    written: frozenset[str]


def flow(ptx: str) -> Flow:
    """Follows the parameters of the one kernel in a PTX text."""
    steps, reads, writes, used = [], [], [], set()
    carried: dict[str, set[str]] = {}
    for text in _instructions(ptx):
        name, _, rest = text.partition(" ")
        operands = _operands(rest)
        if name.startswith("ld.param"):
            parameter = re.match(r"\[(\w+)", operands[1])
            if parameter:
                used.add(parameter[1])
                for register in _NAME.findall(operands[0]):
                    carried.setdefault(register, set()).add(parameter[1])
        elif name.startswith(("ld.global", "prefetch")) or (name.startswith("ld.") and ".global" in name):
            reads.append(operands[-1] if name.startswith("prefetch") else operands[1])
        elif name.startswith("st.global") or name.startswith(("red.global", "atom.global")):
            writes.append(operands[1] if name.startswith("atom") else operands[0])
        elif name.startswith("cp.async") and ".shared.global" in name:
            reads.append(operands[1])
        elif operands and not name.startswith(("ld.", "st.", "bra", "ret", "bar")):
            steps.append((_NAME.findall(operands[0]), _NAME.findall(" ".join(operands[1:]))))
    changed = True
    while changed:
        changed = False
        for targets, sources in steps:
            found = set().union(*(carried.get(source, set()) for source in sources)) if sources else set()
            for target in targets:
                held = carried.setdefault(target, set())
                if not found <= held:
                    held |= found
                    changed = True

    def through(places: list[str]) -> frozenset[str]:
        registers = {register for place in places for register in _NAME.findall(place)}
        return (
            frozenset().union(*(carried.get(register, set()) for register in registers)) if registers else frozenset()
        )

    return Flow(frozenset(used), through(reads), through(writes))


def _instructions(ptx: str) -> list[str]:
    body = ptx[ptx.index("{", ptx.index(".entry")) :]
    pieces = (" ".join(piece.split()) for piece in re.split(r"[;{}]\s*\n|:\s*\n", body))
    return [_GUARD.sub("", piece) for piece in pieces if piece and not piece.startswith((".", "$"))]


def _operands(text: str) -> list[str]:
    """Cuts at commas outside of brackets and braces."""
    return [part.strip() for part in re.split(r",(?![^\[{]*[\]}])", text)]
