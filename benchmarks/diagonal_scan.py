"""Times `diagonal_scan` on the CPU against a plain loop, and its ONNX body against a single `Scan` over all steps.

`python -m benchmarks.diagonal_scan [--threads N]` prints the tables of the op's README. Nothing is timed whose result
differs from the reference.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from functools import partial

import numpy as np
import onnx
import onnx.parser
import onnxruntime as ort
import torch
from torch import Tensor

from neurocompile.ops.diagonal_scan import diagonal_scan
from neurocompile.ops.diagonal_scan.onnx_function import FUNCTION
from neurocompile.ops.diagonal_scan.reference import diagonal_scan as reference
from neurocompile.ops.function import DOMAIN, OPSET
from runtime.errors import GateError, guard

TORCH_SHAPES = [(1, 256, 128), (16, 4096, 32), (1, 4096, 128), (32, 1024, 64), (8, 16384, 64)]
ONNX_SHAPES = [(1, 16, 16), (1, 64, 64), (1, 256, 128), (1, 16384, 64)]
NAMES = ("a_re", "a_im", "b_re", "b_im", "x0_re", "x0_im")

SINGLE_SCAN = f"""
<domain: "{DOMAIN}", opset_import: ["": {OPSET}]>
{FUNCTION.op_type} (a_re, a_im, b_re, b_im, x0_re, x0_im) => (x_re, x_im)
{{
    last_re, last_im, x_re, x_im = Scan <
        num_scan_inputs = 4, scan_input_axes = [1, 1, 1, 1], scan_output_axes = [1, 1],
        body = step (re, im, a_re, a_im, b_re, b_im) => (next_re, next_im, out_re, out_im) {{
            rr = Mul (a_re, re)
            ii = Mul (a_im, im)
            ri = Mul (a_re, im)
            ir = Mul (a_im, re)
            turned_re = Sub (rr, ii)
            turned_im = Add (ri, ir)
            next_re = Add (turned_re, b_re)
            next_im = Add (turned_im, b_im)
            out_re = Identity (next_re)
            out_im = Identity (next_im)
        }}
    > (x0_re, x0_im, a_re, a_im, b_re, b_im)
}}
"""


def inputs(batch: int, steps: int, width: int) -> list[Tensor]:
    """Random arguments of the op: decays of modulus below one, inputs and initial state of unit size."""
    draw = torch.Generator().manual_seed(steps)
    decays = [0.7 * torch.rand(batch, steps, width, generator=draw) for _ in range(2)]
    drives = [torch.randn(batch, steps, width, generator=draw) for _ in range(2)]
    return [*decays, *drives, *(torch.randn(batch, width, generator=draw) for _ in range(2))]


def milliseconds(call: Callable[[], object], seconds: float = 1.0) -> float:
    """The best time of a call, warm, out of at least three."""
    call()
    best, count, end = float("inf"), 0, time.perf_counter() + seconds
    while count < 3 or time.perf_counter() < end:
        begin = time.perf_counter()
        call()
        best, count = min(best, time.perf_counter() - begin), count + 1
    return best * 1e3


def prove(what: str, results: list[np.ndarray], given: list[Tensor]) -> None:
    """Refuses results that differ from the float64 reference.

    Args:
        what: Whose results, for the message.
        results: Real and imaginary part of the states.
        given: The arguments of the op.

    Raises:
        GateError: If they do.
    """
    for result, exact in zip(results, reference(*(value.double() for value in given)), strict=True):
        error = np.abs(result - exact.numpy()).max() / exact.abs().max().item()
        if not error <= 1e-5:
            raise GateError(f"{what} is wrong by {error:.1e} of the largest state, so it is not timed")


def _forward(op: Callable, given: list[Tensor]) -> None:
    with torch.no_grad():
        op(*given)


def _forward_and_backward(op: Callable, leaves: list[Tensor], weights: list[Tensor]) -> None:
    torch.autograd.grad(op(*leaves), leaves, weights)


def time_torch() -> None:
    """Prints forward, and forward with backward, of the op and of the loop."""
    print("B, T, P                forward   + backward | loop: forward   + backward   (ms)")
    for shape in TORCH_SHAPES:
        given = inputs(*shape)
        prove("diagonal_scan", [x.numpy() for x in diagonal_scan(*given)], given)
        leaves = [value.clone().requires_grad_() for value in given]
        weights = [torch.randn(shape), torch.randn(shape)]
        row = []
        for op in (diagonal_scan, reference):
            row.append(milliseconds(partial(_forward, op, given)))
            row.append(milliseconds(partial(_forward_and_backward, op, leaves, weights)))
        print(f"{shape!s:20s} {row[0]:9.2f} {row[1]:12.2f} | {row[2]:13.2f} {row[3]:12.2f}")


def session(body: onnx.FunctionProto, threads: int) -> ort.InferenceSession:
    """A session of a model that is one `DiagonalScan` node with the given body.

    Args:
        body: Its function.
        threads: Of the session.

    Returns:
        The session.
    """
    node = onnx.helper.make_node(FUNCTION.op_type, NAMES, ["x_re", "x_im"], domain=DOMAIN)
    sizes = [["B", "T", "P"]] * 4 + [["B", "P"]] * 2 + [["B", "T", "P"]] * 2
    values = [
        onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, size)
        for name, size in zip((*NAMES, "x_re", "x_im"), sizes, strict=True)
    ]
    model = onnx.helper.make_model(
        onnx.helper.make_graph([node], "scan", values[:6], values[6:]),
        opset_imports=[onnx.helper.make_opsetid("", OPSET), onnx.helper.make_opsetid(DOMAIN, FUNCTION.version)],
        functions=[body],
        ir_version=10,
    )
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    return ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def time_onnx(threads: int) -> None:
    """Prints the op's ONNX body beside a single `Scan`.

    Args:
        threads: Of both sessions.
    """
    print("B, T, P                   body  single Scan   (ms, ONNX Runtime)")
    bodies = {"the ONNX body": FUNCTION.proto, "the single Scan": onnx.parser.parse_function(SINGLE_SCAN)}
    sessions = {name: session(body, threads) for name, body in bodies.items()}
    for shape in ONNX_SHAPES:
        given, row = inputs(*shape), []
        feed = {name: value.numpy() for name, value in zip(NAMES, given, strict=True)}
        for name, runner in sessions.items():
            prove(name, runner.run(None, feed), given)
            row.append(milliseconds(partial(runner.run, None, feed)))
        print(f"{shape!s:20s} {row[0]:9.3f} {row[1]:12.3f}")


def main(arguments: list[str] | None = None) -> int:
    """Prints both tables.

    Args:
        arguments: Of the command line; `sys.argv` if `None`.

    Returns:
        The exit code.
    """
    parser = argparse.ArgumentParser(prog="benchmarks.diagonal_scan", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="threads of torch")
    options = parser.parse_args(arguments)

    def run() -> None:
        torch.set_num_threads(options.threads)
        print(f"torch {torch.__version__}, {options.threads} threads; onnxruntime {ort.__version__}, 1 thread")
        time_torch()
        time_onnx(1)

    return guard(run)


if __name__ == "__main__":
    sys.exit(main())
