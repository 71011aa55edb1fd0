"""Where a flow went under exponential collocation."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ..linalg.psd import Array
from .collocation import Step, dense_output
from .reduced_flow import in_eigenbasis, nearest_factor, root, root_factor


class CollocationPath:
    """Where a flow went under exponential collocation.

    Parameters
    ----------
    depth
        N.
    start
        Time of the first state.
    state, frame
        State of `RootFlow`, and the order of its coordinates.
    """

    #: Samples that a step is given: it goes about as far as so many explicit ones, and is interpolated anywhere.
    samples_per_step = 5.0
    #: Gradients that samples have taken.
    evaluations = 0

    def __init__(self, depth: int, start: float, state: Array, frame: NDArray[np.intp] | None) -> None:
        self.depth, self.state, self.frame = depth, state, frame
        self.knots = [start]
        self.steps: list[Step] = []

    def add(self, step: Step, time: float, state: Array, frame: NDArray[np.intp] | None) -> None:
        """Take note of a step, and of where it led."""
        self.steps.append(step)
        self.knots.append(time)
        self.state, self.frame = state, frame

    def factors(self, times: Array) -> Array:
        """F at times after the first, up to the last, (m, n, k)."""
        after = np.clip(np.searchsorted(self.knots, times), 1, len(self.steps))  # t_{after−1} < time ≤ t_after
        steps = [self.steps[j - 1] for j in after]
        states, frames = dense_output(steps, times), [step.frame for step in steps]
        k = states.shape[-1]
        states[:, :k] = (states[:, :k] + states[:, :k].mT) / 2
        order = None if frames[0] is None else np.array(frames)
        F = root_factor(states, self.depth)
        for i in np.flatnonzero(~np.isfinite(F).all(axis=(-2, -1))):  # indefinite by the error of the step
            F[i] = nearest_factor(states[i], self.depth)
        return in_eigenbasis(F, order)

    def end(self) -> Array:
        """F at the last knot, (n, k)."""
        F = root_factor(self.state, self.depth)
        return F if self.frame is None else F[np.argsort(self.frame)]

    def root(self) -> Array:
        """Z at the last knot, (n, k)."""
        Z = root(self.state)
        return Z if self.frame is None else Z[np.argsort(self.frame)]

    def drop(self) -> None:
        """Take the last step back. There is no going on from there."""
        self.steps.pop()
        self.knots.pop()

    def cut(self, time: float) -> None:
        """Let the last step end earlier. There is no going on from there."""
        self.knots[-1] = time
