"""Gradient descent on all layers at once, for a stack of runs at a time.

    W_j ← W_j − η ∂L^N/∂W_j,    ∂L^N/∂W_j = (W_N ⋯ W_{j+1})ᵀ ∇L(W) (W_{j−1} ⋯ W_1)ᵀ,    j = 1..N,

all from the same weights (paper.md section 5). A step costs the gradient on the end-to-end matrix (one decomposition)
and 3 (N − 1) products of layers. The top layer is transformed to the eigenbasis of the target once; the others do not
depend on the basis of the data.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..linalg.psd import Array
from ..linalg.root_path import RootPath
from ..linalg.stack import take
from ..losses.registry import CovarianceLoss
from ..model.network import DeepLinearNetwork, balancedness, bottleneck, layer_gradients, prefix_products
from ..model.trajectory import DescentTrajectory, StopReason
from ..process.progress import Progress, Report, reporter
from .common import check_ends, checked_network, in_row_space, short, with_columns

#: Number of recorded steps by default.
SAMPLES = 100
#: Convergence is tested at recorded steps, and every so many steps: below full rank it takes more decompositions.
CHECK_INTERVAL = 10
#: A run has diverged when an entry of W is so many times as large as the start and √λ_1.
DIVERGENCE = 1e8


def gradient_descent(
    loss: CovarianceLoss,
    layers: DeepLinearNetwork | Sequence[ArrayLike],
    step_size: ArrayLike,
    n_steps: int,
    record_steps: ArrayLike | None = None,
    *,
    excess_tolerance: float = 0.0,
    progress: bool | Report = False,
) -> DescentTrajectory:
    """Train a deep linear network by full-batch gradient descent with a constant step size.

    Parameters
    ----------
    loss
        Loss on the end-to-end matrix; one target, or a stack of them of shape (...).
    layers : sequence of (..., d_j, d_{j-1})
        W_1, …, W_N at the start, layer 1 first, of any widths that chain; d_N = n. Balanced or not.
        Leading axes stack runs. float32 layers stay float32.
    step_size : (...)
        η > 0: one number, or one for each run of the stack.
    n_steps
        Number of steps, unless a run ends before.
    record_steps : (m,), optional
        Increasing steps between 0 and n_steps at which to record; default about 100, spread evenly from 0
        to n_steps. The step at which a run converges is recorded too.
    excess_tolerance
        A run ends once L − L* is at most this, L* the minimum over rank ≤ k = min_j d_j. 0: never.
    progress
        True prints a line to stderr every second. Or a function, which is called every ten steps with the number of
        steps and the least time of the runs that have not ended; an exception that it raises ends the descent.

    Returns
    -------
    DescentTrajectory
        With `stop_reason` CONVERGED; DIVERGED, when an entry of W is not finite, exceeds 1e8 times the
        larger of √λ_1 and the largest entry of the start, or is so large that the loss may overflow; or
        STEP_BUDGET.

    Raises
    ------
    ValueError
        On input that is out of range, not finite, or of shapes that do not fit.
    """
    check_ends(n_steps, excess_tolerance)
    step, steps = _checked_step_size(step_size), _checked_steps(n_steps, record_steps)
    network = checked_network(loss, layers)
    shapes = [*(W.shape[:-2] for W in network.layers), step.shape, loss.shape]
    try:
        batch = np.broadcast_shapes(*shapes)
    except ValueError:
        raise ValueError(
            f"layers, step_size and loss must stack alike, not as {', '.join(map(str, dict.fromkeys(shapes)))}"
        ) from None
    if loss.shape not in ((), batch):
        raise ValueError(f"loss must have one target or one for each run, {batch}, not a stack of shape {loss.shape}")
    descent = _Descent(loss, network.layers, step, batch)
    descent.run(n_steps, steps, excess_tolerance, reporter("gradient descent", progress))
    return descent.trajectory(step)


def _checked_step_size(step_size: ArrayLike) -> Array:
    step = np.asarray(step_size)
    if step.dtype.kind not in "fiu" or not step.size or not (np.isfinite(step) & (step > 0)).all():
        raise ValueError(f"step_size must be a finite number > 0, not {short(step_size)}")
    return step.astype(float)


def _checked_steps(n_steps: int, record_steps: ArrayLike | None) -> NDArray[np.int64]:
    if record_steps is None:
        return np.unique(np.linspace(0, n_steps, SAMPLES + 1).round().astype(np.int64))
    steps = np.asarray(record_steps)
    if steps.ndim != 1 or steps.dtype.kind not in "iu" or (steps.size and (steps[0] < 0 or steps[-1] > n_steps)):
        raise ValueError(f"record_steps must be integers between 0 and n_steps = {n_steps}, not {short(record_steps)}")
    steps = steps.astype(np.int64)
    if np.any(np.diff(steps) <= 0):
        raise ValueError(f"record_steps must be increasing, not {short(record_steps)}")
    return steps


@dataclass(frozen=True)
class _Members:
    """The active runs of a stack: place in it (B,), η (B, 1, 1), and the largest entry of W before divergence (B,)."""

    place: NDArray[np.intp]
    step: Array
    limit: Array


class _Descent:
    """A stack of runs, flattened to one axis, from which those that have ended are removed."""

    def __init__(self, loss: CovarianceLoss, layers: Sequence[Array], step: Array, batch: tuple[int, ...]) -> None:
        self.batch, self.size = batch, int(np.prod(batch, dtype=int))
        self.dtype, self.rank = np.result_type(*layers), bottleneck(layers)
        top = loss.to_eigenbasis(layers[-1].astype(np.result_type(layers[-1], loss.eigenvalues), copy=False))
        self.layers = [self._flat(W).astype(self.dtype) for W in [*layers[:-1], top]]
        self.final = [np.full_like(W, np.nan) for W in self.layers]
        self.layers, self.frame = in_row_space(self.layers)
        with np.errstate(over="ignore", under="ignore"):
            eta = np.broadcast_to(step, batch).reshape(-1, 1, 1).astype(self.dtype)
        if not (np.isfinite(eta) & (eta > 0)).all():
            raise ValueError(f"step_size must be a positive {self.dtype.name} number, as the layers, not {short(step)}")
        with np.errstate(over="ignore", invalid="ignore"):
            start = np.abs(prefix_products(self.layers)[-1]).max(axis=(-2, -1))
        largest = float(np.finfo(self.dtype).max) ** 0.25  # the loss may contain the fourth power
        if not (start <= largest).all():
            raise ValueError(f"layers must have a product with entries of at most {largest:.0e}, not {start.max():.3g}")
        limit = np.minimum(DIVERGENCE * np.maximum(start, np.sqrt(loss.eigenvalues[..., 0]).ravel()), largest)
        self.roots = RootPath()
        self._train_on(loss.take(np.arange(self.size)))
        self.active = _Members(np.arange(self.size), eta, limit)
        self.steps: list[int] = []
        self.rows: list[tuple[Array, ...]] = []  # loss, excess, factors, gradient_norm and balancedness at each step
        self.stop_reason = np.full(self.size, StopReason.STEP_BUDGET, dtype=object)
        self.last_step = np.zeros(self.size, dtype=np.int64)

    def _train_on(self, loss: CovarianceLoss) -> None:
        """The loss of the active members and its minimum, in a form that follows their roots from step to step."""
        self.loss, self.form = loss, loss.form(self.layers[0].shape[-1], self.rank).along(self.roots)
        self.minimum = np.broadcast_to(loss.minimum_value(self.rank), self.layers[0].shape[:1])

    def _flat(self, stack: Array) -> Array:
        return np.broadcast_to(stack, (*self.batch, *stack.shape[-2:])).reshape(self.size, *stack.shape[-2:])

    @np.errstate(over="ignore", invalid="ignore")
    def run(
        self, n_steps: int, record_steps: NDArray[np.int64], excess_tolerance: float, report: Report | None = None
    ) -> None:
        """Take the steps, and end the runs that converge or diverge before."""
        recorded, progress = set(record_steps.tolist()), Progress("gradient descent", n_steps)
        for step in range(n_steps + 1):
            prefixes = prefix_products(self.layers)
            diverged = ~(np.abs(prefixes[-1]).max(axis=(-2, -1)) <= self.active.limit)  # NaN too
            if diverged.any():
                self._end(step, diverged, StopReason.DIVERGED)
                prefixes = [product[~diverged] for product in prefixes]
            if not self.active.place.size:
                return
            check = step % CHECK_INTERVAL == 0 or step == n_steps
            if check:
                progress.update(step)
                if report:
                    report(step, step * float(self.active.step.min()))
            gradient, excess = self._evaluate(prefixes[-1], step in recorded or bool(check and excess_tolerance))
            if excess is not None:
                converged = (excess <= excess_tolerance) & (excess_tolerance > 0)
                self._record(step, converged | (step in recorded), prefixes, excess, gradient)
                if converged.any():
                    self._end(step, converged, StopReason.CONVERGED)
                    gradient, prefixes = gradient[~converged], [product[~converged] for product in prefixes]
            if step < n_steps:  # η enters once, and not in each layer
                scaled = (self.active.step * gradient).astype(self.dtype, copy=False)
                changes = layer_gradients(self.layers, prefixes, scaled)  # the last ones are freed after this
                for layer, change in zip(self.layers, changes, strict=True):
                    layer -= change
        if self.active.place.size:
            self._end(n_steps, np.ones(self.active.place.size, dtype=bool), StopReason.STEP_BUDGET)

    def _evaluate(self, W: Array, with_excess: bool) -> tuple[Array, Array | None]:
        """∇L at W (B, n, d_0), and L − L* if it is asked for."""
        if not with_excess:
            return self.form.gradient(W), None
        if not (self.loss.has_kink and W.shape[-1] > self.rank):
            return self.form.gradient_and_excess(W)
        # Where there is a kink, the excess would count what rounding errors add to the rank.
        F = with_columns(W, self.rank)
        return self.form.gradient(W), self.loss.form(F.shape[-1], self.rank).excess(F)

    def _record(
        self, step: int, runs: NDArray[np.bool_], prefixes: list[Array], excess: Array, gradient: Array
    ) -> None:
        """Add a row with the values of some runs, NaN for the others, on which they do not depend."""
        if not runs.any():
            return
        loss, place = self.loss if runs.all() else self.loss.take(runs), self.active.place[runs]
        layers, products = ([matrix[runs] for matrix in stack] for stack in (self.layers, prefixes))
        parts = layer_gradients(layers, products, gradient[runs].astype(self.dtype, copy=False))
        norm = np.sqrt(sum(np.sum(part.astype(float) ** 2, axis=(-2, -1)) for part in parts))
        factors, balance = loss.from_eigenbasis(with_columns(products[-1], self.rank)), balancedness(layers)
        row = []
        for values in (self.minimum[runs] + excess[runs], excess[runs], factors, norm, balance):
            column = np.full((self.size, *values.shape[1:]), np.nan)
            column[place] = values
            row.append(column.reshape((*self.batch, *values.shape[1:])))
        self.steps.append(step)
        self.rows.append(tuple(row))

    def _end(self, step: int, ended: NDArray[np.bool_], reason: StopReason) -> None:
        """Store the layers of the runs that end after `step` steps, and continue with the others."""
        gone = self.active.place[ended]
        self.stop_reason[gone], self.last_step[gone] = reason, step
        *lower, top = [layer[ended] for layer in self.layers]
        if self.frame is not None:
            lower[0] = lower[0] @ self.frame[gone]
        for final, layer in zip(self.final, [*lower, self.loss.take(ended).from_eigenbasis(top)], strict=True):
            final[gone] = layer
        self.layers = [layer[~ended] for layer in self.layers]
        self.active = take(self.active, ~ended)
        self.roots.keep(~ended)
        self._train_on(self.loss.take(~ended))

    def trajectory(self, step_size: Array) -> DescentTrajectory:
        """The rows as arrays (m, ...), and how the runs ended."""
        columns = [np.array(values) for values in zip(*self.rows, strict=True)] or [np.empty((0, *self.batch))] * 5
        loss, excess, factors, gradient_norm, balance = columns
        steps = np.array(self.steps, dtype=np.int64)
        return DescentTrajectory(
            times=np.multiply.outer(steps, step_size),
            loss=loss,
            excess=excess,
            factors=factors,
            stop_reason=self.stop_reason.reshape(self.batch)[()],
            steps=steps,
            gradient_norm=gradient_norm,
            balancedness=balance,
            layers=[layer.reshape(*self.batch, *layer.shape[1:]) for layer in self.final],
            last_step=self.last_step.reshape(self.batch),
        )
