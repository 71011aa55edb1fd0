"""The loss along segments from one critical point to the next, between matrices and between layers."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import numpy as np

from ...landscape import critical_points
from ...landscape.curvature import network_loss, segment
from ...linalg.psd import Array
from ...losses.registry import CovarianceLoss
from ...model.network import DeepLinearNetwork
from ..cell.problem import make_loss
from ..cell.settings import Settings
from ..results.schema import COUNT, FLOAT, Tables, columns, schema

#: Loss on the segment from critical point `pair` (t = 0) to `pair` + 1 (t = 1).
TABLES = {"paths": schema(pair=COUNT, **columns(FLOAT, "t", "loss_between_matrices", "loss_between_layers"))}
COST = 0.02


@dataclass(frozen=True)
class Options:
    """Keys of `landscape` in the configuration; see config/README.md."""

    points: int = field(metadata={"minimum": 2})
    samples: int = field(metadata={"minimum": 3})


OPTIONS = {"landscape": Options}


def check_rank_of_target(block: Mapping[str, Any], target_rank: int) -> Iterator[str]:
    """A path joins two critical points of rank k."""
    for i, rank in enumerate(block["grid"]["rank"]):
        if rank >= target_rank:
            yield f"grid.rank[{i}]: {rank} must be less than the rank of the target, {target_rank}, for two points"


def run(settings: Settings, seed: int) -> Tables:
    """Rows of the table `paths`, one for each pair of consecutive points and t.

    The points are those of rank k; where there is only one (k = n), also those of lower rank.
    """
    rank, depth, options = settings.rank, settings.depth, settings.options["landscape"]
    t = np.linspace(0, 1, options.samples)
    loss = make_loss(settings, seed)
    alone = critical_points.count(loss, rank) == 1
    points = critical_points.spread(loss, rank, options.points, lower_ranks=alone)
    networks = [critical_points.network(loss, point.kept, depth, rank) for point in points]
    pairs = enumerate(pairwise(networks))
    return {"paths": ({"pair": i, **_between(loss, *pair, t)} for i, pair in pairs)}


def _between(loss: CovarianceLoss, lower: DeepLinearNetwork, upper: DeepLinearNetwork, t: Array) -> dict[str, Array]:
    layers = [segment(A, B, t) for A, B in zip(lower.layers, upper.layers, strict=True)]
    return {
        "t": t,
        "loss_between_matrices": loss.value(segment(lower.end_to_end(), upper.end_to_end(), t)),
        "loss_between_layers": network_loss(loss, layers),
    }
