"""`export --plugins`, and the bundles it writes: on a machine without TensorRT, and where stand-ins of it are."""

from __future__ import annotations

import hashlib
import json
import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import onnx
import pytest

pytest.importorskip("triton", reason="Triton is published for Linux only")

import fake_plugin
import fake_tensorrt as fake
from neurocompile.sequences import shipped_sequence
from neurocompile.targets.trt import rtx
from neurocompile.targets.trt.plugins import ptx
from neurocompile.targets.trt.stand_in import stand_in
from runtime.backends import tensorrt as backend
from runtime.backends import tensorrt_plugins
from runtime.backends.cudart import Cuda
from runtime.bundle import MANIFEST, MANIFEST_HASH, open_bundle
from runtime.engines import Host
from runtime.errors import UserError
from runtime.plugins.image import PluginImage
from runtime.plugins.sizes import evaluate

TYPES = SimpleNamespace(FLOAT="FLOAT", BF16="BF16", HALF="HALF", INT32="INT32")
HOST = Host("10.13.2.6", 87)


@pytest.fixture(scope="module")
def said() -> list[str]:
    return []


@pytest.fixture(scope="module")
def made(checkpoint, tmp_path_factory, said) -> Path:
    """A bundle for a GPU of compute capability 8.7, with ahead-of-time plugins."""
    from export.pipeline import export_model

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rtx, "obstacle", lambda: "left out, for speed")
        return export_model(
            checkpoint,
            "trt-bf16@sm87",
            tmp_path_factory.mktemp("trt") / "tiny.neuro",
            tensorrt="10",
            plugins="aot",
            recording=shipped_sequence(600),
            announce=said.append,
        ).path


@pytest.fixture
def bundle(made, tmp_path, monkeypatch):
    """A copy of it, and an empty cache."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return open_bundle(shutil.copytree(made, tmp_path / "tiny.neuro"))


def nodes_of(data: bytes) -> list[onnx.NodeProto]:
    return [node for node in onnx.load_from_string(data).graph.node if node.domain]


def test_the_graph_names_its_plugins_and_the_report_what_was_checked(bundle, said):
    bundle.verify_files()
    target, build = bundle.manifest["target"], bundle.manifest["build"]
    assert (target["tensorrt"], target["capability"], target["plugin_kind"]) == ("10.9", 87, "aot")
    graphs = bundle.graphs()
    nodes = nodes_of(graphs["chunk"])
    assert {node.op_type for node in nodes} == {Path(path).stem for path in target["plugins"]}
    for node in nodes:
        given = {attribute.name: onnx.helper.get_attribute_value(attribute) for attribute in node.attribute}
        assert given == {"plugin_namespace": b"neurocompile", "plugin_version": b"1", "aot": 1}
    assert not any(nodes_of(graph) for stage, graph in graphs.items() if stage != "chunk")
    twin = bundle.read("native/chunk.onnx")
    assert not nodes_of(twin)
    sides = [onnx.load_from_string(data).graph for data in (graphs["chunk"], twin)]
    assert [v.name for v in (*sides[0].input, *sides[0].output)] == [
        v.name for v in (*sides[1].input, *sides[1].output)
    ]
    rows = build["stages"]["chunk"]["ops"]
    assert rows
    assert all(row["op"] == "DiagonalScan" and row["by"].startswith("plugin, ") for row in rows)
    assert f"{rows[0]['node']} (DiagonalScan): {rows[0]['by']}" in said[0]
    assert build["stages"]["chunk"]["plugins"] == {"DiagonalScan": len(rows)}
    assert bundle.parity["status"].endswith("native layers where chunk has plugins")
    assert "no plugin ran anywhere" in build["remaining"]
    kernels = [kernel for plugin in build["plugins"]["plugins"].values() for kernel in plugin["kernels"]]
    assert all({"registers", "shared", "spills"} <= set(kernel) for kernel in kernels)


@pytest.fixture
def trt():
    """TensorRT's module with plugins; the parser knows what was registered, and runs twins of graphs with plugins."""
    library = fake.Library(87)
    trt = fake.module(library, HOST.tensorrt)
    trt.DataType, trt.plugin, trt.library, trt.twins = TYPES, fake_plugin.module(), library, {}
    trt.NetworkDefinitionCreationFlag.PREFER_AOT_PYTHON_PLUGINS = 3
    whole = trt.OnnxParser
    network = SimpleNamespace(flags=[])

    class Parser(whole):
        def parse(self, graph: bytes) -> bool:
            if any(f"{node.domain}::{node.op_type}" not in trt.plugin.registry for node in nodes_of(graph)):
                self.get_error = lambda number: SimpleNamespace(desc=lambda: "Plugin not found, is the name correct?")
                return False
            return super().parse(trt.twins.get(graph, graph))

    class Builder(trt.Builder):
        def create_network(self, flags: int):
            network.flags.append(flags)
            return super().create_network(2)

    trt.OnnxParser, trt.Builder, trt.flags = Parser, Builder, network.flags
    return trt


def opened(bundle, trt, **options):
    return backend.open_tensorrt(bundle, trt=trt, cuda=Cuda(trt.library), **options)


def test_plugins_are_registered_before_graphs_are_read(bundle, trt):
    """A session on plugins' graphs, whose stand-in of an engine runs the twin: same names, shapes and numbers."""
    twin = bundle.read("native/chunk.onnx")
    trt.twins = {bundle.graphs()["chunk"]: twin}
    events = shipped_sequence(900).events
    session = opened(bundle, trt)
    assert set(trt.flags) == {2 + 8}
    plain = bundle.graphs() | {"chunk": twin}
    wanted = stand_in(bundle.program, plain, "bf16").open(1.0)
    session.push(events)
    wanted.push(events)
    assert (session.readout() == wanted.readout()).all()
    again = opened(bundle, trt)  # In the same process: nothing is registered twice.
    assert again.items == 0


def test_what_tensorrt_is_told_is_what_the_images_say(bundle, trt):
    """Types, shapes, grids, integers and their order, by what TensorRT asks, for the shapes in the graph."""
    tensorrt_plugins.register(bundle, HOST, trt)
    graph = onnx.load_from_string(bundle.graphs()["chunk"]).graph
    infos = [*graph.value_info, *graph.input, *graph.output]
    shapes = {v.name: [d.dim_value for d in v.type.tensor_type.shape.dim] for v in infos}
    images = {image.name: image for image in tensorrt_plugins.images_of(bundle, HOST)}
    short = {"float32": "FLOAT", "bfloat16": "BF16", "float16": "HALF", "int32": "INT32"}
    for node in nodes_of(bundle.graphs()["chunk"]):
        image = images[node.op_type]
        [launch] = image.launches
        for name, tensor in zip(node.output, image.outputs, strict=True):
            given = [shapes[each] for each in node.input]
            shapes.setdefault(name, [evaluate(size, given) for size in tensor.shape])
        given = [shapes[each] for each in node.input]
        asked = trt.plugin.drive(f"neurocompile::{image.name}", given, [short[each.dtype] for each in image.inputs])
        assert (asked.entry, asked.code) == (launch.entry, launch.ptx)
        assert asked.shapes == [shapes[each] for each in node.output]
        assert asked.types == [short[each.dtype] for each in image.outputs]
        assert asked.grid == [evaluate(size, given) for size in launch.grid]
        assert min(asked.grid) > 0
        assert (asked.block, asked.shared) == ([launch.threads, 1, 1], launch.shared)
        numbers = [evaluate(a.value, given) if a.kind == "int32" else "pointer" for a in launch.arguments]
        assert asked.arguments == numbers
        kinds = ["pointer" if each == "pointer" else "int32" for each in asked.arguments]
        assert kinds == [parameter.kind for parameter in ptx.parameters(launch.ptx)]


def test_outputs_may_share_memory_with_inputs(bundle, trt):
    image = next(iter(tensorrt_plugins.images_of(bundle, HOST)))
    whole = replace(image, aliased=((0, 1),))
    tensorrt_plugins._register(whole, trt, trt.plugin)
    shapes = [[1, 64, 8] if each.rank == 3 else [1, 8] for each in image.inputs]
    assert trt.plugin.drive(f"neurocompile::{whole.name}", shapes, ["FLOAT"] * len(shapes)).aliased == {0: 1}


def refuse(message: str, act) -> None:
    with pytest.raises(UserError, match=message) as caught:
        act()
    assert "\n" not in str(caught.value)


def plugin_of(bundle) -> Path:
    return bundle.root / bundle.manifest["target"]["plugins"][0]


def rewrite(bundle, change) -> None:
    """Changes the manifest and signs it again, as somebody who exports could."""
    table = json.loads((bundle.root / MANIFEST).read_text())
    change(table)
    data = json.dumps(table).encode()
    (bundle.root / MANIFEST).write_bytes(data)
    (bundle.root / MANIFEST_HASH).write_text(hashlib.sha256(data).hexdigest())


def put(bundle, image: PluginImage, path: Path) -> None:
    """Another image in the place of one, with its hash in the manifest."""
    path.write_bytes(image.to_bytes())
    digest = hashlib.sha256(image.to_bytes()).hexdigest()
    rewrite(bundle, lambda table: table["files"][path.relative_to(bundle.root).as_posix()].update(sha256=digest))


def test_a_changed_plugin_is_refused(bundle, trt):
    path = plugin_of(bundle)
    path.write_bytes(path.read_bytes().replace(b"add.s32", b"sub.s32", 1))
    refuse("is not the file that was exported", lambda: opened(bundle, trt))
    assert (trt.seen.built, trt.plugin.registry) == (0, {})


def test_a_changed_plugin_is_refused_where_engines_are_kept(bundle, trt):
    trt.twins = {bundle.graphs()["chunk"]: bundle.read("native/chunk.onnx")}
    kept = opened(bundle, trt)
    assert kept.items == 0
    known = len(trt.seen.deserialised)
    path = plugin_of(bundle)
    path.write_bytes(path.read_bytes() + b" ")
    refuse("is not the file that was exported", lambda: opened(bundle, trt))
    assert len(trt.seen.deserialised) == known


def test_a_missing_plugin_is_refused(bundle, trt):
    path = plugin_of(bundle)
    path.unlink()
    refuse("cannot be read .No such file", lambda: opened(bundle, trt))
    rewrite(bundle, lambda table: table["files"].pop(path.relative_to(bundle.root).as_posix()))
    refuse("needs the plugin .*, which it does not hold", lambda: opened(open_bundle(bundle.root), trt))
    rewrite(bundle, lambda table: table["target"].update(plugins=[]))
    refuse("cannot read the graph of stage 'chunk': Plugin not found", lambda: opened(open_bundle(bundle.root), trt))
    assert trt.seen.built == 0 or not trt.seen.deserialised


def test_a_plugin_for_another_chip_is_refused(bundle, trt):
    path = plugin_of(bundle)
    image = replace(PluginImage.from_bytes(path.read_bytes()), capability=86)
    put(bundle, image, path)
    refuse("holds the plugin .*; export the bundle again", lambda: opened(open_bundle(bundle.root), trt))
    other = path.with_name(f"{image.name}.json")
    path.rename(other)

    def change(table):
        table["files"][other.relative_to(bundle.root).as_posix()] = table["files"].pop(
            path.relative_to(bundle.root).as_posix()
        )
        table["target"]["plugins"] = [other.relative_to(bundle.root).as_posix()]

    rewrite(bundle, change)
    refuse(
        "was compiled for sm_86 and the GPU here is sm_87; export it for trt-bf16@sm87",
        lambda: opened(open_bundle(bundle.root), trt),
    )
    library = fake.Library(90)
    newer = fake.module(library, HOST.tensorrt)
    refuse(
        "exported for sm_87 and the GPU here is sm_90",
        lambda: backend.open_tensorrt(bundle, trt=newer, cuda=Cuda(library)),
    )


def test_no_image_is_refused(bundle, trt):
    path = plugin_of(bundle)
    path.write_bytes(b"{}")
    digest = hashlib.sha256(b"{}").hexdigest()
    rewrite(bundle, lambda table: table["files"][path.relative_to(bundle.root).as_posix()].update(sha256=digest))
    refuse("is no image of a plugin", lambda: opened(open_bundle(bundle.root), trt))


def test_a_tensorrt_without_such_plugins_is_refused(bundle, trt):
    older = fake.module(trt.library, "10.8.0.43")
    refuse(
        "exported for TensorRT 10.9 and this machine has 10.8",
        lambda: backend.open_tensorrt(bundle, trt=older, cuda=Cuda(trt.library)),
    )
    del trt.plugin.aot_impl
    refuse("has ahead-of-time plugins, which TensorRT has from 10.9 on", lambda: opened(bundle, trt))
    trt.plugin = fake_plugin.module()
    trt.plugin.register = lambda name: lambda function: 1 / 0
    refuse("does not take the plugin .*division by zero.*--plugins none", lambda: opened(bundle, trt))


@pytest.mark.parametrize(
    ("typed", "message"),
    [
        (("trt-bf16@jetson-orin", "aot"), "TensorRT 10.3 has no ahead-of-time plugins, 10.9 was the first"),
        (("trt-bf16", "aot"), "plugins hold machine code of one GPU; name it, for instance --target trt-bf16@sm90"),
        (("trt-bf16@sm90", "some"), "--plugins some is none of none, aot, cpp, auto"),
        (("cpu-fp32", "aot"), "--plugins is for targets of TensorRT, and 'cpu-fp32' is none"),
    ],
)
def test_plugins_that_cannot_be_are_refused(run, refused, checkpoint, tmp_path, typed, message):
    target, plugins = typed
    out = tmp_path / "out.neuro"
    refused(run("export", "--model", checkpoint, "--target", target, "--plugins", plugins, "-o", out), message)
    assert not out.exists()


def test_without_triton_plugins_are_refused(run, refused, checkpoint, tmp_path, monkeypatch):
    monkeypatch.setattr("neurocompile.targets.trt.plugged.obstacle", lambda: "Triton is not installed")
    typed = ("export", "--model", checkpoint, "--target", "trt-fp32@sm90", "--plugins", "auto", "-o", tmp_path / "o")
    refused(run(*typed), "plugins are compiled from Triton kernels, and Triton is not installed")
