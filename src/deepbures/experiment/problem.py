"""What a cell draws for a seed: the loss on its target, and the start."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ..initialization import Start, close_start, draw_network, small_start, with_end_rank
from ..losses import LOSSES, BuresWasserstein, CovarianceLoss
from ..network import DeepLinearNetwork, with_bottleneck
from ..seeds import generator
from ..target_files import is_drawn, read_target
from ..targets import draw_target


@dataclass(frozen=True)
class NetworkStart(Start):
    """A start with its layers; `scale` is NaN where nothing was scaled.

    Attributes
    ----------
    network
        Initial layers.
    """

    network: DeepLinearNetwork


def make_loss(settings: Mapping[str, Any], seed: int) -> CovarianceLoss:
    """The loss on the target of a seed, drawn or read, with ε limited to λ_n (paper.md section 6)."""
    n, target = settings["dimension"], settings["target"]
    if not is_drawn(target):
        covariance = read_target(target, n)
    else:
        rng = generator(settings["study_seed"], "target", seed, dimension=n, spectrum=target["spectrum"])
        covariance = draw_target(rng, n, settings["smin"], spectrum=target["spectrum"], mode=target["mode"])
    if settings["loss"] not in LOSSES:
        raise ValueError(f"loss must be one of {', '.join(LOSSES)}, not {settings['loss']!r}")
    if settings["loss"] != BuresWasserstein.name:
        return LOSSES[settings["loss"]](covariance)
    least = float(BuresWasserstein(covariance).eigenvalues[-1])
    return BuresWasserstein(covariance, min(settings["epsilon"], least))


def stack_losses(losses: list[CovarianceLoss]) -> CovarianceLoss:
    """One loss on the stack of the targets of losses of one kind."""
    covariances = np.stack([loss.covariance for loss in losses])
    smoothings = [loss.epsilon for loss in losses if isinstance(loss, BuresWasserstein)]
    return BuresWasserstein(covariances, smoothings) if smoothings else type(losses[0])(covariances)


def make_start(settings: Mapping[str, Any], seed: int, loss: CovarianceLoss) -> NetworkStart:
    """Draw the start of a seed.

    The stream of an end-to-end matrix depends on its dimension and kind alone: starts are common to all ε,
    smin, depths and ranks. Layers that are drawn one by one have a stream for each depth and rank.
    """
    initialization, depth, rank = settings["initialization"], settings["depth"], settings["rank"]
    kind, balance = initialization["kind"], initialization.get("balance")
    depends_on = {"dimension": loss.dimension, "kind": kind}
    if balance in ("none", "product"):
        depends_on |= {"depth": depth, "rank": rank}
    rng = generator(settings["study_seed"], "initialization", seed, **depends_on)
    if kind in ("close", "small"):
        start = _start_near_a_point(rng, initialization, rank, loss)
        network = DeepLinearNetwork.balanced(start.end_to_end, depth, rank)
    else:
        network = draw_network(rng, loss.dimension, depth, rank, kind, balance=balance or "end_to_end")
        start = Start(network.end_to_end(), float("nan"), 1)
    network = with_bottleneck(network, rank)
    if "end_rank" in initialization:
        network = with_end_rank(network, initialization["end_rank"])
        start = replace(start, end_to_end=network.end_to_end())
    return NetworkStart(start.end_to_end, start.scale, start.draws, network)


def _start_near_a_point(
    rng: np.random.Generator, initialization: Mapping[str, Any], rank: int, loss: CovarianceLoss
) -> Start:
    """Next to the target, or next to 0."""
    if initialization["kind"] == "small":
        return small_start(rng, loss.dimension, rank, initialization["scale"])
    if not isinstance(loss, BuresWasserstein):
        raise ValueError(f"initialization 'close' needs the loss 'bures-wasserstein', not {loss.name!r}")
    return close_start(rng, loss, rank)
