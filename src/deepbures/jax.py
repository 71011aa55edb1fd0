"""Losses for JAX's transformations: exact values, gradients and Hessian products, at any rank.

The optional extra `jax` (`pip install "deepbures[jax]"`); docs/autograd.md has examples.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from .linalg.psd import Array
from .linalg.truncation import of_rank
from .losses.base import CovarianceLoss


def covariance_loss(loss: CovarianceLoss, W: ArrayLike, rank: int | None = None) -> jax.Array:
    """L(W), which `grad` and `vjp` differentiate twice, by ∇L(W) and ∇²L(W)[V]; also under `jit` and `vmap`.

    The derivatives are the closed forms of the loss. No root and no decomposition is differentiated, so that they are
    finite for singular W Wᵀ and for equal eigenvalues as well. For ε = 0 and a singular W Wᵀ the Bures-Wasserstein loss
    has a kink. There the gradient is 2 (W − R U Vᵀ), with R W = U σ Vᵀ restricted to σ > 0.

    Parameters
    ----------
    loss
        For example `BuresWasserstein(covariance, epsilon)`; a stack of targets fits too.
    W : (..., n, d)
        Of any floating type. Everything is computed on the CPU in float64 by a callback, whatever `jax_enable_x64`
        says; values and derivatives get the type of W. Samples Y (m, n) enter by W = (Y − ȳ)ᵀ/√m: W Wᵀ is their
        covariance.
    rank
        Rank of W. For ε = 0 second derivatives need it where it is below min(n, d), see
        `CovarianceLoss.hessian_product`. Singular values beyond it that are rounding of the type of W count as zero.

    Returns
    -------
    L(W) : (...)

    Raises
    ------
    ValueError
        As `CovarianceLoss.value`, and as `CovarianceLoss.hessian_product` for second derivatives; JAX reports it inside
        an error of its own.

    Notes
    -----
    Derivatives are in reverse mode only: a Hessian product is `jax.vjp(jax.grad(f), W)[1](V)`, and the Hessian
    `jax.jacrev(jax.grad(f))(W)`. A third derivative is refused by JAX.
    """
    return _value(loss, rank, jnp.asarray(W))


@partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _value(loss: CovarianceLoss, rank: int | None, W: jax.Array) -> jax.Array:
    return _on_host(loss.value, rank, W.shape[:-2], W)


def _value_backward(loss: CovarianceLoss, rank: int | None, W: jax.Array, weight: jax.Array) -> tuple[jax.Array]:
    return (weight[..., None, None] * _gradient(loss, rank, W),)


@partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _gradient(loss: CovarianceLoss, rank: int | None, W: jax.Array) -> jax.Array:
    return _on_host(loss.gradient, rank, W.shape, W)


def _gradient_backward(loss: CovarianceLoss, rank: int | None, W: jax.Array, V: jax.Array) -> tuple[jax.Array]:
    def product(point: Array, direction: Array) -> Array:  # `vmap` may stack either
        shape = np.broadcast_shapes(point.shape, direction.shape)
        return loss.hessian_product(point, np.broadcast_to(direction, shape), rank)

    return (_on_host(product, rank, W.shape, W, V),)  # the Hessian is symmetric


_value.defvjp(lambda loss, rank, W: (_value(loss, rank, W), W), _value_backward)
_gradient.defvjp(lambda loss, rank, W: (_gradient(loss, rank, W), W), _gradient_backward)


def _on_host(
    function: Callable[..., Array], rank: int | None, shape: tuple[int, ...], W: jax.Array, *directions: jax.Array
) -> jax.Array:
    """A function of float64 arrays, W cut to its rank, as a callback with the type of W."""
    dtype = W.dtype

    def call(point: jax.Array, *others: jax.Array) -> Array:
        point_ = of_rank(np.asarray(point, dtype=np.float64), rank, float(jnp.finfo(dtype).eps))
        return np.asarray(function(point_, *(np.asarray(V, dtype=np.float64) for V in others)), dtype=dtype)

    return jax.pure_callback(call, jax.ShapeDtypeStruct(shape, dtype), W, *directions, vmap_method="expand_dims")
