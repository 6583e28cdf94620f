"""IREE on the same graphs: imported from ONNX, compiled for this processor, one call per stage."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from benchmarks.step_latency.peers.cache import kept
from benchmarks.step_latency.peers.calls import Call, CallExecutor, outputs_of
from benchmarks.step_latency.subject import Subject
from runtime.errors import UserError
from runtime.session import ScheduledSession, Session

OPTIONS = ["--iree-llvmcpu-target-cpu=host", "--iree-opt-level=O3"]
LARGEST = 1 << 20
"""Bytes of a constant that is written into the module's text; a larger one (the table of tokens) is an argument."""


def iree(subject: Subject, folder: Path) -> Session:
    """A session whose stages IREE runs."""
    import iree.runtime as runtime

    spec, calls = subject.spec, {}
    config = runtime.Config("local-sync")
    for name, model in subject.graphs.protos().items():
        stage, tables = lifted(model, LARGEST)
        place = folder / name
        place.mkdir(parents=True)
        # Every imported module is called `module`, so each lives in a context of its own, on the same device.
        context = runtime.SystemContext(config=config)
        code = kept(
            stage.SerializeToString(), "iree-base-compiler", " ".join(OPTIONS), partial(compile_stage, stage, place)
        )
        module = runtime.VmModule.copy_buffer(context.instance, code)
        context.add_vm_module(module)
        function = getattr(context.modules, module.name)[stage.graph.name]
        arrays = [runtime.asdevicearray(config.device, table) for table in tables]
        inputs = tuple(value.name for value in model.graph.input)
        calls[name] = Call(_bound(function, arrays, len(outputs_of(spec, name))), inputs, outputs_of(spec, name))

    def wrap(array: np.ndarray) -> Any:
        return runtime.asdevicearray(config.device, array)

    executor = CallExecutor(spec, calls, wrap, lambda array: array.to_host(), live=False)
    return ScheduledSession(spec, executor, use_chunk=False)


def compile_stage(model: onnx.ModelProto, folder: Path) -> bytes:
    """The module that IREE's compiler makes of one graph.

    Raises:
        UserError: If it refuses; with its first line.
    """
    import iree.compiler
    from iree.compiler.tools.import_onnx import __main__ as importer

    source, text = folder / "stage.onnx", folder / "stage.mlir"
    source.write_bytes(model.SerializeToString())
    if importer.main(importer.parse_arguments([str(source), "-o", str(text)])):
        raise UserError("iree-import-onnx refuses the graph")
    try:
        return iree.compiler.compile_file(
            str(text), target_backends=["llvm-cpu"], input_type="onnx", extra_args=OPTIONS
        )
    except iree.compiler.CompilerToolError as error:
        raise UserError(f"iree-compile refuses the graph: {str(error).splitlines()[0]}") from error


def lifted(model: onnx.ModelProto, largest: int) -> tuple[onnx.ModelProto, list[np.ndarray]]:
    """A copy whose constants above `largest` bytes are further inputs, and those constants."""
    copy, arrays = onnx.ModelProto(), []
    copy.CopyFrom(model)
    for tensor in list(copy.graph.initializer):
        array = numpy_helper.to_array(tensor)
        if array.nbytes > largest:
            arrays.append(array)
            copy.graph.initializer.remove(tensor)
            copy.graph.input.append(helper.make_tensor_value_info(tensor.name, tensor.data_type, array.shape))
    return copy, arrays


def _bound(function: Any, arrays: list[Any], outputs: int) -> Any:
    if outputs == 1:
        return lambda *inputs: (function(*inputs, *arrays),)
    return lambda *inputs: function(*inputs, *arrays)


PEERS = {"IREE": iree}
