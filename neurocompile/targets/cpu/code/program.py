"""The generated part of a library: constants, the stream's memory, one function per stage, and the schedule."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from neurocompile.lowering.jobs import delay, find_jobs
from neurocompile.lowering.loops import LoopProgram, MatVec
from neurocompile.targets.cpu.code.prefetch import ahead, prefetch, reader, row_bytes
from neurocompile.targets.cpu.code.products import Shape, kernel, widths
from neurocompile.targets.cpu.code.stages import stage_code, wide_kernels
from neurocompile.targets.cpu.placement.formats import Format
from neurocompile.targets.cpu.placement.layout import Weights, identifier
from neurocompile.targets.cpu.placement.memory import TYPES, Memory, field_name
from neurocompile.targets.cpu.schedule.bulk import bulk_clusters, bulk_items, stage_parts
from neurocompile.targets.cpu.schedule.firing import Schedule, fill
from neurocompile.targets.cpu.schedule.smooth import job_code, job_fields, part_kernels
from runtime.errors import UserError
from runtime.program import ITEMS as FRONT_END
from runtime.program import REQUEST, ProgramSpec
from runtime.schedule import sources

RULES = {"channel": 0, "product": 1, "linear": 2}
ATTENTION = Path(__file__).parents[1] / "csrc" / "attention.c"


def program_code(
    spec: ProgramSpec, program: LoopProgram, weights: Weights, shape: Shape, form: Format, *, smooth: bool = False
) -> str:
    """C between the mathematics and the session code.

    Args:
        spec: The tables.
        program: The loops.
        weights: Their layout.
        shape: How matrices are cut.
        form: How their numbers are kept.
        smooth: Whether stages that fire rarely are spread over the items that follow.

    Returns:
        The text.

    Raises:
        UserError: If the front end has no C form, or its products cannot have these weights.
    """
    memory = Memory(weights)
    products = [s for stage in program.stages.values() for s in stage.statements if isinstance(s, MatVec)]
    lines = [
        f'_Static_assert(NC_LANES == {shape.lanes}, "compile for the processor that the code was generated for");',
        "",
    ]
    jobs = find_jobs(spec, program) if smooth else ()
    lines += [f"#define NC_DELAY_ITEMS {delay(spec, jobs)}"]
    lines += _constants(spec, weights)
    lines += _stream(spec, program, job_fields(program, jobs, shape, form))
    for width in widths(products, shape, form):
        lines += [*kernel(width, shape, form), ""]
    lines += wide_kernels(program, shape, form, ATTENTION.read_text())
    tables = row_bytes(list(program.stages.values()), memory)
    rows = reader(spec, program, memory, shape.lanes)
    along = {rows: ahead(rows, tables, memory, shape.lanes)} if rows else {}
    for stage in program.stages.values():
        lines += stage_code(stage, memory, shape, form, along)
    lines += _reset(spec)
    clusters = bulk_clusters(spec, program, form)
    schedule = Schedule(spec, weights, clusters, jobs)
    lines += part_kernels(program, jobs, shape, form)
    for job in jobs:
        lines += job_code(job, program, weights, shape, form)
    lines += schedule.spreading() if jobs else []
    lines += [f"#define NC_BULK_ITEMS {bulk_items(spec, clusters)}", "", *schedule.single()]
    if clusters:
        lines += [*stage_parts(program, clusters, weights, shape, form), *schedule.bulk()]
    lines += _answer(spec, schedule.number)
    lines += prefetch(tables, memory, bool(along))
    return "\n".join(lines) + "\n"


def _token_dt(front: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "RULE": RULES[front["rule"]],
        "VOCABULARY": front["vocabulary"],
        "GAP_AFTER": int(front["dt"] == "next"),
    }


def _window(front: Mapping[str, Any]) -> dict[str, Any]:
    vocabulary = 2 * front["width"] * front["height"]
    return {
        "RULE": RULES["linear"],
        "VOCABULARY": vocabulary,
        "WINDOW": front["window"],
        "HOP": front["hop"],
        "EVERY": front.get("every", 1),
        "SCALED": int(front.get("scaled", True)),
        "INTENSITY": int(front.get("intensity", False)),
    }


FRONT_ENDS: dict[str, Callable[[Mapping[str, Any]], dict[str, Any]]] = {"token_dt": _token_dt, "window": _window}


def _constants(spec: ProgramSpec, weights: Weights) -> list[str]:
    front = spec.front_end
    if front.get("kind") not in FRONT_ENDS:
        raise UserError(f"front end {front.get('kind')!r} has no C form; export for onnx-fp32 instead")
    (answer,) = spec.readout.outputs
    values = {
        **FRONT_ENDS[front["kind"]](front),
        "WIDTH": front["width"],
        "HEIGHT": front["height"],
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


def _stream(spec: ProgramSpec, program: LoopProgram, more: list[str]) -> list[str]:
    lines = []
    if spec.front_end["kind"] == "window":
        columns = "token[NC_WINDOW], time[NC_WINDOW], item_token[NC_WINDOW], item_time[NC_WINDOW]"
        weights = " float intensity[NC_WINDOW], item_intensity[NC_WINDOW];" if spec.front_end.get("intensity") else ""
        lines += ["/* The ring of the newest events, and the last window. */"]
        lines += [f"typedef struct {{ int64_t {columns};{weights} }} nc_window;", ""]
    lines += ["/* Everything that a stream remembers. */", "typedef struct {", "    nc_position position;"]
    lines += ["    nc_window window;"] if spec.front_end["kind"] == "window" else []
    lines.append("    uint64_t fired[NC_SOURCES];")
    for buffer in (*program.states, *program.values):
        lines.append(f"    _Alignas(64) {TYPES[buffer.dtype]} {field_name(buffer)}[{buffer.size}];")
    lines += [
        *more,
        "} nc_stream;",
        "",
        "static const struct {",
        "    const char *name, *dtype;",
        "    size_t offset, bytes;",
    ]
    lines.append("} nc_states[] = {")
    for buffer in program.states:
        place = f"offsetof(nc_stream, {field_name(buffer)}), sizeof(((nc_stream *)0)->{field_name(buffer)})"
        lines.append(f'    {{"{buffer.name}", "{buffer.dtype}", {place}}},')
    return [*lines, "};", ""]


def _reset(spec: ProgramSpec) -> list[str]:
    """Sets states to their initial values; the memory is all zeros before."""
    lines = ["static void nc_reset_states(nc_stream *s) {", "    (void)s;"]
    for state in spec.states:
        if state.initial:
            lines += [f"    {line}" for line in fill(spec, state.name)]
    return [*lines, "}", ""]


def _answer(spec: ProgramSpec, number: dict[str, int]) -> list[str]:
    (answer,) = spec.readout.outputs
    lines = ["static void nc_answer(nc_stream *s, const unsigned char *w, float *logits) {"]
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
