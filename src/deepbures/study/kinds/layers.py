"""Gradient flow of the layers themselves, from starts without balance."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from ...flow.layer_flow import layer_flow
from ...linalg.psd import Array
from ...losses.registry import CovarianceLoss
from ...model.network import layer_gradients, prefix_products
from ...model.trajectory import StopReason
from ...rates.unbalanced import layer_imbalance, unbalanced_global_rate
from ..cell import measure
from ..cell.problem import make_problems, stack_losses
from ..cell.settings import Initialization, Integration, Settings
from ..results.schema import FLOAT, Tables, columns, extended

#: Besides the columns of every run: max_j ‖D_j‖, D_j = W_{j+1}ᵀ W_{j+1} − W_j W_jᵀ, in the spectral norm at the start
#: (`imbalance_initial`), and along the flow max_j ‖D_j(t) − D_j(0)‖ (`imbalance_drift`); the rate of the theorem for
#: layers of any balance (`unbalanced_rate`; 0 where the imbalance or L(0) is too large, NaN for other losses).
TABLES = {
    "runs": extended(measure.RUNS, **columns(FLOAT, "imbalance_initial", "unbalanced_rate")),
    "trajectories": extended(measure.TRAJECTORIES, imbalance_drift=FLOAT),
}
OPTIONS = {"initialization": Initialization, "integration": Integration}
COST = 0.015


def check(block: Mapping[str, Any]) -> Iterator[str]:
    """The flow of the layers is that of full rank."""
    for i, rank in enumerate(block["grid"]["rank"]):
        if rank < block["dimension"]:
            yield f"grid.rank[{i}]: kind 'layers' needs the rank n = {block['dimension']}, not {rank}"
    if block["integration"].get("keep_factors"):
        yield "integration.keep_factors: kind 'layers' keeps no factors"


def run_stack(members: Sequence[tuple[Settings, int]]) -> Iterator[Tables]:
    """Rows of the tables `runs` and `trajectories` for each member, one cell with each of its seeds."""
    settings = members[0][0]
    rank, depth, options = settings.rank, settings.depth, settings.options["integration"]
    losses, starts = make_problems(members, options.excess_tolerance)
    stacked = stack_losses(losses)
    flow = layer_flow(
        stacked,
        [np.stack(layers) for layers in zip(*(start.network.layers for start in starts), strict=True)],
        options.max_time,
        rtol=options.rtol,
        excess_tolerance=options.excess_tolerance,
        max_steps=options.max_steps,
    )
    for i, (loss, start) in enumerate(zip(losses, starts, strict=True)):
        layers = [layer[:, i] for layer in flow.layers]
        W = prefix_products(layers)[-1]
        reached = np.flatnonzero(loss.excess(W) <= options.excess_tolerance)
        last = int(reached[0]) if reached.size else len(W) - 1
        kept = np.unique(np.linspace(0, last, min(options.samples, last + 1)).round().astype(int))
        samples = {"time": flow.times[kept], **_samples(loss, [layer[kept] for layer in layers], rank)}
        row = {
            **measure.summary(loss, start, rank, depth, W[last], samples["excess"][0]),
            "stop_reason": StopReason.CONVERGED if reached.size else flow.stop_reason,
            "time_final": flow.times[last],
            "steps": last,
            "evaluations": flow.evaluations,
            "imbalance_initial": layer_imbalance(start.network.layers),
            "unbalanced_rate": float("nan"),
        }
        if loss.is_bures_distance:
            initial = row["loss_initial"], start.network.layers
            row["unbalanced_rate"] = unbalanced_global_rate(loss.eigenvalues, float(loss.epsilon), *initial)
        yield measure.tables(row, samples)


def _samples(loss: CovarianceLoss, layers: Sequence[Array], rank: int) -> dict[str, Any]:
    """Columns of the trajectory besides the time, from layers (m, d_j, d_{j−1})."""
    prefixes = prefix_products(layers)
    W = prefixes[-1]
    excess, gradients = loss.excess(W), layer_gradients(layers, prefixes, loss.gradient(W))
    return {
        "loss": loss.minimum_value(rank) + excess,
        "excess": excess,
        "gradient_norm": np.sqrt(sum(np.sum(part**2, axis=(-2, -1)) for part in gradients)),
        **measure.along(loss, rank, W, np.linalg.svd(W, compute_uv=False), excess),
        "imbalance_drift": _drift(layers),
    }


def _drift(layers: Sequence[Array]) -> Array:
    """max_j ‖D_j(t) − D_j(0)‖ in the spectral norm at each of the times of layers (m, d_j, d_{j−1}), (m,)."""
    largest = np.zeros(len(layers[0]))
    for lower, upper in pairwise(layers):
        D = upper.mT @ upper - lower @ lower.mT
        largest = np.maximum(largest, np.linalg.norm(D - D[0], ord=2, axis=(-2, -1)))
    return largest
