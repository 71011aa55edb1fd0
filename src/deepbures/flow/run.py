"""One start of a gradient flow: where it is, the path so far, why it stopped, and the samples of its path."""

from collections.abc import Sequence

import numpy as np

from ..linalg.psd import Array
from ..linalg.roots import principal_columns
from ..losses.registry import CovarianceLoss
from ..model.diagnostics import norm_over_layers
from ..model.trajectory import FlowTrajectory, StopReason
from .collocation_path import CollocationPath
from .dop853 import ExplicitPath, norm_without_underflow
from .options import FlowOptions
from .reduced_flow import FactorFlow

_EPS = float(np.finfo(float).eps)
#: The first `nearness`: below full rank collocation is better from there.
_NEAR = 0.1
#: What a step of LSODA counts in the budget of steps.
_IMPLICIT_STEP = 1 / 6


class Run:
    """The flow from one start W(0) = U diag(s) Vᵀ, carried by Z with S = Z (Zᵀ Z)^{N−1} Zᵀ in the target's eigenbasis.

    Parameters
    ----------
    loss
        With one target.
    start : (n, d_0)
        W(0).
    end
        Last time.
    options
        Options of the flow.

    Attributes
    ----------
    rank
        k of L*, the minimum over rank ≤ k.
    time, Z
        Time and state (n, r) that the integrators have reached; r is the numerical rank of W(0).
    paths
        The pieces of the path, one for each use of an integrator.
    evaluations, explicit_steps, implicit_steps
        Gradients and Jacobians that the integrators took, and steps of the explicit and of the implicit method.
    methods
        Names of the methods that may still be chosen (see `advance`).
    stiff
        Whether the explicit method was limited by stability, or collocation made no progress.
    nearness
        The minimum is near where no entry of S − S*, in the target's basis, exceeds this fraction of s*_k.
    reason
        Why the run stopped; None while it is active.

    Raises
    ------
    ValueError
        On a rank below that of the start or above min(n, d_0).
    """

    def __init__(self, loss: CovarianceLoss, start: Array, end: float, options: FlowOptions) -> None:
        U, s, _ = np.linalg.svd(loss.to_eigenbasis(start), full_matrices=False)
        k = max(1, int(np.sum(s > max(start.shape) * _EPS * s[0])))
        self.rank = k if options.rank is None else options.rank
        if not k <= self.rank <= min(start.shape):
            raise ValueError(
                f"rank must lie between the rank of initial, {k}, and min(n, d_0) = {min(start.shape)}, not {self.rank}"
            )
        self.loss, self.end, self.options = loss, end, options
        self.flow = FactorFlow(loss, options.depth)
        self.time, self.Z = 0.0, U[:, :k] * s[:k] ** (1 / options.depth)
        self.paths: list[ExplicitPath | CollocationPath] = []
        self.evaluations = self.explicit_steps = self.implicit_steps = 0
        self.methods: set[str] = set()
        self.stiff, self.nearness = False, _NEAR
        self.reason: StopReason | None = None

    @property
    def n_steps(self) -> int:
        """Steps of all methods so far."""
        return sum(len(path.knots) - 1 for path in self.paths)

    @property
    def spent(self) -> float:
        """Steps of the budget that are spent: a step of LSODA takes about two gradients, one of the others twelve."""
        return self.n_steps - (1 - _IMPLICIT_STEP) * self.implicit_steps

    def has_converged(self, F: Array) -> bool:
        """Whether L − L* at F is at most the tolerance."""
        return bool(self.loss.form(F.shape[-1], self.rank).excess(F) <= self.options.excess_tolerance)

    def begin(self) -> None:
        """Set the stop reason if the run is already finished at its start."""
        speed, size = float(norm_without_underflow(self.flow.field(self.Z))), float(np.linalg.norm(self.Z))
        self.evaluations += 1
        if not np.isfinite(speed):
            raise ValueError("initial must be small enough for its loss and gradient to be finite numbers")
        if self.has_converged(self.flow.factor(self.Z)):
            self.reason = StopReason.CONVERGED
        elif self.end == 0:
            self.reason = StopReason.END_TIME
        elif speed == 0 or speed * self.end <= _EPS * size:  # the end may be inf
            self.reason = StopReason.STATIONARY

    def needs_interpolation(self, before: float, after: float) -> bool:
        """Whether a sample may lie within the explicit step that has just been made."""
        times = self.options.times
        if times is None:
            return self.n_steps < self.options.samples
        between = int(np.searchsorted(times, before, side="right"))
        return between < len(times) and bool(times[between] < after)

    def trajectory(self) -> FlowTrajectory:
        """The samples at the given times, up to the end of the path; else at times spread over its steps."""
        paths = [path for path in self.paths if len(path.knots) > 1]
        if not paths:  # the run stopped at its start
            paths = [ExplicitPath(self.flow, 0.0, self.Z)]
        knots = np.concatenate([paths[0].knots[:1], *(path.knots[1:] for path in paths)])
        if self.options.times is not None:
            times = np.append(self.options.times[self.options.times < knots[-1]], knots[-1])
        else:
            times = _spread(paths, knots, self.options.samples)
        factors, done = [], 0
        for path in paths:
            upto = int(np.searchsorted(times, path.knots[-1], side="right"))
            if upto > done:
                factors.append(path.factors(times[done:upto]))
            done = upto
        F, directions, lengths = principal_columns(np.concatenate(factors))
        gradient, excess = self.loss.form(F.shape[-1], self.rank).near_diagonal().gradient_and_excess(F)
        assert self.reason is not None
        return FlowTrajectory(
            times=times,
            loss=self.loss.minimum_value(self.rank) + excess,
            excess=excess,
            factors=self.loss.from_eigenbasis(F),
            gradient_norm=norm_over_layers(directions, lengths, gradient, self.options.depth),
            stop_reason=self.reason,
            n_steps=self.n_steps,
            evaluations=self.evaluations + sum(path.evaluations for path in paths),
            explicit_steps=self.explicit_steps,
            implicit_steps=self.implicit_steps,
        )


def _spread(paths: Sequence[ExplicitPath | CollocationPath], knots: Array, count: int) -> Array:
    """At most `count` times, spread evenly over the steps; a step of collocation counts as several.

    Explicit steps are interpolated only where there are fewer than `count`; else the samples are ends of steps.
    """
    samples = np.concatenate([[path.samples_per_step] * (len(path.knots) - 1) for path in paths])
    weights = np.append(0.0, np.cumsum(samples))
    wanted = np.linspace(0, weights[-1], count)
    times = np.interp(wanted, weights, knots)
    if len(samples) >= count:
        step = np.clip(np.searchsorted(weights, wanted) - 1, 0, len(samples) - 1)
        nearest = step + (wanted - weights[step] > weights[step + 1] - wanted)
        times = np.where(samples[step] > 1, times, knots[nearest])
    return np.unique(np.append(times[:-1], knots[-1]))
