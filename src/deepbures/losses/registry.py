"""The losses on the end-to-end matrix, by name."""

from collections.abc import Mapping

from numpy.typing import ArrayLike

from .base import CovarianceLoss
from .bures_wasserstein import BuresWasserstein
from .frobenius import Frobenius
from .sinkhorn import Sinkhorn

__all__ = ["LOSSES", "BuresWasserstein", "CovarianceLoss", "Frobenius", "Sinkhorn", "make"]

#: Every loss, by its name in configurations.
LOSSES: dict[str, type[CovarianceLoss]] = {
    loss.name: loss
    for loss in (
        BuresWasserstein,
        Frobenius,
        Sinkhorn,
    )
}
#: The options of all losses by name, with the bounds of their values.
OPTIONS = {name: bounds for loss in LOSSES.values() for name, bounds in loss.options.items()}


def make(name: str, covariance: ArrayLike, options: Mapping[str, float] | None = None) -> CovarianceLoss:
    """The loss of a name on a target, with those of the given options that it has."""
    loss = LOSSES[name]
    return loss(covariance, **{key: value for key, value in (options or {}).items() if key in loss.options})
