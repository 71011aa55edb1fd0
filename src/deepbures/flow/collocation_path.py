"""The path of a flow under exponential collocation, and the states between its steps."""

from collections.abc import Sequence
from dataclasses import dataclass, field, fields

import numpy as np
from numpy.typing import NDArray

from ..linalg.psd import Array
from .exponential import Collocation, combine
from .reduced_flow import in_eigenbasis, nearest_factor, root, root_factor

#: Three nodes: the fewest gradients over the authors' grid at rtol 1e-6 and 1e-7. At 1e-8 four need a fifth fewer.
SCHEME = Collocation(3)


@dataclass(frozen=True)
class Step:
    """A step y(t_n + θh) = y_n + hθ φ_1(θhJ) f_n + h Σ_q q! θ^{q+1} φ_{q+1}(θhJ) a_q of one member, or of a stack (B,).

    Attributes
    ----------
    time, size
        t_n and h.
    state, velocity, jacobian : (n, k)
        y_n, f_n and J.
    coefficients : (m, n, k)
        a_1, …, a_m.
    """

    time: Array
    size: Array
    state: Array
    velocity: Array
    jacobian: Array
    coefficients: Array = field(metadata={"axis": 1})


def dense_output(steps: Sequence[Step], which: NDArray[np.intp], times: Array) -> Array:
    """States at the given times, (m, n, k), each within the step that `which` (m,) numbers."""
    start, size, state, velocity, jacobian, coefficients = (
        np.array([getattr(step, field.name) for step in steps]) for field in fields(Step)
    )
    n, k = state.shape[1:]
    if square := n == k:  # everything is symmetric: one triangle is enough
        a, b = np.triu_indices(n)
        state, velocity, jacobian, coefficients = (
            values[..., a, b] for values in (state, velocity, jacobian, coefficients)
        )
    shape = (len(times), *[1] * (state.ndim - 1))
    size, theta = size[which].reshape(shape), ((times - start[which]) / size[which]).reshape(shape)
    terms = [velocity[which], *coefficients.swapaxes(0, 1)[:, which]]
    states = state[which] + size * combine(terms, SCHEME.weights(size * jacobian[which], theta))
    if not square:
        return states
    whole = np.empty((len(times), n, n))
    whole[:, a, b] = whole[:, b, a] = states
    return whole


class CollocationPath:
    """The path of a flow under exponential collocation.

    Parameters
    ----------
    depth
        N.
    start
        Time of the first state.
    state, frame
        State of `RootFlow`, and the order of its coordinates.

    Attributes
    ----------
    knots, steps, frames
        Times of the ends of the steps; the steps; the order of the coordinates at each knot.
    state
        State at the last knot.
    """

    #: Weight of a step when samples are spread over the steps of a run: it advances as far as several explicit ones.
    samples_per_step = 5.0
    #: Gradients for samples: none.
    evaluations = 0

    def __init__(self, depth: int, start: float, state: Array, frame: NDArray[np.intp] | None) -> None:
        self.depth, self.state = depth, state
        self.knots, self.frames = [start], [frame]
        self.steps: list[Step] = []

    def add(self, step: Step, time: float, state: Array, frame: NDArray[np.intp] | None) -> None:
        """Append a step, and the time and state that it led to."""
        self.steps.append(step)
        self.knots.append(time)
        self.frames.append(frame)
        self.state = state

    def factors(self, times: Array) -> Array:
        """F at times after the first knot, up to the last, (m, n, k)."""
        after = np.clip(np.searchsorted(self.knots, times), 1, len(self.steps))  # t_{after−1} < time ≤ t_after
        used, which = np.unique(after - 1, return_inverse=True)
        states = dense_output([self.steps[j] for j in used], which, times)
        k = states.shape[-1]
        states[:, :k] = (states[:, :k] + states[:, :k].mT) / 2
        F = root_factor(states, self.depth)
        for i in np.flatnonzero(~np.isfinite(F).all(axis=(-2, -1))):  # indefinite by the error of the step
            F[i] = nearest_factor(states[i], self.depth)
        return F if self.frames[0] is None else in_eigenbasis(F, np.array([self.frames[j - 1] for j in after]))

    def end(self) -> Array:
        """F at the last knot, (n, k)."""
        return in_eigenbasis(root_factor(self.state, self.depth), self.frames[-1])

    def root(self) -> Array:
        """Z at the last knot, (n, k)."""
        return in_eigenbasis(root(self.state), self.frames[-1])

    def drop(self) -> None:
        """Remove the last step. The path cannot be continued then."""
        self.steps.pop()
        self.knots.pop()
        self.frames.pop()

    def cut(self, time: float) -> None:
        """End the last step earlier. The path cannot be continued then."""
        self.knots[-1] = time
