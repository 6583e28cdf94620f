"""Plugins from the Triton kernels: sizes, images, PTX, and the launches themselves in Triton's interpreter."""

from __future__ import annotations

import random
import re
from dataclasses import replace
from types import SimpleNamespace

import pytest

pytest.importorskip("triton", reason="Triton is published for Linux only")

import triton

from neurocompile.ops.plugin_plan import PLANNED, planner
from neurocompile.targets.trt.plugins import ptx
from neurocompile.targets.trt.plugins.compiled import PTX_VERSIONS, SHARED_LIMIT, compile_plan
from neurocompile.targets.trt.plugins.flow import flow
from neurocompile.targets.trt.plugins.series import series
from runtime.errors import InternalError, UserError
from runtime.plugins.image import PluginImage
from runtime.plugins.sizes import evaluate


def scan(batch: int, steps: int, width: int) -> list[list[int]]:
    return [[batch, steps, width]] * 4 + [[batch, width]] * 2


def attention(batch: int, steps: int, heads: int, keys: int, width: int) -> list[list[int]]:
    long = [[batch, steps, keys, width]] * 2
    return [[batch, steps, heads, width], *long, [batch, steps, heads]]


def gated(batch: int, steps: int, heads: int, keys: int, width: int, out: int) -> list[list[int]]:
    q, k, _, gates = attention(batch, steps, heads, keys, width)
    return [q, k, [batch, steps, keys, out], gates, [batch, heads, width, out]]


def neurons(steps: int, *shape: int, decay: tuple[int, ...] = (1,)) -> list[list[int]]:
    return [[steps, *shape], list(decay), [*shape]]


def case(op, shapes, operand="float32", planned=None, programs=512, bound=3e-6, **attributes):
    sent = {"op": op, "shapes": shapes, "operand": operand, "planned": planned or shapes, "programs": programs}
    name = f"{op}-{shapes[0]}-{operand}-{programs}-{bool(planned)}-{len(attributes)}"
    return pytest.param(sent | {"attributes": attributes}, bound, id=name)


CASES = [
    case("DiagonalScan", scan(1, 20, 3)),
    case("DiagonalScan", scan(2, 100, 5), programs=4),
    case("DiagonalScan", scan(1, 70, 2)),
    case("DiagonalScan", scan(2, 63, 35), planned=scan(1, 111, 64)),
    # A plan of three launches at a length where only the last has anything to do.
    case("DiagonalScan", scan(2, 20, 3), planned=scan(1, 100, 3)),
    case("ForgettingAttention", attention(2, 63, 2, 1, 16)),
    case("ForgettingAttention", attention(1, 111, 4, 2, 24), "float16", bound=2e-3),
    case("ForgettingAttention", attention(3, 40, 2, 2, 16), planned=attention(1, 300, 6, 3, 16)),
    case("GatedLinearAttention", gated(2, 63, 2, 1, 16, 24)),
    case("GatedLinearAttention", gated(1, 100, 4, 2, 8, 16), "float16", bound=2e-3),
    case("GatedLinearAttention", gated(2, 1, 2, 2, 16, 16), planned=gated(1, 111, 2, 1, 16, 16)),
    case("LIF", neurons(7, 3, 5, 5), bound=0.0),
    case("LIF", neurons(5, 33, decay=(5, 33)), bound=0.0, threshold=0.5, v_reset=-0.25, hard=1, strict=1),
    case("LIF", neurons(3, 2, 40, decay=(1, 2, 40)), planned=neurons(9, 2, 17, decay=(1, 2, 17)), bound=0.0),
]


@pytest.fixture(scope="module")
def interpreted(interpret):
    """Errors of all cases."""
    answers = interpret("plugin_plans_interpreted.py", [parameter.values[0] for parameter in CASES])
    return dict(zip((parameter.id for parameter in CASES), answers, strict=True))


@pytest.mark.parametrize(("sent", "bound"), CASES)
def test_launches_as_stated_compute_the_op(interpreted, sent, bound, request):
    """The launches with the arguments and grids of an image, also at other lengths than it was made for."""
    errors = interpreted[request.node.callspec.id]
    assert errors
    assert max(errors) <= bound


PROBLEMS = {
    "scan in one launch": ("DiagonalScan", scan(1, 20, 48), "float32"),
    "scan in three launches": ("DiagonalScan", scan(1, 256, 48), "float32"),
    "forgetting attention": ("ForgettingAttention", attention(1, 100, 2, 1, 32), "float16"),
    "gated attention": ("GatedLinearAttention", gated(1, 100, 2, 1, 32, 32), "float16"),
    "neurons": ("LIF", neurons(8, 3, 20, 20), "float32"),
    "neurons with decays of their own": ("LIF", neurons(8, 700, decay=(700,)), "float32"),
    "decays of every step": ("LIF", neurons(8, 700, decay=(8, 700)), "float32"),
}
"""What is compiled here, besides what `benchmarks.triton_report` compiles."""


def compiled(problem: str, capability: int) -> PluginImage:
    op, shapes, operand = PROBLEMS[problem]
    return compile_plan(planner(op)([tuple(shape) for shape in shapes], operand, capability), capability)[0]


@pytest.fixture(scope="module")
def images():
    return {problem: compiled(problem, 87) for problem in PROBLEMS}


def check(image: PluginImage, capability: int) -> None:
    """What every image promises of its code."""
    version = PTX_VERSIONS[capability]
    for launch in image.launches:
        assert launch.shared <= SHARED_LIMIT
        assert f".version {version // 10}.{version % 10}\n" in launch.ptx
        assert re.fullmatch(rf"sm_{capability}a?", ptx.target(launch.ptx))
        assert ptx.entry_name(launch.ptx) == launch.entry
        assert f".reqntid {launch.threads}" in launch.ptx
        kinds = [argument.kind for argument in launch.arguments]
        order = {"input": 0, "scratch_in": 0, "int32": 1, "output": 2, "scratch": 2}
        assert [order[kind] for kind in kinds] == sorted(order[kind] for kind in kinds)
        declared = ptx.parameters(launch.ptx)
        assert ["int32" if kind == "int32" else "pointer" for kind in kinds] == [each.kind for each in declared]
        found, integers = flow(launch.ptx), {p.name for p in declared if p.kind == "int32"}
        named = [(p.name, order[kind]) for p, kind in zip(declared, kinds, strict=True) if "_unused_" not in p.name]
        sides = {side: {name for name, of in named if of == side} for side in (0, 2)}
        assert (found.read - integers, found.written - integers) == (sides[0], sides[2])
        assert launch.cubin.startswith(b"\x7fELF")
        assert "/" not in re.sub(r"//.*", "", launch.ptx), "no folder of this machine"
    assert PluginImage.from_bytes(image.to_bytes()) == image


@pytest.mark.parametrize("problem", PROBLEMS)
def test_the_code_has_the_parameters_of_the_image(images, problem):
    check(images[problem], 87)


@pytest.mark.slow
@pytest.mark.parametrize("capability", [75, 80, 86, 89, 90, 100, 103, 110, 120, 121])
@pytest.mark.parametrize("problem", PROBLEMS)
def test_every_chip(problem, capability):
    image = compiled(problem, capability)
    check(image, capability)
    for part in series(image):
        check(part.image, capability)


@pytest.mark.parametrize("problem", PROBLEMS)
def test_a_series_launches_what_the_whole_does(images, problem):
    image = images[problem]
    shapes = {tensor.name: shape for tensor, shape in zip(image.inputs, PROBLEMS[problem][1], strict=True)}
    given = list(shapes.values())
    for tensor in (*image.outputs, *image.scratch):
        shapes[tensor.name] = [evaluate(size, given) for size in tensor.shape]
    made = {tensor.name for tensor in image.inputs}
    parts = series(image)
    assert len(parts) == len(image.launches)
    for part, launch in zip(parts, image.launches, strict=True):
        assert set(part.inputs) <= made, "in order"
        made |= set(part.outputs)
        [alone] = part.image.launches
        check(part.image, 87)
        seen = [shapes[name] for name in part.inputs]
        assert [tensor.rank for tensor in part.image.inputs] == [len(shape) for shape in seen]
        for name, tensor in zip(part.outputs, part.image.outputs, strict=True):
            assert [evaluate(size, seen) for size in tensor.shape] == shapes[name]
        assert [evaluate(size, seen) for size in alone.grid] == [evaluate(size, given) for size in launch.grid]
        tensors = {"input": part.inputs, "output": part.outputs}
        got = [
            evaluate(a.value, seen) if a.kind == "int32" else tensors[a.kind][a.index]
            for a in alone.arguments
            if not (a.kind == "input" and a.index in _extra(alone))
        ]
        assert got == [evaluate(a.value, given) if a.kind == "int32" else _name(image, a) for a in launch.arguments]
    assert {tensor.name for tensor in image.outputs} <= made


def _extra(launch) -> set[int]:
    """Inputs that are passed and not read."""
    return {place for place, p in enumerate(ptx.parameters(launch.ptx)) if "_unused_" in p.name}


def _name(image, argument) -> str:
    places = {"input": image.inputs, "output": image.outputs, "scratch": image.scratch, "scratch_in": image.scratch}
    return places[argument.kind][argument.index].name


def test_names_differ_with_all_that_matters(images):
    image = images["scan in one launch"]
    launch = image.launches[0]
    others = [
        replace(image, launches=(replace(launch, shared=launch.shared + 16),)),
        replace(image, launches=(replace(launch, ptx=launch.ptx + "\n"),)),
        replace(image, capability=86),
    ]
    assert len({other.name for other in (image, *others)}) == 4
    assert image.name == compiled("scan in one launch", 87).name, "compiled again, it is the same"


def test_the_plan_launches_what_training_launches(monkeypatch):
    """Grids, integers and memory of the scan against the launcher of training, at random odd sizes."""
    from neurocompile.ops.diagonal_scan import triton_launch
    from neurocompile.ops.forgetting_attention.triton_blocks import plan as cut

    rng = random.Random(0)
    for _ in range(200):
        batch, steps, width = rng.randint(1, 40), rng.choice([1, 31, 32, 33, rng.randint(1, 9000)]), rng.randint(1, 300)
        shapes = [tuple(shape) for shape in scan(batch, steps, width)]
        plan = planner("DiagonalScan")(shapes, "float32", 87)
        like = type("Like", (), {"shape": (batch, steps, width), "device": None})
        monkeypatch.setattr(triton_launch, "state_dtype", lambda *inputs: None)
        launcher = triton_launch._Launcher(like, (), triton_launch.PROGRAMS)
        assert len(plan.launches) == (1 if launcher.chunks == 1 else 3)
        last = plan.launches[-1]
        assert evaluate(last.grid, shapes) == launcher.groups * launcher.chunks
        numbers = {name: evaluate(size, shapes) for name, size in last.integers.items()}
        assert numbers == {"steps": steps, "width": width, "chunks": launcher.chunks, "tiles": launcher.tiles}
        assert last.constants["TILE_COLUMNS"] == launcher.columns
        if launcher.chunks > 1:
            summary, over, _ = plan.launches
            assert evaluate(summary.grid, shapes) == launcher.groups * (launcher.chunks - 1)
            like.shape = (batch, launcher.chunks - 1, width)
            whole = triton_launch._Launcher(like, (), 0)
            assert evaluate(over.grid, shapes) == whole.groups
            numbers = {name: evaluate(size, shapes) for name, size in over.integers.items()}
            assert numbers == {"steps": launcher.chunks - 1, "width": width, "chunks": 1, "tiles": whole.tiles}

        heads = 2 * rng.randint(1, 3)
        shapes = [tuple(shape) for shape in attention(batch, steps, heads, heads // 2, 32)]
        size, prefix, forward = planner("ForgettingAttention")(shapes, "float16", 87).launches
        blocks = cut(87, 32, 2).forward
        count = -(-steps // blocks.keys)
        grids = [evaluate(launch.grid, shapes) for launch in (size, prefix, forward)]
        assert grids == [batch * heads // 2 * count, batch * heads, batch * heads * -(-steps // blocks.queries)]


def test_what_plugins_cannot_have_is_found(images):
    text = images["scan in one launch"].launches[0].ptx
    with pytest.raises(InternalError, match="refers to the hidden parameter scan_kernel_param_9"):
        ptx.with_signature(text, [[place] for place in range(11)], hidden=1)
    with pytest.raises(InternalError, match="12 parameters, 0 hidden, and 11 were given"):
        ptx.with_signature(text, [[place] for place in range(11)], hidden=0)
    with pytest.raises(InternalError, match="neither a pointer nor a 32-bit integer"):
        ptx.parameters(text.replace(".param .u32", ".param .f32"))
    with pytest.raises(InternalError, match="the assembler refuses the PTX of scan_kernel"):
        ptx.assemble(text.replace("ld.param.b32", "ld.param.b31"), 87)


def test_memory_that_plugins_cannot_have_is_refused(monkeypatch):
    made = triton.compile

    def scratch(*arguments, **options):
        binary = made(*arguments, **options)
        return SimpleNamespace(asm=binary.asm, metadata=binary.metadata._replace(global_scratch_size=128))

    with monkeypatch.context() as patch:
        patch.setattr(triton, "compile", scratch)
        with pytest.raises(InternalError, match="scan_kernel wants global_scratch_size of 128 bytes"):
            compiled("scan in one launch", 87)
    monkeypatch.setattr("neurocompile.targets.trt.plugins.compiled.SHARED_LIMIT", 1024)
    with pytest.raises(UserError, match=r"needs 16384 bytes of shared memory on sm_87.*export without plugins"):
        compiled("scan in one launch", 87)


def test_a_store_through_an_input_shows(images):
    text = images["scan in one launch"].launches[0].ptx
    first = ptx.parameters(text)[0].name
    register = re.search(rf"ld\.param\.b64 \t?(%rd\d+), \[{first}\]", text)[1]
    at = text.index("ret;")
    changed = f"{text[:at]}add.s64 %rd1, {register}, 4;\n\tst.global.b32 [%rd1], 0;\n\t{text[at:]}"
    assert first in flow(changed).written
    assert first not in flow(text).written


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (b'"format": 1', b'"format": 2', "its format is 2, not 1"),
        (b'"format": 1', b'"farmat": 1', "'format'"),
        (b'"dim"', b'"dam"', "'dam' is no operation on sizes"),
        (b'"input",\n     0', b'"input",\n     9', "argument input 9"),
        (b'"float32"', b'"float31"', "of type 'float31'"),
        (b"{", b"", "no image"),
    ],
)
def test_a_file_that_is_no_image_is_refused(images, old, new, message):
    data = images["scan in one launch"].to_bytes()
    assert old in data
    with pytest.raises(ValueError, match=message):
        PluginImage.from_bytes(data.replace(old, new, 1))


def test_every_planned_op_is_tested():
    assert set(PLANNED) == {op for op, _, _ in PROBLEMS.values()} == {p.values[0]["op"] for p in CASES}
