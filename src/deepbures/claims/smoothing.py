"""Statements about smoothing without bias: the Sinkhorn loss (docs/sinkhorn.md)."""

from functools import partial

import numpy as np
import pandas as pd

from .evidence import Statement, each, off
from .mutation import Mutation, shifted

_Smoothing = partial(Statement, kind="smoothing")
#: σ/√λ_k up to which the limit σ → 0 is compared.
_SMALL = 0.11


def _sinkhorn(table: pd.DataFrame) -> pd.DataFrame:
    return table[table["loss"] == "sinkhorn"]


def _unbiased(costs: pd.DataFrame) -> pd.DataFrame:
    ended = _sinkhorn(costs)
    return ended.assign(deviation=ended["bias"].where(ended["converged"] == 1))


UNBIASED = _Smoothing(
    name="smoothing without bias",
    statement="For every blur σ, k and N, descent on the Sinkhorn loss ends at the k leading eigenvalues of the target "
    "themselves",
    formula="S → Ω diag(λ_1, …, λ_k) Ωᵀ for every σ",
    test="Distance of the end from the truncated target; a descent that does not reach an excess of 1e-12 of that of "
    "W = 0 is a violation.",
    unit="‖Σ_k‖_F",
    tolerance=1e-4,
    mutations=(
        Mutation("distance", "costs", "bias", 1e-3, shifted(), "‖Σ_k‖_F", (1,)),
        Mutation("convergence", "costs", "converged", 1, shifted(), "", (-1,)),
    ),
    cases=each("smoothing", "costs", _unbiased),
)


def _biased(costs: pd.DataFrame) -> pd.DataFrame:
    smoothed = costs[(costs["loss"] == "bures-wasserstein") & (costs["parameter"] > 0) & (costs["converged"] == 1)]
    return off(smoothed, "bias", "expected_bias")


BIASED = _Smoothing(
    name="bias of ε",
    statement="For every ε < λ_k, k and N, descent on the smoothed Bures-Wasserstein loss ends at λ − ε",
    formula="‖S − Σ_k‖_F = √k ε",
    test="Distance of the end of each descent from the truncated target.",
    unit="the closed form",
    tolerance=0.01,
    mutations=(Mutation("closed form", "costs", "expected_bias", 0.02),),
    cases=each("smoothing", "costs", _biased),
)


def _bounded(curvatures: pd.DataFrame) -> pd.DataFrame:
    cases = _sinkhorn(curvatures)
    below = cases["smallest"] / cases["lower_bound"] - 1
    above = cases["largest"] / cases["upper_bound"] - 1
    return cases.assign(deviation=np.maximum(np.maximum(below, above), 0))


BOUNDED = _Smoothing(
    name="Hessian with blur",
    statement="For every σ and at every W, all eigenvalues of the Hessian of the Sinkhorn loss lie between −2 λ_1/σ² "
    "and a number that depends on nothing",
    formula="−2 λ_1/σ² ≤ λ(∇²L_σ(W)) ≤ 2 √3 (√3/(2 + √3))^{1/2} = 2.3599…",
    test="Extreme eigenvalues at W whose least singular value vanishes, N = 1; a theorem, proved in docs/sinkhorn.md.",
    unit="the bound",
    tolerance=1e-6,
    mutations=(
        Mutation("upper bound", "curvatures", "upper_bound", 0.2, signs=(-1,)),
        Mutation("lower bound", "curvatures", "lower_bound", 0.5, signs=(-1,)),
    ),
    cases=each("smoothing", "curvatures", _bounded),
)


def _limits(limits: pd.DataFrame) -> pd.DataFrame:
    small = limits[limits["relative_blur"] < _SMALL]
    apart = (small["difference"] - small["expected"]).abs()
    return small.assign(deviation=apart / small["relative_blur"] ** 4)


LIMIT = _Smoothing(
    name="limit of no blur",
    statement="As σ → 0 the Sinkhorn loss tends to the squared Bures-Wasserstein distance, with a difference of order "
    "σ² log σ below full rank, whose leading term is known, and of order σ⁴ at full rank",
    formula="L_σ − L_0 = (σ²/2) ((k − n)(1 − log σ²) + log det UᵀΣ0U − log det Σ0) + O(σ⁴) at W = U, UᵀU = I",
    test=f"Both losses at random U, σ < {_SMALL:g} √λ_k.",
    unit="(σ²/λ_k)² tr Σ0",
    tolerance=2.0,
    mutations=(Mutation("leading term", "limits", "expected", 0.01),),
    cases=each("smoothing", "limits", _limits),
)

TAIL = _Smoothing(
    name="tail at a singular target",
    statement="Where the target has an eigenvalue 0, the excess of the flow of the Sinkhorn loss finally decays like a "
    "power of t with known exponent and constant",
    formula="L(t) ~ C t^{−p}, p = 2N/(2N−1), C = ((8N − 4)/σ²)^{−p}/(2 σ²)",
    test="Constant of flows to diag(λ_1, 0), extrapolated as for the algebraic tail at ε = λ_n.",
    unit="the constant",
    tolerance=1e-4,
    mutations=(Mutation("constant", "tails", "expected", 1e-3),),
    cases=each("smoothing", "tails", lambda tails: off(tails, "constant", "expected")),
)
