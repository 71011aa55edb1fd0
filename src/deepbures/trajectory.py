"""The result of a training run."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from .psd import Array


class StopReason(StrEnum):
    """Why a run ended."""

    END_TIME = "end time"  #: reached the last requested time
    CONVERGED = "converged"  #: the excess loss fell below the requested tolerance
    STATIONARY = "stationary"  #: the gradient is zero to rounding: a critical point, not always the minimum
    STEP_BUDGET = "step budget"  #: `max_steps` steps were taken
    STEP_UNDERFLOW = "step underflow"  #: no step is small enough for the tolerance


@dataclass(frozen=True)
class Trajectory:
    """A gradient flow, sampled.

    Attributes
    ----------
    times : (m,)
        Increasing; the last is where the run ended.
    loss, excess : (m,)
        L(t), and L(t) − L* as a sum of squares (see `CovarianceLoss.excess`). Between the integrator's
        steps interpolation adds a relative error of 1e-4 at 1e-14, and of 1 % at 1e-18.
    factors : (m, n, k)
        F(t) with S(t) = F Fᵀ, in the standard basis (determined up to a rotation from the right).
    stop_reason
        Why it ended.
    steps, evaluations
        Accepted steps of the integrator and evaluations of the gradient.
    """

    times: Array
    loss: Array
    excess: Array
    factors: Array
    stop_reason: StopReason
    steps: int
    evaluations: int

    @property
    def final(self) -> Array:
        """End-to-end covariance S = W Wᵀ at the end, (n, n)."""
        return self.factors[-1] @ self.factors[-1].T
