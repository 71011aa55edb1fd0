"""Losses on the end-to-end matrix: the mathematics, and the forms that compute it."""

from .base import CovarianceLoss
from .registry import LOSSES, BuresWasserstein, Frobenius, Sinkhorn

__all__ = ["LOSSES", "BuresWasserstein", "CovarianceLoss", "Frobenius", "Sinkhorn"]
