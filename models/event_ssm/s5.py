"""S5 on asynchronous tokens: the state space layer of event-ssm (arXiv 2404.18508).

Every piece takes any leading shape, so that a sequence (B, L, H) and a single step (H,) run through the same code.
Complex numbers are (re, im) pairs throughout. Under autocast, matrix products are rounded; states and exponentials
keep the parameters' precision.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from models.event_ssm import hippo
from models.event_ssm.config import EventSSMConfig
from models.event_ssm.pooling import event_pool
from neurocompile.ops.diagonal_scan import diagonal_scan

CLIPPED = -1e-4
"""Largest real part of an eigenvalue with `clip_eigs`."""


class S5(nn.Module):
    """The diagonal state space layer of a sequence of (u_k, dt_k) pairs, dt_k in ms.

        x_k = exp(Λ Δ dt_k) x_{k-1} + gamma_k B u_k,   y_k = κ Re(C x_k) + D u_k

    with Δ = step_rescale · exp(log_step), κ = 2 with conjugate symmetry, else 1, and

        zoh     gamma_k = (exp(Λ Δ dt_k) - 1) / Λ
        dirac   gamma   = 1
        async   gamma   = (exp(Λ Δ) - 1) / Λ

    With a stride S, the state is read at index 0 of every complete group of S pairs, and u is pooled before D.

    Args:
        config: Discretisation, symmetry, clipping, pooling mode and initialisation.
        h_in: Input width Hin.
        h_out: Output width Hout.
        states: Number P' of stored complex states.
        stride: S.
    """

    def __init__(self, config: EventSSMConfig, h_in: int, h_out: int, states: int, stride: int = 1) -> None:
        super().__init__()
        self.discretization = config.discretization
        self.conj_sym, self.clip_eigs = config.conj_sym, config.clip_eigs
        self.step_rescale = config.step_rescale
        self.stride, self.pooling_mode = stride, config.pooling_mode
        full = 2 * states if config.conj_sym else states
        real, imaginary, V = hippo.block_eigenbasis(full, config.ssm_block_size, config.conj_sym)
        self.Lambda_re = _parameter(real)
        self.Lambda_im = _parameter(imaginary)
        self.B = _parameter(hippo.input_matrix(V, h_in))
        self.C = _parameter(hippo.output_matrix(V, h_out, config.C_init))
        self.D = _parameter(hippo.feedthrough(h_in, h_out))
        self.log_step = _parameter(hippo.log_steps(states, config.dt_min, config.dt_max))

    def rates(self) -> tuple[Tensor, Tensor, Tensor]:
        """(P',) real and imaginary part of Λ after clipping, and the step Δ."""
        real = self.Lambda_re.clamp(max=CLIPPED) if self.clip_eigs else self.Lambda_re
        return real, self.Lambda_im, self.step_rescale * self.log_step[:, 0].exp()

    def decay(self, dt: Tensor) -> tuple[Tensor, Tensor]:
        """A = exp(Λ Δ dt).

        Args:
            dt: (...) ms.

        Returns:
            (..., P') real and imaginary part.
        """
        exponent, angle = self.exponent(dt)
        modulus = exponent.exp()
        return modulus * angle.cos(), modulus * angle.sin()

    def exponent(self, dt: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """(..., P') real and imaginary part of Λ Δ dt; `None` stands for 1 ms."""
        real, imaginary, step = self.rates()
        if dt is None:
            return real * step, imaginary * step
        return dt[..., None] * (real * step), dt[..., None] * (imaginary * step)

    def gamma(self, dt: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """(exp(Λ Δ dt) - 1) / Λ without cancellation, Δ dt where Λ = 0.

        Args:
            dt: (...) ms; `None` stands for 1 ms.

        Returns:
            (..., P') real and imaginary part.
        """
        real, imaginary, step = self.rates()
        square = real.square() + imaginary.square()
        inverse = 1 / torch.where(square == 0, torch.inf, square)
        limit = torch.where(square == 0, step, 0)
        exponent, angle = self.exponent(dt)
        modulus = exponent.exp()
        # tanh(z/2)(e^z + 1) is e^z - 1, accurate near 0 with functions that every graph format has.
        e_re = (0.5 * exponent).tanh() * (modulus + 1) * angle.cos() - 2 * (0.5 * angle).sin().square()
        e_im = modulus * angle.sin()
        rest = limit if dt is None else dt[..., None] * limit
        return (e_re * real + e_im * imaginary) * inverse + rest, (e_im * real - e_re * imaginary) * inverse

    def drive(self, u: Tensor, dt: Tensor) -> tuple[Tensor, Tensor]:
        """The input gamma B u; for `async` and `dirac` one product with a constant matrix, whatever dt is.

        Args:
            u: (..., Hin).
            dt: (...) ms.

        Returns:
            (..., P') real and imaginary part.
        """
        re, im = self.B.unbind(-1)
        if self.discretization == "async":
            gamma_re, gamma_im = self.gamma()
            re, im = _times((gamma_re[:, None], gamma_im[:, None]), (re, im))
        re, im = _keep(functional.linear(u, torch.cat((re, im))), self.B).chunk(2, -1)
        return _times(self.gamma(dt), (re, im)) if self.discretization == "zoh" else (re, im)

    def read(self, x_re: Tensor, x_im: Tensor) -> Tensor:
        """κ Re(C x) of (..., P') states, as one real matrix product; (..., Hout)."""
        re, im = self.C.unbind(-1)
        matrix = torch.cat((re, -im), -1)
        if self.conj_sym:
            matrix = 2 * matrix
        return _keep(functional.linear(torch.cat((x_re, x_im), -1), matrix), self.C)

    def feed(self, u: Tensor) -> Tensor:
        """D u of (..., Hin); (..., Hout)."""
        return self.D * u if self.D.dim() == 1 else _keep(functional.linear(u, self.D), self.D)

    def scan(
        self, u: Tensor, dt: Tensor, x0_re: Tensor | None = None, x0_im: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """All states of a sequence.

        Args:
            u: (B, L, Hin).
            dt: (B, L) ms.
            x0_re: (B, P') real part of the state before, zero if `None`.
            x0_im: (B, P') imaginary part of it.

        Returns:
            (B, L, P') real and imaginary part.
        """
        return diagonal_scan(*self.decay(dt), *self.drive(u, dt), x0_re, x0_im)

    def forward(self, u: Tensor, dt: Tensor) -> Tensor:
        """Maps (B, L, Hin) and (B, L) to (B, L // S, Hout), from zero state."""
        re, im = self.scan(u, dt)
        if self.stride > 1:
            complete = dt.shape[1] // self.stride * self.stride
            re, im = re[:, : complete : self.stride], im[:, : complete : self.stride]
            u, _ = event_pool(u, dt, self.stride, self.pooling_mode)
        return self.read(re, im) + self.feed(u)


def _parameter(value: Tensor) -> nn.Parameter:
    return nn.Parameter(value.to(torch.get_default_dtype()))


def _times(a: tuple[Tensor, Tensor], b: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    """Product of two complex numbers."""
    return a[0] * b[0] - a[1] * b[1], a[0] * b[1] + a[1] * b[0]


def _keep(product: Tensor, parameter: Tensor) -> Tensor:
    """A matrix product in its parameter's precision, which autocast lowers."""
    return product if product.dtype == parameter.dtype else product.to(parameter.dtype)
