"""Gradient flow of the layers themselves, for layers that are not balanced."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from ..linalg.psd import Array
from ..losses.registry import CovarianceLoss
from ..model.network import DeepLinearNetwork, layer_gradients, pack, prefix_products, unpack
from ..model.trajectory import StopReason


@dataclass(frozen=True)
class LayerFlow:
    """A flow of layers, or a stack of them on one grid of times.

    Attributes
    ----------
    times : (m,)
        0 and the end of every step of the integrator.
    layers : N arrays (m, ..., d_j, d_{j−1})
        W_1(t), …, W_N(t).
    stop_reason
        CONVERGED where all members have reached the tolerance; else END_TIME or STEP_BUDGET.
    evaluations
        Number of gradients.
    """

    times: Array
    layers: list[Array]
    stop_reason: StopReason
    evaluations: int


def layer_flow(
    loss: CovarianceLoss,
    layers: Sequence[ArrayLike],
    max_time: float,
    *,
    rtol: float = 1e-9,
    excess_tolerance: float = 0.0,
    max_steps: int = 5000,
) -> LayerFlow:
    """Integrate dW_j/dt = −(W_N ⋯ W_{j+1})ᵀ ∇L(W) (W_{j−1} ⋯ W_1)ᵀ, j = 1..N, from layers of any balance.

    By scipy's DOP853, all members of a stack with the same steps. For balanced layers `gradient_flow` is much faster.

    Parameters
    ----------
    loss
        One target, or a stack of them of shape (...).
    layers : N arrays (..., d_j, d_{j−1})
        W_1(0), …, W_N(0), of widths of at least n.
    max_time, max_steps
        End of the flow, and the largest number of steps.
    rtol
        Relative error allowed in a step; the absolute one is rtol · λ_1^{1/2N}, the size of a layer at the minimum.
    excess_tolerance
        The flow ends once L − L* is at most this in all members.

    Raises
    ------
    ValueError
        On layers that do not chain, are not finite or are narrower than n.
    """
    from scipy.integrate import DOP853  # imported here: it takes a tenth of a second to load

    network = DeepLinearNetwork(layers)
    narrowest = min(min(layer.shape[-2:]) for layer in network.layers)
    if narrowest < loss.dimension:
        raise ValueError(f"layers must have widths of at least n = {loss.dimension}, not {narrowest}")
    shapes = [layer.shape[-2:] for layer in network.layers]
    state = pack(network.layers)

    def layers_at(vector: Array) -> list[Array]:
        return unpack(vector.reshape(state.shape), shapes)

    def velocity(_: float, vector: Array) -> Array:
        current = layers_at(vector)
        prefixes = prefix_products(current)
        if not np.isfinite(prefixes[-1]).all():  # a trial step that is too long, which the solver then rejects
            return np.full_like(vector, np.nan)
        return -pack(layer_gradients(current, prefixes, loss.gradient(prefixes[-1]))).ravel()

    def arrived(vector: Array) -> bool:
        return bool(np.all(loss.excess(prefix_products(layers_at(vector))[-1]) <= excess_tolerance))

    size = float(np.max(loss.eigenvalues[..., 0])) ** (1 / (2 * network.depth))
    solver = DOP853(velocity, 0.0, state.ravel(), max_time, rtol=rtol, atol=rtol * size)
    times, states = [0.0], [state.ravel()]
    with np.errstate(over="ignore", invalid="ignore"):
        while not (converged := arrived(states[-1])) and solver.status == "running" and len(times) <= max_steps:
            solver.step()
            times.append(solver.t)
            states.append(solver.y)
    ended = StopReason.END_TIME if solver.status == "finished" else StopReason.STEP_BUDGET
    path = np.stack(states).reshape(-1, *state.shape)
    reason = StopReason.CONVERGED if converged else ended
    return LayerFlow(np.array(times), unpack(path, shapes), reason, solver.nfev)
