"""Initial values of event-ssm: HiPPO-LegS eigenvalues and the distributions of the published implementation."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

TRUNCATED_STD = 0.87962566103423978
"""Standard deviation of a standard normal that is cut off at two."""


def legs_eigenbasis(size: int) -> tuple[Tensor, Tensor, Tensor]:
    """Diagonalises the normal part of HiPPO-LegS (arXiv 2206.11893).

    A = S - q qᵀ with q_n = sqrt(n + 1/2), where S + I/2 is skew-symmetric: S = V diag(λ) V^H.

    Args:
        size: Number N of states of one block.

    Returns:
        Re λ (N,), Im λ (N,) ascending, in float64, and V (N, N) in complex128.
    """
    n = torch.arange(size, dtype=torch.float64)
    root = torch.sqrt(2 * n + 1)
    q = torch.sqrt(n + 0.5)
    A = torch.tril(-torch.outer(root, root), diagonal=-1) - torch.diag(n + 1)
    S = A + torch.outer(q, q)
    imaginary, V = torch.linalg.eigh(-1j * S)
    return torch.full_like(imaginary, S.diagonal().mean().item()), imaginary, V


def block_eigenbasis(states: int, block_size: int, conj_sym: bool) -> tuple[Tensor, Tensor, Tensor]:
    """Repeats the eigenbasis along the diagonal.

    Args:
        states: Number P of states before conjugate symmetry.
        block_size: States of one block; divides `states`.
        conj_sym: Keep only the eigenvalues of negative imaginary part, the first half of each block.

    Returns:
        Re λ (P',), Im λ (P',), V (P, P') complex128, with P' = P/2 under `conj_sym`, else P.
    """
    real, imaginary, V = legs_eigenbasis(block_size)
    kept = block_size // 2 if conj_sym else block_size
    blocks = states // block_size
    return real[:kept].repeat(blocks), imaginary[:kept].repeat(blocks), torch.block_diag(*[V[:, :kept]] * blocks)


def lecun_normal(*shape: int, fan_in: float | None = None) -> Tensor:
    """A float64 truncated normal of variance 1/fan_in, as the published code's framework draws it.

    Args:
        *shape: Shape; `fan_in` defaults to the second axis from the end times all axes before it.
        fan_in: Replaces that.

    Returns:
        The sample, from torch's global generator.
    """
    fan_in = math.prod(shape[:-1]) if fan_in is None else fan_in
    std = math.sqrt(1 / fan_in) / TRUNCATED_STD
    return nn.init.trunc_normal_(torch.empty(shape, dtype=torch.float64), std=std, a=-2 * std, b=2 * std)


def input_matrix(V: Tensor, h_in: int) -> Tensor:
    """B̃ = V^H B with B lecun-normal over its rows.

    Args:
        V: (P, P') eigenvectors.
        h_in: Input width.

    Returns:
        (P', Hin, 2) float64.
    """
    B = lecun_normal(V.shape[0], h_in)
    return torch.view_as_real(V.conj().T @ B.to(V.dtype)).clone()


def output_matrix(V: Tensor, h_out: int, kind: str) -> Tensor:
    """C̃ = C V, or C̃ itself for `complex_normal`.

    Args:
        V: (P, P') eigenvectors.
        h_out: Output width.
        kind: `lecun_normal` (fan-in Hout·P), `trunc_standard_normal` (each row on its own, fan-in P) or
            `complex_normal` (unit variance, no basis change).

    Returns:
        (Hout, P', 2) float64.
    """
    full, stored = V.shape
    if kind == "complex_normal":
        return torch.randn(h_out, stored, 2, dtype=torch.float64) * math.sqrt(0.5)
    C = lecun_normal(h_out, full, 2, fan_in=full if kind == "trunc_standard_normal" else h_out * full)
    return torch.view_as_real(torch.view_as_complex(C) @ V).clone()


def feedthrough(h_in: int, h_out: int) -> Tensor:
    """D: standard normal (H,) for equal widths, else glorot-normal (Hout, Hin); float64."""
    if h_in == h_out:
        return torch.randn(h_in, dtype=torch.float64)
    return lecun_normal(h_out, h_in, fan_in=(h_in + h_out) / 2)


def log_steps(states: int, dt_min: float, dt_max: float) -> Tensor:
    """(P', 1) logarithms of steps, uniform between those of `dt_min` and `dt_max`; float64."""
    low, high = math.log(dt_min), math.log(dt_max)
    return torch.rand(states, 1, dtype=torch.float64) * (high - low) + low


def dense(width_in: int, width_out: int) -> nn.Linear:
    """A linear layer with lecun-normal weights and zero bias."""
    linear = nn.Linear(width_in, width_out)
    with torch.no_grad():
        linear.weight.copy_(lecun_normal(width_out, width_in, fan_in=width_in))
        linear.bias.zero_()
    return linear
