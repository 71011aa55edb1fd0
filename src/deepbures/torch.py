"""Losses for PyTorch's automatic differentiation: exact values, gradients and Hessian products, at any rank.

The optional extra `torch` (`pip install "deepbures[torch]"`); docs/autograd.md has examples.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from .linalg.psd import Array
from .linalg.truncation import of_rank
from .losses.base import CovarianceLoss


def covariance_loss(loss: CovarianceLoss, W: torch.Tensor, rank: int | None = None) -> torch.Tensor:
    """L(W) as a tensor that can be differentiated twice: by ∇L(W), and by ∇²L(W)[V].

    The derivatives are the closed forms of the loss. No root and no decomposition is differentiated, so that they are
    finite for singular W Wᵀ and for equal eigenvalues as well. For ε = 0 and a singular W Wᵀ the Bures-Wasserstein loss
    has a kink. There the gradient is 2 (W − R U Vᵀ), with R W = U σ Vᵀ restricted to σ > 0.

    Parameters
    ----------
    loss
        For example `BuresWasserstein(covariance, epsilon)`; a stack of targets fits too.
    W : (..., n, d)
        Of any floating type, on any device. Everything is computed on the CPU in float64; values and derivatives get
        the type and device of W. Samples Y (m, n) enter by W = (Y − ȳ)ᵀ/√m: W Wᵀ is their covariance.
    rank
        Rank of W. For ε = 0 second derivatives need it where it is below min(n, d), see
        `CovarianceLoss.hessian_product`. Singular values beyond it that are rounding of the type of W count as zero.

    Returns
    -------
    L(W) : (...)

    Raises
    ------
    ValueError
        As `CovarianceLoss.value`, and as `CovarianceLoss.hessian_product` for second derivatives.
    NotImplementedError
        For third derivatives.
    """
    return _Value.apply(W, loss, rank)


class _Value(torch.autograd.Function):
    @staticmethod
    def forward(W: torch.Tensor, loss: CovarianceLoss, rank: int | None) -> torch.Tensor:
        return _like(W, loss.value(_array(W, rank)))

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple, output: torch.Tensor) -> None:
        W, ctx.loss, ctx.rank = inputs
        ctx.save_for_backward(W)

    @staticmethod
    def backward(ctx: Any, weight: torch.Tensor) -> tuple:
        (W,) = ctx.saved_tensors
        return weight[..., None, None] * _Gradient.apply(W, ctx.loss, ctx.rank), None, None


class _Gradient(torch.autograd.Function):
    @staticmethod
    def forward(W: torch.Tensor, loss: CovarianceLoss, rank: int | None) -> torch.Tensor:
        return _like(W, loss.gradient(_array(W, rank)))

    setup_context = _Value.setup_context

    @staticmethod
    def backward(ctx: Any, V: torch.Tensor) -> tuple:
        (W,) = ctx.saved_tensors  # the Hessian is symmetric
        return _HessianProduct.apply(W, V, ctx.loss, ctx.rank), None, None


class _HessianProduct(torch.autograd.Function):
    @staticmethod
    def forward(W: torch.Tensor, V: torch.Tensor, loss: CovarianceLoss, rank: int | None) -> torch.Tensor:
        return _like(W, loss.hessian_product(_array(W, rank), _array(V), rank))

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple, output: torch.Tensor) -> None:
        pass

    @staticmethod
    def backward(ctx: Any, weight: torch.Tensor) -> tuple:
        raise NotImplementedError("third derivatives of a covariance loss are not available")


def _array(tensor: torch.Tensor, rank: int | None = None) -> Array:
    values = tensor.detach().cpu().to(torch.float64).numpy()  # in this order: not every device has float64
    return of_rank(values, rank, torch.finfo(tensor.dtype).eps)


def _like(tensor: torch.Tensor, values: Array) -> torch.Tensor:
    return torch.from_numpy(np.array(values, dtype=np.float64)).to(tensor.dtype).to(tensor.device)
