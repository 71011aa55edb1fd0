"""The losses on the end-to-end matrix, by name."""

from .base import CovarianceLoss
from .bures_wasserstein import BuresWasserstein
from .frobenius import Frobenius

__all__ = ["LOSSES", "BuresWasserstein", "CovarianceLoss", "Frobenius"]

#: Every loss, by its name in configurations.
LOSSES: dict[str, type[CovarianceLoss]] = {loss.name: loss for loss in (BuresWasserstein, Frobenius)}
