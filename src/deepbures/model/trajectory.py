"""The result of a training run."""

from __future__ import annotations

from dataclasses import dataclass, fields
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from ..linalg.psd import Array, check_square_fits

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes


class StopReason(StrEnum):
    """Why a run ended; `remedy` says what to change if it should not have."""

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


_REMEDIES = {
    StopReason.END_TIME: "raise max_time to see it converge",
    StopReason.STATIONARY: "it stays at a critical point: draw another start",
    StopReason.DIVERGED: "take a smaller step size",
    StopReason.STEP_BUDGET: "raise max_steps",
    StopReason.STEP_UNDERFLOW: "raise rtol, or excess_tolerance",
}


@dataclass(frozen=True, eq=False, repr=False)
class Trajectory:
    """A training run, sampled at m times. Two trajectories are equal only if they are the same object.

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

    #: Attributes with a value for each sample, and their names in a table.
    ROWS: ClassVar[dict[str, str]] = {
        "times": "time",
        "loss": "loss",
        "excess": "excess",
        "gradient_norm": "gradient_norm",
    }

    def __repr__(self) -> str:
        """One line: dimensions, samples, and how the run ended."""
        (n, k), runs = self.factors.shape[-2:], self.loss.shape[1:]
        reasons, counts = np.unique(np.array(self.stop_reason, dtype=str), return_counts=True)
        ended = ", ".join(
            f"{count} {reason}" if runs else reason for reason, count in zip(reasons, counts, strict=True)
        )
        stack = f"stack of {runs} runs, " if runs else ""
        excess = ""
        if len(self.times) and not runs:
            excess = f"L − L* from {self.excess[0]:.3g} to {self.excess[-1]:.3g} at t = {self.times[-1]:.3g}, "
        return f"<{type(self).__name__}: {stack}n = {n}, k = {k}, {len(self.times)} samples, {excess}{ended}>"

    def to_frame(self) -> pd.DataFrame:
        """A row for each sample, with its time, loss, excess and norm of the gradient; in a stack, for each `run`.

        Rows in which a run of a stack is not recorded are left out.
        """
        import pandas as pd

        shape = self.loss.shape
        columns = {}
        for attribute, name in self.ROWS.items():
            values = np.asarray(getattr(self, attribute))
            values = values.reshape(*values.shape, *[1] * (len(shape) - values.ndim))
            columns[name] = np.broadcast_to(values, shape).ravel()
        frame = pd.DataFrame(columns)
        if len(shape) > 1:
            frame.insert(0, "run", np.tile(np.arange(np.prod(shape[1:], dtype=int)), shape[0]))
        return frame[frame["loss"].notna()].reset_index(drop=True)

    def plot(self, axes: Axes | None = None) -> Axes:
        """Draw the excess loss L − L* against time, on a logarithmic scale; a line for each run of a stack."""
        if axes is None:
            from matplotlib import pyplot

            axes = pyplot.subplots()[1]
        frame = self.to_frame()
        for run, part in frame.groupby("run") if "run" in frame else [(None, frame)]:
            positive = part[part["excess"] > 0]
            axes.plot(positive["time"], positive["excess"], label=None if run is None else f"run {run}")
        axes.set(xlabel="time $t$", ylabel="excess loss $L - L^*$", yscale="log")
        return axes

    def save(self, path: str | Path) -> None:
        """Write everything to a `.npz` file, without pickled objects; `load` reads it."""
        arrays: dict[str, Any] = {"trajectory": type(self).__name__}
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, list):
                arrays |= {f"{field.name}_{j}": item for j, item in enumerate(value)}
            else:
                arrays[field.name] = np.asarray(value, dtype=str) if field.name == "stop_reason" else value
        with Path(path).open("wb") as file:
            np.savez(file, **arrays)

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """The trajectory that `save` wrote.

        Raises
        ------
        ValueError
            In one line, if the file holds something else.
        """
        try:
            with np.load(path, allow_pickle=False) as file:
                found = dict(file)
        except (ValueError, EOFError, TypeError):
            found = {}
        if found.pop("trajectory", None) != cls.__name__:
            raise ValueError(f"{path} does not hold a {cls.__name__} that was saved")
        values: dict[str, Any] = {}
        for field in fields(cls):
            if field.name == "stop_reason":
                values["stop_reason"] = np.frompyfunc(StopReason, 1, 1)(found["stop_reason"])
            elif field.name in found:
                values[field.name] = found[field.name].item() if field.type == "int" else found[field.name]
            else:
                number = sum(name.startswith(f"{field.name}_") for name in found)
                values[field.name] = [found[f"{field.name}_{j}"] for j in range(number)]
        return cls(**values)


@dataclass(frozen=True, eq=False, repr=False)
class FlowTrajectory(Trajectory):
    """A gradient flow. Its last sample is the state at which the flow ended.

    Attributes
    ----------
    times : (m,)
        Increasing times t.
    loss, excess : (m,)
        L(t), and L(t) − L* as a sum of squares.
    factors : (m, n, k)
        F(t) with S(t) = F Fᵀ, in the standard basis. The columns are orthogonal, their lengths the singular values of
        W(t), largest first.
    stop_reason
        Why the flow ended.
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


@dataclass(frozen=True, eq=False, repr=False)
class DescentTrajectory(Trajectory):
    """A run of gradient descent on all layers, or a stack of runs (leading axes `...`).

    A row describes the weights before its step; the last row, at `n_steps`, the final weights. In a stack, a run has
    NaN in the rows after its `last_step` (from this row on if it diverged), and in rows that exist because another run
    converged at that step. A single run has no such rows.

    Attributes
    ----------
    times : (m, ...)
        Number of steps times the step size.
    loss, excess : (m, ...)
        L, and L − L* as a sum of squares.
    factors : (m, ..., n, k)
        F with S = F Fᵀ, in the standard basis.
    stop_reason
        Why the run ended; for a stack an array of reasons.
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

    ROWS: ClassVar[dict[str, str]] = {"steps": "step", **Trajectory.ROWS, "balancedness": "balancedness"}

    @property
    def final(self) -> Array:
        """End-to-end covariance S = W Wᵀ at the end, (..., n, n); a factor of it is in the last of `factors`."""
        check_square_fits("the final covariance", self.layers[-1].shape[-2])
        W = self.layers[0]
        for layer in self.layers[1:]:
            W = layer @ W
        return W @ W.mT
