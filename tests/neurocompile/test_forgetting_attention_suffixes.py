"""The op `forgetting_attention_suffixes`: against its definition and the whole op, as ONNX, as plain layers, in C."""

from __future__ import annotations

import warnings

import numpy as np
import onnx
import onnx_ir as ir
import pytest
import torch
from torch import nn

from neurocompile.ops.forgetting_attention.reference import forgetting_attention
from neurocompile.ops.forgetting_attention_suffixes import NOTHING, forgetting_attention_suffixes, onnx_function
from neurocompile.ops.forgetting_attention_suffixes.reference import forgetting_attention_suffixes as reference
from neurocompile.ops.function import DOMAIN
from neurocompile.passes.native import native

# Positions T, queries Q, keys M, keys from suffix to suffix, heads, key heads, channels.
CASES = {
    "new queries, all starts": (60, 12, 60, 12, 4, 2, 5),
    "new queries, one start": (33, 33, 33, 33, 2, 1, 3),
    "keys put in front": (60, 60, 12, 12, 4, 2, 5),
    "keys put in front in parts": (61, 40, 21, 7, 3, 3, 4),
    "queries apart from keys": (80, 11, 30, 10, 2, 2, 8),
    "a single position": (1, 1, 1, 1, 1, 1, 1),
    "longer than a tile": (310, 62, 310, 62, 2, 1, 6),
    "many keys in front": (290, 290, 130, 130, 2, 2, 6),
}
GATES = {"mixed": 1.0, "open": 0.0, "shut": 60.0}


def make(case: str, gate: float = 1.0, nothing: bool = False, seed: int = 0) -> tuple[list[torch.Tensor], int]:
    steps, queries, keys, cut, heads, key_heads, width = CASES[case]
    draw = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(2, *shape, generator=draw, dtype=torch.float64)

    log_f = -gate * normal(steps, heads).square()
    known = normal(queries, heads, width + 1)
    if nothing:
        known = torch.zeros_like(known)
        known[..., -1] = NOTHING
    arrays = [normal(queries, heads, width), normal(keys, key_heads, width), normal(keys, key_heads, width)]
    return [value.float().double() for value in (*arrays, log_f, known)], cut


@pytest.mark.parametrize("gate", GATES.values(), ids=GATES)
@pytest.mark.parametrize("case", CASES)
def test_answers_and_gradients_are_those_of_the_definition(case, gate):
    inputs, cut = make(case, gate)
    results = []
    for op in (forgetting_attention_suffixes, reference):
        leaves = [value.clone().requires_grad_() for value in inputs]
        answer = op(*leaves, cut)
        answer.sin().sum().backward()
        results.append([answer.detach(), *(leaf.grad for leaf in leaves)])
    for got, want in zip(*results, strict=True):
        assert (got - want).abs().max() <= 1e-12 * max(1, want.abs().max())


def test_newest_queries_over_every_suffix_are_the_op_on_shorter_and_shorter_sequences():
    (q, k, v, log_f, known), cut = make("new queries, all starts", nothing=True)
    whole = torch.cat((torch.zeros(2, len(k[0]) - len(q[0]), *q.shape[2:], dtype=q.dtype), q), 1)
    found = forgetting_attention_suffixes(q, k, v, log_f, known, cut)
    for number, start in enumerate(range(0, k.shape[1], cut)):
        want = forgetting_attention(*(value[:, start:] for value in (whole, k, v, log_f)))[:, -cut:]
        assert (found[:, number, ..., :-1] - want).abs().max() <= 1e-12


def test_keys_may_come_part_by_part():
    """What one call answers is what the next one knows; together they are the op on the whole sequence."""
    (_, k, v, log_f, known), _ = make("longer than a tile", nothing=True)
    q = torch.randn(2, 310, 2, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    known = known[:, :1].expand(-1, 310, -1, -1)
    for begin in (248, 100, 31, 0):
        end = {248: 310, 100: 248, 31: 100, 0: 31}[begin]
        parts = (k[:, begin:end], v[:, begin:end], log_f[:, begin:])
        known = torch.cat(
            (
                known[:, :begin],
                forgetting_attention_suffixes(q[:, begin:], *parts, known[:, begin:], end - begin)[:, 0],
            ),
            1,
        )
    assert (known[..., :-1] - forgetting_attention(q, k, v, log_f)).abs().max() <= 1e-12


def test_autocast_on_a_processor_changes_nothing():
    inputs, cut = make("new queries, all starts")
    inputs = [value.float() for value in inputs]
    with torch.autocast("cpu", torch.bfloat16):
        found = forgetting_attention_suffixes(*inputs, cut)
    assert torch.equal(found, forgetting_attention_suffixes(*inputs, cut))


class Op(nn.Module):
    """The op alone."""

    def __init__(self, cut: int) -> None:
        super().__init__()
        self.cut = cut

    def forward(self, q, k, v, log_f, known):
        """See the op."""
        return forgetting_attention_suffixes(q, k, v, log_f, known, self.cut)


def exported(case: str, inputs: list[torch.Tensor], cut: int) -> ir.Model:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            Op(cut), tuple(inputs), dynamo=True, opset_version=20, optimize=False, verbose=False
        )
    onnx_function.FUNCTION.attach(program.model)
    program.model.graph.name = case
    return program.model


def assert_close(got: np.ndarray, want: np.ndarray, bound: float) -> None:
    assert got.shape == want.shape
    assert np.abs(got - want).max() <= bound * max(1, np.abs(want).max())


@pytest.mark.parametrize("case", CASES)
def test_one_node_whose_body_and_plain_layers_onnxruntime_runs(case, run):
    inputs, cut = make(case)
    inputs[4][:, ::2, :, -1] = NOTHING
    want = reference(*inputs, cut).numpy()
    model = exported(case, [value.float() for value in inputs], cut)
    [node] = [node for node in model.graph if node.domain == DOMAIN]
    assert node.op_type == "ForgettingAttentionSuffixes" and node.attributes["cut"].value == cut
    onnx.checker.check_model(ir.to_proto(model), full_check=True)
    arrays = {value.name: array.float().numpy() for value, array in zip(model.graph.inputs, inputs, strict=True)}
    assert_close(*(*run(model, **arrays).values(), want), 3e-6)
    [change] = native(model)
    assert "->" in change.what
    assert not model.functions and not any(node.domain for node in model.graph)
    assert_close(*(*run(model, **arrays).values(), want), 1e-5)


def test_what_does_not_fit_is_refused():
    (q, k, v, log_f, known), cut = make("new queries, all starts")
    with pytest.raises(ValueError, match="60 keys on 60 positions, 7 keys from suffix to suffix"):
        forgetting_attention_suffixes(q, k, v, log_f, known, 7)
    with pytest.raises(ValueError, match=r"known has shape \(2, 12, 4, 5\), expected \(2, 12, 4, 6\)"):
        forgetting_attention_suffixes(q, k, v, log_f, known[..., :-1], cut)
    with pytest.raises(ValueError, match="12 queries and 60 keys on 59 positions"):
        forgetting_attention_suffixes(q, k, v, log_f[:, 1:], known, cut)
    with pytest.raises(ValueError, match="suffix begins at position 54, behind the first query at 48"):
        forgetting_attention_suffixes(q, k, v, log_f, known, 6)
