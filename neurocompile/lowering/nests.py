"""From tasks to statements: phases, fusion, nests.

Tasks fall into phases. A map joins the nest of its consumers where both run over the same box; products, folds, and
maps that read another map through an index map need the result in memory, so they begin a new phase. Within a phase,
all maps and folds over one box are one nest, but folds over different dimensions are nests of their own, in each of
which the maps they need are made again. A map moves to the latest phase that its consumers allow, so that it needs
no buffer where one consumer exists. Scalars are computed inside every nest that uses them.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from neurocompile.lowering.loops import (
    Access,
    Apply,
    Attention,
    Buffer,
    Constant,
    Fold,
    Let,
    Load,
    MatMul,
    MatVec,
    Nest,
    Rows,
    Scatter,
    Statement,
    Store,
)
from neurocompile.lowering.tasks import Operand, Task
from neurocompile.lowering.views import Tensor, View, access_of


def statements(tasks: list[Task], buffers: dict[Tensor, Buffer]) -> list[Statement]:
    """Loops for the tasks.

    Args:
        tasks: In an order in which they may run.
        buffers: The buffer of every tensor; locals are added as they turn out to be needed.

    Returns:
        Statements in order of execution; new values of states still have buffers of their own.
    """
    phases = _phases(tasks)
    result: list[Statement] = []
    for phase in sorted(set(phases.values())):
        now = [task for task in tasks if phases[task] == phase]
        boxes: dict[tuple[int, ...], list[Task]] = defaultdict(list)
        for task in now:
            if task.kind in LOOPS:
                boxes[task.box].append(task)
        scalars = [task for task in boxes.pop((), []) if task.kind == "fold" or _stored(task, phases)]
        for box, members in boxes.items():
            result += _nests(box, members, phases, buffers)
        result += [PRIMITIVES[task.kind](task, buffers) for task in now if task.kind not in LOOPS]
        if scalars:
            result += _nests((), scalars, phases, buffers)
    return result


def fusable(producer: Task, consumer: Task, view: View) -> bool:
    """Whether the consumer can take the producer's value from a register."""
    if producer.kind != "map" or consumer.kind not in LOOPS or not producer.target.is_whole:
        return False
    if producer.box == ():
        return True
    return view.is_whole and producer.box == consumer.box


def _phases(tasks: list[Task]) -> dict[Task, int]:
    early: dict[Task, int] = {}
    consumers: dict[Task, list[tuple[Task, bool]]] = defaultdict(list)
    for task in tasks:
        early[task] = 0
        for view in task.views:
            for producer in view.tensor.producers:
                fused = fusable(producer, task, view)
                consumers[producer].append((task, fused))
                early[task] = max(early[task], early[producer] + (not fused))
    late: dict[Task, int] = {}
    for task in reversed(tasks):
        allowed = [late[consumer] - (not fused) for consumer, fused in consumers[task]]
        late[task] = min(allowed) if task.kind == "map" and allowed else early[task]
    return late


def _stored(task: Task, phases: dict[Task, int]) -> bool:
    """Whether the result is needed in memory."""
    if task.target.tensor.kind != "local" or not task.target.is_whole:
        return True
    for user in phases:
        for view in user.views:
            if view.tensor is not task.target.tensor:
                continue
            if not fusable(task, user, view) or (task.box != () and phases[user] != phases[task]):
                return True
    return False


@dataclass
class _Body:
    """A nest under construction; equal lines are let once."""

    box: tuple[int, ...]
    members: set[Task]
    buffers: dict[Tensor, Buffer]
    lines: list[Let] = field(default_factory=list)
    names: dict[Load | Constant | Apply, str] = field(default_factory=dict)
    done: dict[Task, str] = field(default_factory=dict)

    def let(self, value: Load | Constant | Apply) -> str:
        """The name of a value."""
        if value not in self.names:
            self.names[value] = f"v{len(self.lines)}"
            self.lines.append(Let(self.names[value], value))
        return self.names[value]

    def operand(self, task: Task, operand: Operand) -> str:
        """The name of an operand: a register, a scalar made again, or a load."""
        if isinstance(operand, Constant):
            return self.let(operand)
        producers = operand.tensor.producers
        if len(producers) == 1 and fusable(producers[0], task, operand):
            producer = producers[0]
            if producer.box == () or producer in self.members:
                return self.task(producer)
        return self.let(Load(self.access(operand)))

    def task(self, task: Task) -> str:
        """The name of a map's result."""
        if task not in self.done:
            names = tuple(self.operand(task, operand) for operand in task.operands)
            copied = task.operation == "copy"
            self.done[task] = names[0] if copied else self.let(Apply(task.operation, names, task.target.dtype))
        return self.done[task]

    def access(self, view: View) -> Access:
        """An index map that fits the box: scalars are the same everywhere."""
        if all(n == 1 or s == 0 for n, s in zip(view.shape, view.strides, strict=True)):
            scalar = replace(view, shape=(), strides=())
            return replace(access_of(scalar, (), _known(self.buffers, view.tensor)), strides=(0,) * len(self.box))
        return access_of(view, self.box, _known(self.buffers, view.tensor))


def _known(buffers: dict[Tensor, Buffer], tensor: Tensor) -> dict[Tensor, Buffer]:
    if tensor not in buffers:
        buffers[tensor] = Buffer(tensor.name, tensor.dtype, tensor.size, "local")
    return buffers


def _nests(
    box: tuple[int, ...], members: list[Task], phases: dict[Task, int], buffers: dict[Tensor, Buffer]
) -> list[Statement]:
    """One nest for all that is stored and the folds that go with it, and one for every other kind of fold."""
    stored = [task for task in members if task.kind == "map" and _stored(task, phases)]
    folds: dict[tuple[bool, ...], list[Task]] = defaultdict(list)
    for task in members:
        if task.kind == "fold":
            kept = task.target.broadcast(task.views[0].shape)
            folds[tuple(s == 0 for n, s in zip(kept.shape, kept.strides, strict=True) if n != 1)].append(task)
    groups = list(folds.values()) or [[]]
    if stored or folds:
        groups[0] = [task for task in members if task in stored or task in groups[0]]
    return [_nest(box, group, members, buffers) for group in groups if group]


def _nest(box: tuple[int, ...], ends: list[Task], members: list[Task], buffers: dict[Tensor, Buffer]) -> Nest:
    body = _Body(box, set(members), buffers)
    lines: list[Store | Fold] = []
    for task in ends:
        if task.kind == "fold":
            name = body.operand(task, task.operands[0])
            lines.append(Fold(task.operation, body.access(task.target.broadcast(task.views[0].shape)), name))
        else:
            name = body.task(task)
            lines.append(Store(body.access(task.target), name))
    return _coalesced(Nest(box, (*body.lines, *lines)))


def _mat_vec(task: Task, buffers: dict[Tensor, Buffer]) -> MatVec:
    assert task.weight is not None
    inputs, outputs = task.weight.shape
    pieces = tuple((_box_access(view, buffers), view.shape[0]) for view in task.views)
    return MatVec(_box_access(task.target, buffers), pieces, _weight(task, buffers), inputs, outputs)


def _mat_mul(task: Task, buffers: dict[Tensor, Buffer]) -> MatMul:
    assert task.weight is not None
    inputs, outputs = task.weight.shape
    pieces = tuple((_box_access(view, buffers), view.shape[1]) for view in task.views)
    out = _box_access(task.target, buffers)
    return MatMul(out, pieces, _weight(task, buffers), task.target.shape[0], inputs, outputs)


def _rows(task: Task, buffers: dict[Tensor, Buffer]) -> Rows:
    table, index = task.views
    out, (rows, width) = _box_access(task.target, buffers), task.target.shape
    return Rows(out, _box_access(table, buffers), _box_access(index, buffers), rows, table.shape[0], width)


def _scatter(task: Task, buffers: dict[Tensor, Buffer]) -> Scatter:
    source, x, index = (_box_access(view, buffers) for view in task.views)
    (rows, width), table_rows = task.views[1].shape, task.target.shape[0]
    return Scatter(_box_access(task.target, buffers), source, x, index, rows, table_rows, width)


def _attention(task: Task, buffers: dict[Tensor, Buffer]) -> Attention:
    q, k, v, log_f, *known = (_box_access(view, buffers) for view in task.views)
    (queries, heads, width), (keys, key_heads, _), (steps, _) = (task.views[number].shape for number in (0, 1, 3))
    return Attention(
        out=_box_access(task.target, buffers),
        q=q,
        k=k,
        v=v,
        log_f=log_f,
        known=known[0] if known else None,
        steps=steps,
        queries=queries,
        keys=keys,
        cut=task.cut,
        heads=heads,
        key_heads=key_heads,
        width=width,
    )


LOOPS = ("map", "fold")
PRIMITIVES: dict[str, Callable[[Task, dict[Tensor, Buffer]], Statement]] = {
    "matvec": _mat_vec,
    "matmul": _mat_mul,
    "rows": _rows,
    "scatter": _scatter,
    "attention": _attention,
}


def _weight(task: Task, buffers: dict[Tensor, Buffer]) -> Buffer:
    assert task.weight is not None
    return _known(buffers, task.weight)[task.weight]


def _box_access(view: View, buffers: dict[Tensor, Buffer]) -> Access:
    """The view's index map over all its dimensions, those of one element included."""
    strides = tuple(0 if n == 1 else s for n, s in zip(view.shape, view.strides, strict=True))
    flat = access_of(view, tuple(n for n in view.shape if n != 1), _known(buffers, view.tensor))
    return replace(flat, strides=strides)


def _coalesced(nest: Nest) -> Nest:
    """Neighbouring dimensions that every index map walks through as one become one."""
    shape, body = nest.shape, nest.body
    for d in reversed(range(len(shape) - 1)):
        maps = [_access(line) for line in body if _access(line) is not None]
        if all(a.strides[d] == a.strides[d + 1] * shape[d + 1] for a in maps if a is not None):
            shape = (*shape[:d], shape[d] * shape[d + 1], *shape[d + 2 :])
            body = tuple(_with_strides(line, d) for line in body)
    return Nest(shape, body)


def _access(line: Let | Store | Fold) -> Access | None:
    if isinstance(line, Let):
        return line.value.access if isinstance(line.value, Load) else None
    return line.access


def _with_strides(line: Let | Store | Fold, d: int) -> Let | Store | Fold:
    access = _access(line)
    if access is None:
        return line
    merged = replace(access, strides=(*access.strides[:d], *access.strides[d + 1 :]))
    return replace(line, value=Load(merged)) if isinstance(line, Let) else replace(line, access=merged)
