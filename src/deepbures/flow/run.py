"""State of a gradient flow while it is integrated."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ..linalg.psd import Array
from ..linalg.roots import principal_columns
from ..linalg.thin import is_thin
from ..losses.registry import CovarianceLoss
from ..model.diagnostics import norm_over_layers
from ..model.trajectory import FlowTrajectory, StopReason
from .collocation_path import CollocationPath
from .dop853 import ExplicitPath
from .reduced_flow import FactorFlow

_EPS = float(np.finfo(float).eps)
#: Below full rank the minimum is near where no entry of S − S*, in the target's basis, exceeds this share of s*_k.
_NEAR = 0.1
#: A path is cut where the logarithm of L − L* is less than this below that of the tolerance, in at most so many tries.
_CUT_SHARE, _MAX_CUTS = 0.1, 30
_TINY = float(np.finfo(float).tiny)


class _Run:
    """One start on its way: the path so far, and why it ended."""

    def __init__(
        self,
        loss: CovarianceLoss,
        start: Array,
        depth: int,
        rank: int | None,
        times: Array | None,
        samples: int,
        end: float,
        rtol: float,
        atol: float,
        excess_tolerance: float,
        max_steps: int,
    ) -> None:
        U, s, _ = np.linalg.svd(loss.to_eigenbasis(start), full_matrices=False)
        k = max(1, int(np.sum(s > max(start.shape) * _EPS * s[0])))
        self.rank = k if rank is None else rank
        if not k <= self.rank <= min(start.shape):
            raise ValueError(
                f"rank must lie between the rank of initial, {k}, and min(n, d_0) = {min(start.shape)}, not {self.rank}"
            )
        self.loss, self.depth, self.times, self.samples, self.end = loss, depth, times, samples, end
        self.rtol, self.atol, self.excess_tolerance, self.max_steps = rtol, atol, excess_tolerance, max_steps
        self.time = 0.0
        self.Z: Array = U[:, :k] * s[:k] ** (1 / depth)
        self.flow = FactorFlow(loss, depth)
        self.evaluations = self.explicit_steps = 0
        self.paths: list[ExplicitPath | CollocationPath] = []
        self.reason: StopReason | None = None

    @property
    def n_steps(self) -> int:
        return sum(len(path.knots) - 1 for path in self.paths)

    def converged(self, F: Array) -> bool:
        return bool(self.loss.form(F.shape[-1], self.rank).excess(F) <= self.excess_tolerance)

    def cut_at_tolerance(self, path: CollocationPath) -> None:
        """End a path of collocation where L − L* reaches the tolerance: its last step may fall far below.

        So may the step before, where the cheap no of `_reason` was wrong: the gradient is that of a stage which the
        last sweep moved. What comes after the tolerance is left out; it may be rounding alone.
        """
        tolerance = self.excess_tolerance
        if tolerance <= 0:
            return

        def heights(*times: float) -> Array:
            """How far L − L* is above the tolerance, in logarithms: a straight line in an exponential tail."""
            F = path.factors(np.array(times))
            excess = self.loss.form(F.shape[-1], self.rank).excess(F)
            return np.log(np.maximum(excess, _TINY) / tolerance)

        above, below = heights(*path.knots[-2:])
        while above <= 0 and len(path.steps) > 1:
            path.drop()
            above, below = heights(*path.knots[-2:])
        low, high = path.knots[-2:]
        for bisected in range(_MAX_CUTS):
            if below >= -_CUT_SHARE or not above > 0:
                break
            share = (above + _CUT_SHARE / 2) / (above - below) if bisected % 3 < 2 else 0.5
            middle = low + share * (high - low)
            (found,) = heights(middle)
            if found > 0:
                low, above = middle, found
            else:
                high, below = middle, found
        path.cut(high)

    def begin(self) -> None:
        """Whether there is anything to do."""
        speed, size = float(np.linalg.norm(self.flow.field(self.Z))), float(np.linalg.norm(self.Z))
        self.evaluations += 1
        if not np.isfinite(speed):
            raise ValueError("initial must be small enough for its loss and gradient to be finite numbers")
        if self.converged(self.flow.factor(self.Z)):
            self.reason = StopReason.CONVERGED
        elif self.end == 0:
            self.reason = StopReason.END_TIME
        elif speed == 0 or speed * self.end <= _EPS * size:  # the end may be inf
            self.reason = StopReason.STATIONARY

    def suits_collocation(self) -> bool:
        """Whether collocation is better than the explicit method: at full rank, near the minimum, and for k ≪ n.

        On the plateaus of a lower rank it needs half to once and a half the gradients at n = 10, each in a dearer
        step. Where the target's eigenvalues span decades the explicit method is too slow: n = 256, k = 16, N = 3 and
        λ_1 = 532 λ_k take 2,722 gradients to 1e-6; the explicit method had not ended after 200 s.
        """
        n, k = self.Z.shape
        return k == n or is_thin(n, k) or bool(_is_near_minimum(self.loss, self.flow.factor(self.Z)))

    def interpolated(self, before: float, after: float) -> bool:
        """Whether samples can be asked for within the next explicit step."""
        if self.times is None:
            return self.n_steps < self.samples
        between = int(np.searchsorted(self.times, before, side="right"))
        return between < len(self.times) and bool(self.times[between] < after)

    def _spread(self, paths: Sequence[ExplicitPath | CollocationPath], knots: Array) -> Array:
        """Sample times, spread evenly over the steps, of which one of collocation counts for several.

        Explicit steps are interpolated where there are fewer than samples; else their ends are the samples.
        """
        samples = np.concatenate([[path.samples_per_step] * (len(path.knots) - 1) for path in paths])
        weights = np.append(0.0, np.cumsum(samples))
        wanted = np.linspace(0, weights[-1], self.samples)
        times = np.interp(wanted, weights, knots)
        if len(samples) >= self.samples:
            step = np.clip(np.searchsorted(weights, wanted) - 1, 0, len(samples) - 1)
            nearest = step + (wanted - weights[step] > weights[step + 1] - wanted)
            times = np.where(samples[step] > 1, times, knots[nearest])
        return np.unique(np.append(times[:-1], knots[-1]))

    def trajectory(self) -> FlowTrajectory:
        """The samples. Given times are interpolated; else they spread evenly over the steps, and are states
        themselves as soon as there is a step for each."""
        paths = [path for path in self.paths if len(path.knots) > 1]
        if not paths:  # the run ended where it began
            paths = [ExplicitPath(self.flow, 0.0, self.Z)]
        knots = np.concatenate([paths[0].knots[:1], *(path.knots[1:] for path in paths)])
        if self.times is not None:
            times = np.append(self.times[self.times < knots[-1]], knots[-1])
        else:
            times = self._spread(paths, knots)
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
            gradient_norm=norm_over_layers(directions, lengths, gradient, self.depth),
            stop_reason=self.reason,
            n_steps=self.n_steps,
            evaluations=self.evaluations + sum(path.evaluations for path in paths),
            explicit_steps=self.explicit_steps,
        )


def _is_near_minimum(loss: CovarianceLoss, F: Array) -> NDArray[np.bool_]:
    """Whether no entry of S − S* exceeds a tenth of s*_k, S = F Fᵀ of rank k; for F (..., n, k)."""
    n, k = F.shape[-2:]
    minimum = loss.minimum_spectrum(k)
    # Of S − S* beyond the first k rows and columns, semidefinite, the largest entry is on the diagonal.
    filled = np.abs(F[..., :k, :] @ F.mT - np.eye(k, n) * minimum[..., None, :]).max(axis=(-2, -1))
    rest = np.sum(F[..., k:, :] ** 2, axis=-1).max(axis=-1)
    return np.asarray(np.maximum(filled, rest) <= _NEAR * minimum[..., k - 1])
