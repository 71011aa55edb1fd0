"""Figures and tables: DataFrames in, matplotlib figures out. `save` writes PDF and PNG."""

from .frames import read
from .style import save

__all__ = ["read", "save"]
