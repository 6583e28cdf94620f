"""The generated part of a library: constants, the stream's memory, one function per stage, and the schedule."""

from __future__ import annotations

import json

from neurocompile.lowering.loops import LoopProgram, MatVec, StageLoops, accesses
from neurocompile.targets.cpu.formats import Format
from neurocompile.targets.cpu.layout import ITEM_BYTES, Weights, identifier
from neurocompile.targets.cpu.memory import ITEMS, TYPES, Memory, field_name
from neurocompile.targets.cpu.nest_code import literal, nest_code
from neurocompile.targets.cpu.product_code import Shape, kernel, product_code, widths
from runtime.errors import UserError
from runtime.program import ITEMS as FRONT_END
from runtime.program import REQUEST, ProgramSpec, StageSpec
from runtime.schedule import sources

RULES = {"channel": 0, "product": 1, "linear": 2}
LARGEST_LOCALS = 256 << 10


def program_code(spec: ProgramSpec, program: LoopProgram, weights: Weights, shape: Shape, form: Format) -> str:
    """C between the mathematics and the session code.

    Args:
        spec: The tables.
        program: The loops.
        weights: Their layout.
        shape: How matrices are cut.
        form: How their numbers are kept.

    Returns:
        The text.

    Raises:
        UserError: If the front end has no C form, or a stage needs more stack than a thread may have.
    """
    memory = Memory(weights)
    products = [s for stage in program.stages.values() for s in stage.statements if isinstance(s, MatVec)]
    lines = [
        f'_Static_assert(NC_LANES == {shape.lanes}, "compile for the processor that the code was generated for");',
        "",
    ]
    lines += _constants(spec, weights)
    lines += _stream(spec, program)
    for width in widths(products, shape, form):
        lines += [*kernel(width, shape, form), ""]
    for stage in program.stages.values():
        lines += _stage(stage, memory, shape, form)
    lines += _reset(spec)
    lines += _schedule(spec)
    lines += _prefetch(program, memory)
    return "\n".join(lines) + "\n"


def _constants(spec: ProgramSpec, weights: Weights) -> list[str]:
    front = spec.front_end
    if front.get("kind") != "token_dt":
        raise UserError(f"front end {front.get('kind')!r} has no C form; export for onnx-fp32 instead")
    (answer,) = spec.readout.outputs
    values = {
        "RULE": RULES[front["rule"]],
        "WIDTH": front["width"],
        "HEIGHT": front["height"],
        "VOCABULARY": front["vocabulary"],
        "GAP_AFTER": int(front["dt"] == "next"),
        "CLASSES": answer.shape[0],
        "STATES": len(spec.states),
        "LABELS": len(spec.labels),
        "FIRST_READOUT": spec.first_readout,
        "SOURCES": len(sources(spec)),
        "WEIGHTS_BYTES": len(weights.data),
        "FAMILY": json.dumps(spec.family),
    }
    lines = [f"#define NC_{name} {value}" for name, value in values.items()]
    if front.get("fixed_dt_us") is not None:
        lines.append(f"#define NC_FIXED_DT {float(front['fixed_dt_us'])!r}")
    if spec.labels:
        labels = ", ".join(json.dumps(label, ensure_ascii=False) for label in spec.labels)
        lines.append(f"static const char *const nc_labels[] = {{{labels}}};")
    return [*lines, ""]


def _stream(spec: ProgramSpec, program: LoopProgram) -> list[str]:
    lines = ["/* Everything that a stream remembers. */", "typedef struct {", "    nc_position position;"]
    lines.append("    uint64_t fired[NC_SOURCES];")
    for buffer in (*program.states, *program.values):
        lines.append(f"    _Alignas(64) {TYPES[buffer.dtype]} {field_name(buffer)}[{buffer.size}];")
    lines += ["} nc_stream;", "", "static const struct {", "    const char *name, *dtype;", "    size_t offset, bytes;"]
    lines.append("} nc_states[] = {")
    for buffer in program.states:
        place = f"offsetof(nc_stream, {field_name(buffer)}), sizeof(((nc_stream *)0)->{field_name(buffer)})"
        lines.append(f'    {{"{buffer.name}", "{buffer.dtype}", {place}}},')
    return [*lines, "};", ""]


def _stage(stage: StageLoops, memory: Memory, shape: Shape, form: Format) -> list[str]:
    size = sum(4 * buffer.size for buffer in stage.locals)
    if size > LARGEST_LOCALS:
        raise UserError(
            f"stage {stage.name!r} needs {size} bytes at once, compiled code may use {LARGEST_LOCALS}; "
            "export for onnx-fp32 instead"
        )
    lines = [f"static void nc_stage_{identifier(stage.name)}(nc_stream *s, const unsigned char *w) {{", "    (void)w;"]
    for buffer in stage.locals:
        lines.append(f"    _Alignas(64) {TYPES[buffer.dtype]} {identifier(buffer.name)}[{buffer.size}];")
    for statement in stage.statements:
        if isinstance(statement, MatVec):
            code = product_code(statement, memory, shape, form)
        else:
            code = nest_code(statement, memory)
        lines += [f"    {line}" for line in code]
    return [*lines, "}", ""]


def _reset(spec: ProgramSpec) -> list[str]:
    """Sets states to their initial values; the memory is all zeros before."""
    lines = ["static void nc_reset_states(nc_stream *s) {", "    (void)s;"]
    for state in spec.states:
        if state.initial:
            lines += [f"    {line}" for line in _fill(spec, state.name)]
    return [*lines, "}", ""]


def _fill(spec: ProgramSpec, name: str) -> list[str]:
    state = spec.state(name)
    place = f"s->x_{identifier(name)}"
    if not state.initial:
        return [f"memset({place}, 0, sizeof {place});"]
    return [f"for (int i = 0; i < {state.size}; i++) {place}[i] = {literal(state.initial, state.dtype)};"]


def _schedule(spec: ProgramSpec) -> list[str]:
    number = sources(spec)
    lines = ["/* Takes the item in `position` through every stage that is due. */"]
    lines += ["static void nc_item(nc_stream *s, const unsigned char *w) {"]
    lines += [f"    {line}" for line in _followers(spec, number, FRONT_END)]
    lines += ["}", ""]
    (answer,) = spec.readout.outputs
    lines.append("static void nc_answer(nc_stream *s, const unsigned char *w, float *logits) {")
    lines.append(f"    nc_stage_{identifier(spec.readout.name)}(s, w);")
    lines.append(f"    memcpy(logits, s->v_{identifier(answer.name)}, 4 * NC_CLASSES);")
    lines += ["}", "", "/* How often everything has fired after `position.items` items. */"]
    lines.append("static void nc_recount(nc_stream *s) {")
    lines.append(f"    s->fired[{number[FRONT_END]}] = (uint64_t)s->position.items;")
    for stage in spec.stages:
        trigger = stage.trigger
        if trigger.after != REQUEST:
            source = f"s->fired[{number[trigger.after]}]"
            rounded = f"({source} + {trigger.every - 1 - trigger.phase}) / {trigger.every}"
            lines.append(f"    s->fired[{number[stage.name]}] = {rounded};")
    return [*lines, "}", ""]


def _followers(spec: ProgramSpec, number: dict[str, int], source: str) -> list[str]:
    followers = [stage for stage in spec.stages if stage.trigger.after == source]
    count = f"n{number[source]}"
    lines = [f"const uint64_t {count} = s->fired[{number[source]}]++;", f"(void){count};"]
    for stage in followers:
        trigger = stage.trigger
        condition = f"if ({count} % {trigger.every} == {trigger.phase}) " if trigger.every > 1 else ""
        lines += [f"{condition}{{", *(f"    {line}" for line in _fire(spec, number, stage)), "}"]
    return lines


def _fire(spec: ProgramSpec, number: dict[str, int], stage: StageSpec) -> list[str]:
    lines = [f"nc_stage_{identifier(stage.name)}(s, w);"]
    lines += [line for name in stage.resets for line in _fill(spec, name)]
    return lines + _followers(spec, number, stage.name)


def _prefetch(program: LoopProgram, memory: Memory) -> list[str]:
    """Asks for the table rows of a token."""
    lines = ["NC_INLINE void nc_prefetch(const unsigned char *w, int64_t token) {", "    (void)w;", "    (void)token;"]
    tables = {
        a.buffer.name: memory.row_elements(a) * ITEM_BYTES.get(memory.storage(a.buffer), 8)
        for stage in program.stages.values()
        for statement in stage.statements
        for a, _, _ in accesses(statement)
        if a.row and ITEMS[a.row] == ITEMS["token"]
    }
    for name, stride in tables.items():
        lines.append(f"    for (int byte = 0; byte < {stride}; byte += 64)")
        lines.append(f"        __builtin_prefetch(w + {memory.weights.offsets[name]} + token * {stride} + byte);")
    return [*lines, "}", ""]
