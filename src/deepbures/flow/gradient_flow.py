"""Gradient flow of all N layers from balanced starts, dW_j/dt = −∂L^N/∂W_j, at a cost that does not grow with N.

One small matrix Z, or X = Z Zᵀ = S^{1/N}, represents all layers (`reduced_flow`). Three methods integrate it:

- exponential collocation (`collocation`) solves the stiff part exactly where the flow is nearly diagonal in the
  target's eigenbasis. It is used from starts of full rank, for k ≪ n, and near the minimum of any lower rank;
- the explicit method DOP853 (`dop853`) is used for losses without a known entrywise Jacobian, and for the plateaus of a
  lower rank in a few dimensions;
- the implicit method LSODA (`implicit`) takes over where one of the others measures that the flow is stiff along other
  directions than the coordinates, while Z has at most 500 entries.

`advance` decides which of them takes a start how far.
"""

import numpy as np
from numpy.typing import ArrayLike

from ..linalg.psd import Array, finite_array
from ..losses.base import check_loss
from ..losses.registry import CovarianceLoss
from ..model.trajectory import FlowTrajectory
from ..process.progress import Report, reporter
from .advance import advance
from .options import FlowOptions
from .run import Run


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
    progress: bool | Report = False,
) -> FlowTrajectory:
    """Integrate the gradient flow of a deep linear network from a balanced start.

    Parameters
    ----------
    loss
        Loss on the end-to-end matrix, with one target.
    initial : (n, d_0)
        End-to-end matrix W(0), taken as the product of N balanced layers. The flow does not change its rank.
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
        the explicit method: Z, X = Z Zᵀ). So the distance to the limit has a relative accuracy of about
        `rtol` all the way down an exponential tail, which a tolerance relative to |X| cannot give.
    atol
        Absolute error allowed in an entry in addition; there is always a floor of 100 eps |X|.
    excess_tolerance
        Stop once L − L* is at most this.
    max_time, max_steps
        Horizon (without `times`) and step budget, in which a step of LSODA counts a sixth.
    samples
        Number of samples without `times`.
    method
        `auto`: under a loss with a known entrywise Jacobian, exponential collocation from a start of full rank or of
        rank k ≪ n, and near the minimum of any rank; the explicit method elsewhere; and LSODA where one of these is
        limited by stiffness. `explicit`: the explicit method only.
    progress
        True prints a line to stderr every second. Or a function, which is called after every round of steps with the
        number of steps and the time that the flow has reached; an exception that it raises ends the flow.

    Returns
    -------
    FlowTrajectory

    Raises
    ------
    ValueError
        On input that is out of range, not finite, or of the wrong shape.
    """
    check_loss(loss)
    if loss.shape != ():
        raise ValueError(f"loss must have one target, not a stack of shape {loss.shape}")
    W = finite_array("initial", initial, 2).astype(float)
    if W.ndim != 2 or W.shape[0] != loss.dimension:
        raise ValueError(f"initial must be a matrix with {loss.dimension} rows, not of shape {W.shape}")
    times, report = _array_of(times), reporter("gradient flow", progress)
    options = FlowOptions(depth, times, rank, rtol, atol, excess_tolerance, max_steps, samples, method, report)
    return _flows(loss, W[None], options, max_time)[0]


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
    progress: bool | Report = False,
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
    progress
        See `gradient_flow`; with the largest number of steps, and the least time of the flows that have not ended.
    max_time : (B,)
        One horizon, or one for each start.

    Returns
    -------
    list
        The trajectory of each start, bit for bit the one that `gradient_flow` gives.

    Raises
    ------
    ValueError
        As `gradient_flow`.
    """
    check_loss(loss)
    W = finite_array("initials", initials, 3).astype(float)
    if W.ndim != 3 or W.shape[1] != loss.dimension:
        raise ValueError(f"initials must be a stack of matrices with {loss.dimension} rows, not of shape {W.shape}")
    if loss.shape not in ((), W.shape[:1]):
        raise ValueError(f"loss must have one target, or one for each of {len(W)} starts, not shape {loss.shape}")
    times, report = _array_of(times), reporter("gradient flow", progress)
    options = FlowOptions(depth, times, rank, rtol, atol, excess_tolerance, max_steps, samples, method, report)
    return _flows(loss, W, options, max_time)


def _array_of(times: ArrayLike | None) -> Array | None:
    return None if times is None else finite_array("times", times, 1).astype(float)


def _flows(loss: CovarianceLoss, W: Array, options: FlowOptions, max_time: ArrayLike | None) -> list[FlowTrajectory]:
    """The flows from the starts W (B, n, d_0), each to the last of the times or to its horizon."""
    if options.times is not None:
        max_time = float(options.times[-1])
    ends = np.asarray(np.nan if max_time is None else max_time, dtype=float)
    if ends.shape not in ((), W.shape[:1]) or (options.times is None and not (ends > 0).all()):
        raise ValueError(f"max_time must be positive where no times are given, not {max_time!r}")
    runs = [
        Run(loss.take(i), start, float(end), options)
        for i, (start, end) in enumerate(zip(W, np.broadcast_to(ends, len(W)), strict=True))
    ]
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        advance(loss, runs, options)
        return [run.trajectory() for run in runs]
