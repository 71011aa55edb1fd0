"""Gradient descent on all layers at once, for a stack of runs at a time.

    W_j ← W_j − η ∂L^N/∂W_j,    j = 1..N, from the same weights (paper.md section 5).

A step costs the gradient on the end-to-end matrix (one decomposition) and 3 (N − 1) products of layers.
Layers are kept in the eigenbasis of the target: only the top layer is turned into it, once.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..linalg.psd import Array
from ..linalg.root_path import RootPath
from ..linalg.thin import is_thin
from ..losses.registry import CovarianceLoss
from ..model.network import DeepLinearNetwork, balancedness, layer_gradients, prefix_products
from ..model.trajectory import DescentTrajectory, StopReason
from ..process.progress import Progress

#: Recorded steps where none are given.
SAMPLES = 100
#: Convergence is looked for at recorded steps, and every this many steps: below full rank it costs decompositions more.
CHECK_INTERVAL = 10
#: A run has diverged when an entry of W is this many times as large as the start and √λ_1.
DIVERGENCE = 1e8


def gradient_descent(
    loss: CovarianceLoss,
    layers: DeepLinearNetwork | Sequence[ArrayLike],
    step_size: ArrayLike,
    n_steps: int,
    record_steps: ArrayLike | None = None,
    *,
    excess_tolerance: float = 0.0,
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
    network = layers if isinstance(layers, DeepLinearNetwork) else DeepLinearNetwork(layers)
    step = _checked_step_size(step_size)
    steps = _checked_steps(n_steps, record_steps)
    if not (isinstance(excess_tolerance, (int, float, np.number)) and 0 <= excess_tolerance < np.inf):
        raise ValueError(f"excess_tolerance must be a finite number ≥ 0, not {_short(excess_tolerance)}")
    if network.layers[-1].shape[-2] != loss.dimension:
        raise ValueError(
            f"the last of the layers must have {loss.dimension} rows, as many as the covariance, "
            f"not {network.layers[-1].shape[-2]}"
        )
    shapes = [*(W.shape[:-2] for W in network.layers), step.shape, loss.shape]
    try:
        batch = np.broadcast_shapes(*shapes)
    except ValueError:
        raise ValueError(
            f"layers, step_size and loss must stack alike, not as {', '.join(map(str, dict.fromkeys(shapes)))}"
        ) from None
    if loss.shape not in ((), batch):
        raise ValueError(f"loss must have one target or one for each run, {batch}, not a stack of shape {loss.shape}")
    run = _Run(loss, network.layers, step, batch)
    run.descend(n_steps, steps, excess_tolerance)
    return run.trajectory(step)


def _checked_step_size(step_size: ArrayLike) -> Array:
    step = np.asarray(step_size)
    if step.dtype.kind not in "fiu" or not step.size or not (np.isfinite(step) & (step > 0)).all():
        raise ValueError(f"step_size must be a finite number > 0, not {_short(step_size)}")
    return step.astype(float)


def _checked_steps(n_steps: int, record_steps: ArrayLike | None) -> NDArray[np.int64]:
    if isinstance(n_steps, bool) or not (isinstance(n_steps, (int, np.integer)) and n_steps >= 0):
        raise ValueError(f"n_steps must be an integer ≥ 0, not {n_steps!r}")
    if record_steps is None:
        return np.unique(np.linspace(0, n_steps, SAMPLES + 1).round().astype(np.int64))
    steps = np.asarray(record_steps)
    if steps.ndim != 1 or steps.dtype.kind not in "iu" or (steps.size and (steps[0] < 0 or steps[-1] > n_steps)):
        raise ValueError(f"record_steps must be integers between 0 and n_steps = {n_steps}, not {_short(record_steps)}")
    steps = steps.astype(np.int64)
    if np.any(np.diff(steps) <= 0):
        raise ValueError(f"record_steps must be increasing, not {_short(record_steps)}")
    return steps


def _short(value: object) -> str:
    """The value on one line, not too long."""
    text = " ".join(repr(value).split())
    return text if len(text) <= 60 else text[:57] + "..."


class _Run:
    """A stack of runs, flattened to one axis; those that have ended are taken out of it."""

    def __init__(self, loss: CovarianceLoss, layers: Sequence[Array], step: Array, batch: tuple[int, ...]) -> None:
        self.batch, self.size = batch, int(np.prod(batch, dtype=int))
        self.dtype = np.result_type(*layers)
        self.rank = min(min(W.shape[-2:]) for W in layers)
        top = loss.to_eigenbasis(layers[-1].astype(np.result_type(layers[-1], loss.eigenvalues), copy=False))
        self.layers = [self._flat(W).astype(self.dtype) for W in [*layers[:-1], top]]
        self.final = [np.full_like(W, np.nan) for W in self.layers]
        self.frame: Array | None = None
        d_1, d_0 = layers[0].shape[-2:]
        if len(layers) > 1 and is_thin(d_0, d_1):
            # Descent stays in the row space of W_1 = Rᵀ Qᵀ: the d_1 × d_1 matrix Rᵀ is trained in its place.
            Q, R = np.linalg.qr(self.layers[0].mT)
            self.layers[0], self.frame = R.mT.copy(), Q.mT
        with np.errstate(over="ignore", under="ignore"):
            self.step = np.broadcast_to(step, batch).reshape(-1, 1, 1).astype(self.dtype)
        if not (np.isfinite(self.step) & (self.step > 0)).all():
            raise ValueError(
                f"step_size must be a positive {self.dtype.name} number, as the layers, not {_short(step)}"
            )
        self.loss, self.roots = loss.take(np.arange(self.size)), RootPath()
        self.form = self.loss.form(self.layers[0].shape[-1], self.rank).along(self.roots)
        with np.errstate(over="ignore", invalid="ignore"):
            start = np.abs(prefix_products(self.layers)[-1]).max(axis=(-2, -1))
        largest = float(np.finfo(self.dtype).max) ** 0.25  # the loss squares W twice
        if not (start <= largest).all():
            raise ValueError(f"layers must have a product with entries of at most {largest:.0e}, not {start.max():.3g}")
        self.limit = np.minimum(DIVERGENCE * np.maximum(start, np.sqrt(loss.eigenvalues[..., 0]).ravel()), largest)
        self.members = np.arange(self.size)  # places in the stack of the runs that go on
        self.rows: list[tuple[int, NDArray[np.int64], dict[str, Array]]] = []
        self.stop_reason = np.full(self.size, StopReason.STEP_BUDGET, dtype=object)
        self.last_step = np.zeros(self.size, dtype=np.int64)

    def _flat(self, stack: Array) -> Array:
        return np.broadcast_to(stack, (*self.batch, *stack.shape[-2:])).reshape(self.size, *stack.shape[-2:])

    def descend(self, n_steps: int, record_steps: NDArray[np.int64], excess_tolerance: float) -> None:
        """All steps."""
        recorded, progress = set(record_steps.tolist()), Progress("gradient descent", n_steps)
        with np.errstate(over="ignore", invalid="ignore"):  # of runs that diverge
            for step in range(n_steps + 1):
                prefixes = prefix_products(self.layers)
                diverged = ~(np.abs(prefixes[-1]).max(axis=(-2, -1)) <= self.limit)  # NaN too
                if diverged.any():
                    self._end(step, diverged, StopReason.DIVERGED)
                    prefixes = [product[~diverged] for product in prefixes]
                    if not self.members.size:
                        return
                W = prefixes[-1]
                record, check = step in recorded, step % CHECK_INTERVAL == 0 or step == n_steps
                looked_at = record or bool(check and excess_tolerance)
                if check:
                    progress.update(step)
                if looked_at and not (self.loss.has_kink and W.shape[-1] > self.rank):
                    gradient, excess = self.form.gradient_and_excess(W)
                else:
                    gradient = self.form.gradient(W)
                    if looked_at:  # what rounding adds to the rank counts where there is a kink
                        F = _thin(W, self.rank)
                        excess = self.loss.form(F.shape[-1], self.rank).excess(F)
                gradients = layer_gradients(self.layers, prefixes, gradient.astype(self.dtype, copy=False))
                if looked_at:
                    converged = excess <= excess_tolerance if excess_tolerance else np.zeros(len(W), dtype=bool)
                    recorded_runs = np.ones(len(W), dtype=bool) if record else converged
                    if recorded_runs.any():
                        self._record(step, recorded_runs, W, excess, gradients)
                    if converged.any():
                        self._end(step, converged, StopReason.CONVERGED)
                        gradients = [change[~converged] for change in gradients]
                        if not self.members.size:
                            return
                if step == n_steps:
                    self._end(step, np.ones(self.members.size, dtype=bool), StopReason.STEP_BUDGET)
                    return
                for layer, change in zip(self.layers, gradients, strict=True):
                    change *= self.step
                    layer -= change

    def _record(self, step: int, runs: NDArray[np.bool_], W: Array, excess: Array, gradients: list[Array]) -> None:
        """Add a row for some of the runs: what is recorded of one does not depend on its neighbours."""
        loss, layers = self.loss.take(runs), [layer[runs] for layer in self.layers]
        squares = [np.sum(gradient[runs].astype(float) ** 2, axis=(-2, -1)) for gradient in gradients]
        row = {
            "loss": loss.minimum_value(self.rank) + excess[runs],
            "excess": excess[runs],
            "factors": loss.from_eigenbasis(_thin(W[runs], self.rank)),
            "gradient_norm": np.sqrt(np.sum(squares, axis=0)),
            "balancedness": balancedness(layers),
        }
        self.rows.append((step, self.members[runs], row))

    def _end(self, step: int, ended: NDArray[np.bool_], reason: StopReason) -> None:
        """Keep the layers of the runs that end after `step` steps, and go on with the others."""
        gone = self.members[ended]
        self.stop_reason[gone] = reason
        self.last_step[gone] = step
        *lower, top = [layer[ended] for layer in self.layers]
        if self.frame is not None:
            lower[0] = lower[0] @ self.frame[gone]
        for final, layer in zip(self.final, [*lower, self.loss.take(ended).from_eigenbasis(top)], strict=True):
            final[gone] = layer
        self.layers = [layer[~ended] for layer in self.layers]
        self.step, self.limit, self.members = self.step[~ended], self.limit[~ended], self.members[~ended]
        if self.members.size:
            self.loss = self.loss.take(~ended)
            self.roots.keep(~ended)
            self.form = self.loss.form(self.layers[0].shape[-1], self.rank).along(self.roots)

    def trajectory(self, step_size: Array) -> DescentTrajectory:
        """The records as arrays, NaN where a run has none."""
        steps = np.array([step for step, _, _ in self.rows], dtype=np.int64)
        columns: dict[str, Array] = {}
        for name in ("loss", "excess", "factors", "gradient_norm", "balancedness"):
            tail = self.rows[0][2][name].shape[1:] if self.rows else ()
            column = np.full((len(steps), self.size, *tail), np.nan)
            for i, (_, members, row) in enumerate(self.rows):
                column[i, members] = row[name]
            columns[name] = column.reshape(len(steps), *self.batch, *tail)
        return DescentTrajectory(
            times=np.multiply.outer(steps, step_size),
            stop_reason=self.stop_reason.reshape(self.batch)[()],
            steps=steps,
            layers=[layer.reshape(*self.batch, *layer.shape[1:]) for layer in self.final],
            last_step=self.last_step.reshape(self.batch),
            **columns,
        )


def _thin(W: Array, rank: int) -> Array:
    """Factor of W Wᵀ with at most k columns, for W of rank k: what rounding adds beyond is dropped."""
    if W.shape[-1] <= rank:
        return W.copy()  # of a network of one layer W is the layer, which changes
    U, sigma, _ = np.linalg.svd(W, full_matrices=False)
    return (U * sigma[..., None, :])[..., :rank]
