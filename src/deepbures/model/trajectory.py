"""The result of a training run."""

from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

from ..linalg.psd import Array, check_square_fits


class StopReason(StrEnum):
    """Why a run ended."""

    END_TIME = "end time"  #: reached the last requested time
    CONVERGED = "converged"  #: the excess loss fell below the requested tolerance
    STATIONARY = "stationary"  #: the gradient is zero to rounding: a critical point, not always the minimum
    DIVERGED = "diverged"  #: the end-to-end matrix grew to 1e8 times the size of its start and its target
    STEP_BUDGET = "step budget"  #: all allowed steps were taken
    STEP_UNDERFLOW = "step underflow"  #: no step is small enough for the tolerance

    @property
    def remedy(self) -> str:
        """What to change if the run should not have ended for this reason; empty where nothing is to be changed."""
        return _REMEDIES.get(self, "")


#: At ε ≥ λ_j for a j ≤ k the minimum is approached algebraically, not exponentially (paper.md section 4).
_SLOW = " (slow, as a power of time, where epsilon is at least one of the k largest eigenvalues)"
_REMEDIES = {
    StopReason.END_TIME: "raise max_time to see it converge" + _SLOW,
    StopReason.STATIONARY: "it stays at a critical point: draw another start",
    StopReason.DIVERGED: "take a smaller step size",
    StopReason.STEP_BUDGET: "raise max_steps" + _SLOW,
    StopReason.STEP_UNDERFLOW: "raise rtol, or excess_tolerance",
}


@dataclass(frozen=True)
class Trajectory:
    """A training run, sampled at m times.

    Attributes
    ----------
    times : (m,)
        Increasing times t; for descent the number of steps times the step size.
    loss, excess : (m, ...)
        L(t), and L(t) − L* as a sum of squares (see `CovarianceLoss.excess`).
    factors : (m, ..., n, k)
        F(t) with S(t) = F Fᵀ, in the standard basis (determined up to a rotation from the right).
    stop_reason
        Why the run ended; for a stack of runs an array of reasons.
    """

    times: Array
    loss: Array
    excess: Array
    factors: Array
    stop_reason: StopReason | NDArray[np.object_]


@dataclass(frozen=True)
class FlowTrajectory(Trajectory):
    """A gradient flow. Its last sample is the state at which the flow ended.

    The columns of `factors` are orthogonal, their lengths the singular values of W(t), largest first.

    Attributes
    ----------
    gradient_norm : (m,)
        (Σ_j ‖∂L^N/∂W_j‖²_F)^{1/2} of the balanced network; L falls at the rate of its square.
    n_steps, evaluations
        Accepted steps of the integrators, and evaluations of the gradient and of its Jacobian.
    explicit_steps, implicit_steps
        Number of those steps that the explicit and the implicit method took; exponential collocation took the others.
    """

    gradient_norm: Array
    n_steps: int
    evaluations: int
    explicit_steps: int
    implicit_steps: int

    @property
    def final(self) -> Array:
        """End-to-end covariance S = W Wᵀ at the end, (n, n); its factor is `factors[-1]`."""
        check_square_fits("the final covariance", self.factors.shape[-2])
        return self.factors[-1] @ self.factors[-1].T


@dataclass(frozen=True)
class DescentTrajectory(Trajectory):
    """A run of gradient descent on all layers, or a stack of runs (leading axes `...`).

    A row describes the weights before its step; the last row, at `n_steps`, the final weights. In a stack, a run has
    NaN in the rows after its `last_step` (from this row on if it diverged), and in rows that exist because another run
    converged at that step. A single run has no such rows.

    Attributes
    ----------
    steps : (m,)
        Recorded steps, increasing.
    gradient_norm : (m, ...)
        (Σ_j ‖∂L^N/∂W_j‖²_F)^{1/2}.
    balancedness : (m, ...)
        max_j ‖W_{j+1}ᵀ W_{j+1} − W_j W_jᵀ‖_F.
    layers
        W_1, …, W_N at the end, (..., d_j, d_{j-1}); for a run that diverged, as they were at that point.
    last_step : (...)
        Number of steps after which the run ended.
    """

    steps: NDArray[np.int64]
    gradient_norm: Array
    balancedness: Array
    layers: list[Array]
    last_step: NDArray[np.int64]

    @property
    def final(self) -> Array:
        """End-to-end covariance S = W Wᵀ at the end, (..., n, n); a factor of it is in the last of `factors`."""
        check_square_fits("the final covariance", self.layers[-1].shape[-2])
        W = self.layers[0]
        for layer in self.layers[1:]:
            W = layer @ W
        return W @ W.mT
