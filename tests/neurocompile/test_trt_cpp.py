"""C++ plugins: compile without a warning, and answer TensorRT as the image that they were made from evaluates."""

from __future__ import annotations

import itertools
import re
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from neurocompile.targets.trt.plugins import cpp_source
from runtime.errors import InternalError
from runtime.plugins.image import Argument, Output
from trt_cpp import toolbox as tools

CHAIN, STATE, PIECES = tools.chain(), tools.state(), tools.pieces()
needs_compiler = pytest.mark.skipif(not shutil.which("g++"), reason="g++ is not installed (Debian: apt install g++)")


@pytest.fixture(scope="module")
def library(tmp_path_factory) -> Path:
    return tools.compile_library((CHAIN, PIECES, STATE), tmp_path_factory.mktemp("library"))


@pytest.fixture(scope="module")
def host(tmp_path_factory):
    return tools.Host(tmp_path_factory.mktemp("host"))


COMPILERS = [
    # Zig makes its own standard library first.
    pytest.param(command, id=name, marks=pytest.mark.slow if name == "zig" else ())
    for name, command in tools.compilers().items()
]


@needs_compiler
@pytest.mark.parametrize("compiler", COMPILERS)
def test_no_warning_with_the_interfaces_of_tensorrt_11(compiler, tmp_path):
    made = tools.compile_library((CHAIN, STATE), tmp_path, "11.0", compiler)
    assert made.stat().st_size > 10_000


@needs_compiler
def test_no_warning_with_the_headers_of_cuda_itself(tmp_path):
    triton = pytest.importorskip("triton", reason="it brings NVIDIA's headers")
    folder = Path(triton.__file__).parent / "backends" / "nvidia" / "include"
    if not (folder / "cuda_runtime_api.h").exists():
        pytest.skip("this Triton brings no headers of CUDA")
    headers = ("-isystem", tools.TENSORRT_HEADERS, "-isystem", folder)
    assert tools.compile_library((STATE,), tmp_path, headers=headers).exists()


@needs_compiler
def test_the_library_wants_no_library_of_nvidia_and_shows_two_names(library):
    said = tools.call(["readelf", "--dynamic", "--dyn-syms", "--wide", library]).stdout
    needed = re.findall(r"NEEDED.*\[(.*)\]", said)
    assert needed
    assert not [name for name in needed if "nv" in name or "cuda" in name]
    shown = {line.split()[7] for line in said.splitlines() if re.search(r"FUNC +GLOBAL +DEFAULT +\d+ ", line)}
    assert shown - {"_init", "_fini"} == {"getCreators", "setLoggerFinder"}


@needs_compiler
def test_creators(host, library):
    answers, _ = host(library, "creators")
    assert answers[:-1] == [
        {"name": image.name, "version": "1", "namespace": "neurocompile", "kind": "PLUGIN CREATOR_V3ONE", "fields": 0}
        for image in (CHAIN, PIECES, STATE)
    ]


@needs_compiler
@pytest.mark.parametrize(
    "shapes", [((1, 63, 5), (2, 3)), ((2, 64, 8), (1, 3)), ((3, 111, 1), (5, 3)), ((1, 1000, 17), (7, 3))]
)
def test_shapes_memory_and_launches_are_those_of_the_image(host, library, shapes):
    answers, asked = host(library, tools.request(CHAIN, shapes))
    outputs, workspace, launches = tools.expected(CHAIN, shapes)
    assert answers[:2] == outputs
    plain = {"aliased": [-1, -1], "linear": True, "other": False, "beyond": -1, "id": CHAIN.name}
    assert answers[2] == {"workspace": workspace, **plain}
    assert answers[3] == {"code": 0, "again": 0, "name": CHAIN.name, "modules": 2, "depth": 1}
    assert [row for row in asked if row["call"] == "launch"] == launches * 2
    assert len(launches) == (1 if shapes[0][1] <= 64 else 2), "a grid of nothing is left out"


@needs_compiler
@pytest.mark.parametrize(
    ("least", "most"), [((1, 1, 1), (4, 40, 20)), ((2, 30, 5), (2, 33, 9)), ((3, 17, 6), (3, 17, 6))]
)
def test_memory_suffices_for_all_shapes_of_a_range(host, library, least, most):
    """Twelve pieces of one sequence need more than four sequences of one piece each."""
    answers, _ = host(library, f"memory {PIECES.name} float32:{'x'.join(map(str, least))}/{'x'.join(map(str, most))}")
    needed = [
        tools.expected(PIECES, (shape,))[1]
        for shape in itertools.product(*(range(low, high + 1) for low, high in zip(least, most, strict=True)))
    ]
    assert answers[0]["memory"] >= max(needed)
    assert answers[0]["memory"] <= 12 * max(needed)
    if least == (1, 1, 1):
        assert needed[-1] < max(needed), "the largest shape does not need the most"
    if least == most:
        assert answers[0]["memory"] == needed[0] > 0


@needs_compiler
def test_code_is_loaded_whole_once_per_context_and_given_back(host, library):
    answers, asked = host(library, *[tools.request(CHAIN, ((1, 100, 4), (2, 3)))] * 2)
    assert [row for row in asked if row["call"] == "load"] == [
        {"call": "load", "bytes": len(launch.ptx)} for launch in CHAIN.launches
    ] * 2
    assert [row["call"] for row in asked].count("unload") == 4
    assert answers[-1] == {"left": 0, "depth": 1}


@needs_compiler
def test_a_state_may_be_written_in_place(host, library):
    shapes = ((1, 33), (1, 33))
    answers, asked = host(library, tools.request(STATE, shapes))
    assert answers[2]["aliased"] == [-1, 1]
    assert answers[2]["workspace"] == 0
    assert asked[1]["arguments"] == [1 << 20, 2 << 20, 1 << 24, 2 << 24]
    assert asked[1]["grid"] == [2, 1, 1]


def said(answers: list[dict]) -> list[str]:
    return [row["logged"] for row in answers if "logged" in row]


@needs_compiler
@pytest.mark.parametrize(
    ("shapes", "message"),
    [
        (((1, 9), (2, 3)), "takes x of rank 3, and was given rank 2"),
        (((1, 9, 9), (2, 4)), "was compiled for y with length 3 along axis 1, and was given 4"),
        (((1, 9, 9), (2, 3), (1, 1)), "has 2 inputs and 2 outputs, and was given 3 and 2"),
    ],
)
def test_other_inputs_are_refused_while_building(host, library, shapes, message):
    tensors = " ".join(f"float32:{'x'.join(map(str, shape))}" for shape in shapes)
    if len(shapes[0]) == 3 and len(shapes) == 2:
        tensors = tensors.replace(" float32", " bfloat16")
    answers, asked = host(library, f"run {CHAIN.name} {tensors}")
    assert {"built": False} in answers
    [line] = said(answers)
    assert line == f"plugin {CHAIN.name} {message}"
    assert asked == []


@needs_compiler
@pytest.mark.parametrize(
    ("how", "message"),
    [
        ({"capability": 86}, "was compiled for sm_87 and the GPU here is sm_86; export the model for this one"),
        ({"fail": "cuModuleLoadDataEx"}, ": loading its kernels failed: CUDA_ERROR_INVALID_PTX"),
        ({"fail": "cuCtxGetDevice"}, ": asking for the GPU's compute capability failed: CUDA_ERROR_UNKNOWN"),
        ({"fail": "cuModuleGetFunction"}, ": finding a kernel failed: CUDA_ERROR_UNKNOWN"),
    ],
)
def test_a_context_that_cannot_run_it_gets_none(host, library, how, message):
    answers, asked = host(library, tools.request(STATE, ((1, 8), (1, 8))), **how)
    assert {"attached": False} in answers
    assert said(answers)[0] in (f"plugin {STATE.name} {message}", f"plugin {STATE.name}{message}")
    assert not [row for row in asked if row["call"] == "launch"]
    assert answers[-1]["left"] == 0, "what was loaded is given back"
    if how.get("fail") == "cuModuleLoadDataEx":
        assert said(answers)[1] == f"plugin {STATE.name}: the driver says: unsupported .version 9.9"


@needs_compiler
def test_what_fails_while_running_is_a_code_and_a_sentence(host, library):
    line = tools.request(STATE, ((1, 8), (1, 8)))
    answers, _ = host(library, line, fail="cuLaunchKernel")
    assert said(answers)[0] == f"plugin {STATE.name}: launching a kernel failed: CUDA_ERROR_UNKNOWN"
    assert [row["code"] for row in answers if "code" in row] == [1]
    answers, _ = host(library, tools.request(STATE, ((1, 8), (1, 8)), "moved"))
    assert "was loaded in another CUDA context than the one it is to run in" in said(answers)[0]
    assert [row["code"] for row in answers if "code" in row] == [1]
    answers, _ = host(library, "context -1", line)
    assert "no CUDA context is current in the thread that TensorRT calls from" in said(answers)[0]
    assert [row["code"] for row in answers if "code" in row] == [1]


@needs_compiler
def test_grids_and_integers_that_no_launch_takes_are_refused(host, library):
    huge = 1 << 40
    answers, asked = host(library, tools.request(STATE, ((1, huge), (1, 8))))
    assert said(answers)[0] == f"plugin {STATE.name} cannot launch state_kernel for inputs of these shapes"
    assert [row["call"] for row in asked if row["call"] == "launch"] == []
    answers, _ = host(library, tools.request(CHAIN, ((1 << 31, 1 << 31, 4), (2, 3))))
    assert "cannot have memory for inputs of these shapes" in said(answers)[0]


@needs_compiler
def test_an_engine_of_another_image_is_refused(host, library):
    answers, _ = host(library, f"kept {CHAIN.name} {CHAIN.name}", f"kept {CHAIN.name} {STATE.name}")
    assert [row["made"] for row in answers if "made" in row] == [True, False]
    assert said(answers) == [f"an engine wants a plugin that is not {CHAIN.name}; build its engines again"]


@needs_compiler
def test_creators_are_listed_without_a_driver(host, library):
    if tools.call(["sh", "-c", "ldconfig -p | grep -q libcuda.so.1"]).returncode == 0:
        pytest.skip("this machine has a CUDA driver")
    answers, _ = host(library, "creators", tools.request(STATE, ((1, 8), (1, 8))), driver=False)
    assert [row["name"] for row in answers if "kind" in row] == [CHAIN.name, PIECES.name, STATE.name]
    assert said(answers)[0].startswith("the CUDA driver library libcuda.so.1 cannot be used here")
    assert [row["code"] for row in answers if "code" in row] == [1]


def test_room_in_the_table_is_what_the_generator_believes():
    header = (Path(cpp_source.__file__).parent / "cpp" / "table.h").read_text()
    for what, count in cpp_source.MOST.items():
        assert f"constexpr int32_t kMost{what.capitalize()} = {count};" in header


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (replace(STATE, inputs=STATE.inputs * 9), "needs 18 inputs, and the C"),
        (replace(STATE, launches=STATE.launches * 9), "needs 9 launches"),
        (replace(STATE, outputs=(Output("s", "float16", (1,) * 9),)), "needs 9 axes"),
        (replace(STATE, launches=()), "launches nothing"),
    ],
)
def test_images_that_the_class_cannot_hold_are_refused(image, message):
    with pytest.raises(InternalError, match=message):
        cpp_source.render([image])


def test_an_image_comes_once_and_names_are_names():
    with pytest.raises(InternalError, match="each once"):
        cpp_source.render([STATE, STATE])
    with pytest.raises(InternalError, match="cannot be the name"):
        cpp_source.render([replace(STATE, namespace='a"b')])


def test_long_code_is_cut_into_strings_that_compilers_take():
    text = cpp_source.render([STATE])
    pieces = re.findall(r'R"ptx\((.*?)\)ptx"', text, re.DOTALL)
    assert "".join(pieces) == STATE.launches[0].ptx
    assert len(pieces) > 1
    assert max(map(len, pieces)) <= 8000
    with pytest.raises(InternalError, match="cannot be written as a string"):
        cpp_source.render([replace(STATE, launches=(replace(STATE.launches[0], ptx='// )ptx"'),))])
    assert Argument("input", 0) in STATE.launches[0].arguments


REAL = {
    # Operator, precision, shapes of the inputs, further shapes that the same kernels serve.
    "scan of three launches": ("DiagonalScan", "float32", [(1, 111, 24)] * 4 + [(1, 24)] * 2, (2, 100, 24)),
    "scan of one launch": ("DiagonalScan", "float32", [(8, 7, 64)] * 4 + [(8, 64)] * 2, (9, 3, 64)),
    "attention": ("ForgettingAttention", "bfloat16", [(1, 300, 2, 16), *[(1, 300, 1, 16)] * 2, (1, 300, 2)], None),
    "linear attention": (
        "GatedLinearAttention",
        "float16",
        [*[(1, 130, 2, 16)] * 3, (1, 130, 2), (1, 2, 16, 16)],
        None,
    ),
    "neurons": ("LIF", "float32", [(7, 3, 5, 5), (1,), (3, 5, 5)], None),
}


FAST = "scan of three launches"


@needs_compiler
@pytest.mark.parametrize("case", [pytest.param(name, marks=() if name == FAST else pytest.mark.slow) for name in REAL])
def test_images_of_the_training_kernels(case, host, tmp_path):
    """The fake driver reads arguments as the very PTX declares them."""
    pytest.importorskip("triton", reason="Triton is published for Linux only")
    from neurocompile.ops.plugin_plan import planner
    from neurocompile.targets.trt.plugins.compiled import compile_plan

    op, operand, shapes, other = REAL[case]
    image, _ = compile_plan(planner(op)(shapes, operand, 87), 87)
    made = tools.compile_library([image], tmp_path)
    for given in (shapes, *([[other] * 4 + [(other[0], other[2])] * 2] if other else ())):
        answers, asked = host(made, tools.request(image, given))
        outputs, workspace, launches = tools.expected(image, given)
        assert answers[: len(outputs)] == outputs
        assert answers[len(outputs)]["workspace"] == workspace
        assert [row for row in asked if row["call"] == "launch"] == launches * 2
        assert [row["bytes"] for row in asked if row["call"] == "load"] == [len(each.ptx) for each in image.launches]


@pytest.mark.slow
@needs_compiler
def test_no_memory_is_misused(tmp_path):
    """The whole of it under the address and undefined-behaviour sanitizers, leaks included."""
    sanitizers = ("-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-g")
    made = tools.compile_library((CHAIN, PIECES, STATE), tmp_path, "10.3", ("g++", *sanitizers))
    checked = tools.Host(tmp_path, sanitizers)
    requests = [tools.request(CHAIN, ((2, 111, 5), (2, 3))), tools.request(STATE, ((1, 8), (1, 8)))]
    requests += ["creators", f"kept {CHAIN.name} other", f"memory {PIECES.name} float32:1x1x1/4x40x20"]
    answers, _ = checked(made, *requests, f"run {CHAIN.name} float32:1x9")
    assert [row["code"] for row in answers if "code" in row] == [0, 0]
    answers, _ = checked(made, *requests, fail="cuModuleLoadDataEx")
    assert {"attached": False} in answers
