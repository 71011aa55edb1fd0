"""The problem of a cell for one seed: the loss on its target, and the start."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np

from ...files.targets import read_target
from ...linalg.psd import Array
from ...linalg.thin import is_thin
from ...losses.registry import CovarianceLoss, make
from ...model.layer_starts import widened, without_balance
from ...model.level_starts import level_start, saddle_start
from ...model.network import DeepLinearNetwork, with_bottleneck
from ...model.starts import (
    FIRST_SCALE,
    NEAR_A_POINT,
    Start,
    aligned_start,
    close_start,
    draw_network,
    small_start,
    with_end_rank,
)
from ...model.targets import draw_target
from ...rates.thresholds import critical_gap
from ..grid.seeds import generator
from ..grid.target import checksums_of, is_drawn, limited_epsilon
from .settings import Initialization, Settings


@dataclass(frozen=True)
class NetworkStart(Start):
    """A start with its layers; `scale` is NaN for starts that are not scaled.

    Attributes
    ----------
    network
        Initial layers.
    """

    network: DeepLinearNetwork


def make_loss(settings: Settings, seed: int) -> CovarianceLoss:
    """The loss with min(ε, λ_k) on the target of a seed, which is drawn or read.

    Raises
    ------
    ValueError
        If the target cannot be read, or `check_target` refuses it.
    """
    n, target = settings.dimension, settings.target
    if is_drawn(target):
        rng = generator(settings.study_seed, "target", seed, dimension=n, spectrum=target["spectrum"])
        covariance = draw_target(rng, n, settings.smin, spectrum=target["spectrum"], mode=target["mode"])
        loss = make(settings.loss, covariance, settings.loss_options)
    else:
        options = json.dumps(dict(settings.loss_options or {}))
        loss = _read_loss(settings.loss, options, json.dumps(dict(target)), n, tuple(checksums_of(target)))
    if not loss.has_epsilon:
        return loss
    epsilon = limited_epsilon(settings.epsilon, loss.eigenvalues, settings.rank)
    check_target(loss.eigenvalues, settings.rank, epsilon)
    return loss.with_epsilon(epsilon)


@lru_cache(maxsize=1)
def _read_loss(name: str, options: str, target: str, dimension: int, _checksums: tuple[str, ...]) -> CovarianceLoss:
    """The loss with ε = 0 on a target that is read; the next cell uses the spectrum again, which costs O(n³)."""
    return make(name, read_target(json.loads(target), dimension), json.loads(options))


def check_target(eigenvalues: Array, rank: int, epsilon: float) -> None:
    """Refuse a target Σ0 = 0, and for ε = 0 one of rank below k, where L has no second derivatives at W*.

    Raises
    ------
    ValueError
        In one line.
    """
    target_rank = int(np.sum(eigenvalues > 0))
    if target_rank == 0:
        raise ValueError("the target is zero: there is nothing to learn")
    if epsilon == 0 and rank > target_rank:
        limited = "" if target_rank == len(eigenvalues) else f" (ε is limited to its eigenvalue {rank}, which is 0)"
        raise ValueError(f"rank {rank} exceeds the rank {target_rank} of the target{limited}")


def check_tolerance(tolerance: float, loss: CovarianceLoss, rank: int) -> None:
    """Refuse a tolerance of L − L* that W = 0 meets, so that no training would be needed.

    Raises
    ------
    ValueError
        In one line.
    """
    levels = loss.saddle_values(rank)
    highest, where = float(levels[0] - levels[-1]), "excess loss of W = 0"
    if highest == 0:  # ε = λ_1: W = 0 is the minimum
        highest, where = float(loss.eigenvalues.sum()), "trace of the target"
    if not tolerance < highest:
        raise ValueError(f"excess_tolerance must be below the {where}, which is {highest:.6g}, not {tolerance:g}")


def make_problems(
    members: Sequence[tuple[Settings, int]], excess_tolerance: float
) -> tuple[list[CovarianceLoss], list[NetworkStart]]:
    """Losses and starts of runs, each given by a cell and a seed, that end at a tolerance of L − L*."""
    losses = [make_loss(settings, seed) for settings, seed in members]
    for (settings, _), loss in zip(members, losses, strict=True):
        check_tolerance(excess_tolerance, loss, settings.rank)
    return losses, [make_start(settings, seed, loss) for (settings, seed), loss in zip(members, losses, strict=True)]


def stack_losses(losses: list[CovarianceLoss]) -> CovarianceLoss:
    """One loss on the stack of the targets of losses of one type; the loss itself if all have the same target and ε."""
    one = losses[0]
    if all(loss.target is one.target and loss.epsilon == one.epsilon for loss in losses):
        return one
    return type(one).stacked(losses)


def make_start(settings: Settings, seed: int, loss: CovarianceLoss) -> NetworkStart:
    """Draw the start of a seed.

    The random stream of an end-to-end matrix depends only on its dimension and kind, so all ε, smin, depths and ranks
    have the same starts. Layers that are drawn one by one have a stream for each depth and rank.
    """
    initialization, depth, rank = settings.start(), settings.depth, settings.rank
    kind, balance = initialization.kind, initialization.balance
    depends_on = {"dimension": loss.dimension, "kind": kind}
    if balance in ("none", "product"):
        depends_on |= {"depth": depth, "rank": rank}
    rng = generator(settings.study_seed, "initialization", seed, **depends_on)
    if kind in NEAR_A_POINT:
        start = _start_near_a_point(rng, initialization, rank, loss)
        network = DeepLinearNetwork.balanced(start.end_to_end, depth, rank)
    else:
        network = draw_network(
            rng, loss.dimension, depth, rank, kind, balance=balance or "end_to_end", width=initialization.width
        )
        start = Start(network.end_to_end(), float("nan"), 1)
    network = with_bottleneck(network, rank)
    if initialization.end_rank is not None:
        network = with_end_rank(network, initialization.end_rank)
        start = replace(start, end_to_end=network.end_to_end())
    layers = network.layers
    if initialization.width is not None and balance != "none":
        fixed = 1 if rank < loss.dimension else 0  # the bottleneck of k < n is the output of the first layer
        layers = [*layers[:fixed], *widened(layers[fixed:], initialization.width)]
    if initialization.imbalance:
        rng = generator(
            settings.study_seed, "imbalance", seed, dimension=loss.dimension, depth=depth, widths=layers[0].shape[0]
        )
        layers = without_balance(rng, layers, initialization.imbalance)
    return NetworkStart(start.end_to_end, start.scale, start.draws, DeepLinearNetwork(layers))


def _start_near_a_point(
    rng: np.random.Generator, initialization: Initialization, rank: int, loss: CovarianceLoss
) -> Start:
    """A start near the target, near 0 or of a given excess; for k ≪ n with d_0 = k, as the loss depends on S = W Wᵀ."""
    inputs = rank if is_thin(loss.dimension, rank) else None
    if initialization.kind == "small":
        return small_start(rng, loss.dimension, rank, initialization.needed_scale(), inputs)
    if initialization.kind == "aligned":
        return aligned_start(rng, loss, rank, initialization.needed_scale(), inputs)
    if initialization.kind in ("level", "saddle"):
        gap = critical_gap(loss, rank)
        if not np.isfinite(gap):
            raise ValueError(
                f"initialization {initialization.kind!r} needs λ_1 > ε: there is no saddle above the minimum"
            )
        start = level_start if initialization.kind == "level" else saddle_start
        return start(rng, loss, rank, initialization.needed_scale() * gap, inputs)
    scale = FIRST_SCALE if initialization.scale is None else initialization.scale
    return close_start(rng, loss, rank, inputs, first_scale=scale)
