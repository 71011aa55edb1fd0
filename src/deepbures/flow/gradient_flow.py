"""Gradient flow of all N layers from balanced starts, at a cost that does not grow with N.

The layers are carried by one small matrix (see `reduced_flow`), which two methods integrate. Exponential collocation
takes the stiffness out where the flow is nearly diagonal in the target's basis: it is the method for starts of full
rank, for k ≪ n, and near the minimum of any lower rank. The explicit method (DOP853) takes any loss, and the plateaus
of a lower rank in a few dimensions. They hand over in `_advance`; `_Run.suits_collocation` is the rule.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from ..linalg.psd import finite_array
from ..losses.registry import CovarianceLoss
from ..model.network import check_depth
from ..model.trajectory import FlowTrajectory
from .advance import _advance
from .run import _Run

#: What `method` may be.
METHODS = ("auto", "explicit")


def gradient_flow(
    loss: CovarianceLoss,
    initial: ArrayLike,
    depth: int,
    times: ArrayLike | None = None,
    *,
    rank: int | None = None,
    rtol: float = 1e-7,
    atol: float = 0.0,
    excess_tolerance: float = 0.0,
    max_time: float | None = None,
    max_steps: int = 20_000,
    samples: int = 100,
    method: str = "auto",
) -> FlowTrajectory:
    """Integrate the gradient flow of a deep linear network from a balanced start.

    Parameters
    ----------
    loss
        Loss on the end-to-end matrix, with one target.
    initial : (n, d_0)
        End-to-end matrix W(0), taken as the product of N balanced layers. Its rank is kept by the flow.
    depth
        N ≥ 1.
    times : (m,), optional
        Increasing times ≥ 0 at which to sample; the flow runs to the last one. If it stops earlier, the
        samples end there. Default: `samples` times from 0 to where the flow stopped, spread evenly over
        the integrator's steps, so that they are dense where the solution changes fast.
    rank
        k ≤ min(n, d_0), the bottleneck that L − L* refers to; default the numerical rank of W(0).
    rtol
        Error allowed in a step, relative to the distance |X(t + h) − X(t)| of the step itself, X = S^{1/N} (in
        the explicit method: Z, X = Z Zᵀ). So the distance to the limit keeps a relative accuracy of about
        `rtol` all the way down an exponential tail, which a tolerance relative to |X| cannot do.
    atol
        Absolute error allowed in an entry on top; there is always a floor of 100 eps |X|.
    excess_tolerance
        Stop once L − L* is at most this.
    max_time, max_steps
        Horizon (without `times`) and step budget.
    samples
        Number of samples without `times`.
    method
        `auto`: under a loss whose Jacobian is known, exponential collocation from a start of full rank or of rank
        k ≪ n, and near the minimum of any rank; the explicit method elsewhere. `explicit`: that alone.

    Returns
    -------
    FlowTrajectory

    Raises
    ------
    ValueError
        On input that is out of range, not finite, or of the wrong shape.
    """
    if loss.shape != ():
        raise ValueError(f"loss must have one target, not a stack of shape {loss.shape}")
    W = finite_array("initial", initial, 2).astype(float)
    if W.ndim != 2 or W.shape[0] != loss.dimension:
        raise ValueError(f"initial must be a matrix with {loss.dimension} rows, not of shape {W.shape}")
    return gradient_flows(
        loss,
        W[None],
        depth,
        times,
        rank=rank,
        rtol=rtol,
        atol=atol,
        excess_tolerance=excess_tolerance,
        max_time=max_time,
        max_steps=max_steps,
        samples=samples,
        method=method,
    )[0]


def gradient_flows(
    loss: CovarianceLoss,
    initials: ArrayLike,
    depth: int,
    times: ArrayLike | None = None,
    *,
    rank: int | None = None,
    rtol: float = 1e-7,
    atol: float = 0.0,
    excess_tolerance: float = 0.0,
    max_time: ArrayLike | None = None,
    max_steps: int = 20_000,
    samples: int = 100,
    method: str = "auto",
) -> list[FlowTrajectory]:
    """`gradient_flow` from a stack of starts, each with its own steps and end, at less than the sum of the costs.

    Parameters
    ----------
    loss
        Loss with one target for all starts, or a stack of as many targets.
    initials : (B, n, d_0)
        Starts.
    depth, times, rank, rtol, atol, excess_tolerance, max_steps, samples, method
        See `gradient_flow`; the same for all starts.
    max_time : (B,)
        One horizon, or one for each start.

    Returns
    -------
    list
        The trajectory of each start, bit for bit what `gradient_flow` gives.

    Raises
    ------
    ValueError
        As `gradient_flow`.
    """
    check_depth(depth)
    W = finite_array("initials", initials, 3).astype(float)
    if W.ndim != 3 or W.shape[1] != loss.dimension:
        raise ValueError(f"initials must be a stack of matrices with {loss.dimension} rows, not of shape {W.shape}")
    if loss.shape not in ((), W.shape[:1]):
        raise ValueError(f"loss must have one target, or one for each of {len(W)} starts, not shape {loss.shape}")
    if not 0 < rtol < 1 or not atol >= 0:
        raise ValueError(f"rtol must be between 0 and 1 and atol not negative, not {rtol} and {atol}")
    _checked_ends(excess_tolerance, max_steps, samples)
    if method not in METHODS:
        raise ValueError(f"method must be one of {', '.join(METHODS)}, not {method!r}")
    if times is not None:
        times = finite_array("times", times, 1).astype(float)
        if times.ndim != 1 or times[0] < 0 or np.any(np.diff(times) <= 0):
            raise ValueError("times must be increasing and not negative")
        max_time = float(times[-1])
    ends = np.asarray(np.nan if max_time is None else max_time, dtype=float)
    if ends.shape not in ((), W.shape[:1]) or (times is None and not (ends > 0).all()):
        raise ValueError(f"max_time must be positive where no times are given, not {max_time!r}")
    runs = [
        _Run(loss.take(i), start, depth, rank, times, samples, float(end), rtol, atol, excess_tolerance, max_steps)
        for i, (start, end) in enumerate(zip(W, np.broadcast_to(ends, len(W)), strict=True))
    ]
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        _advance(loss, runs, loss.has_linear_part and method == "auto")
        return [run.trajectory() for run in runs]


def _checked_ends(excess_tolerance: float, max_steps: int, samples: int) -> None:
    """Refuse ends of a flow that it could never meet, or would meet by accident."""
    if not excess_tolerance >= 0:
        raise ValueError(f"excess_tolerance must not be negative, not {excess_tolerance}")
    if not (max_steps >= 1 and samples >= 2 and float(max_steps).is_integer() and float(samples).is_integer()):
        raise ValueError(
            f"max_steps must be an integer of at least 1 and samples one of at least 2, not {max_steps} and {samples}"
        )
