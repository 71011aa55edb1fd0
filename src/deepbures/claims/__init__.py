"""The statements of the study, each tested on all results that bear on it."""

from .evaluation import STATEMENTS, evaluate, read, table
from .evidence import SOURCES, Claim, Study, Tables
from .rendering import explanation, insert, markdown, page

__all__ = [
    "SOURCES",
    "STATEMENTS",
    "Claim",
    "Study",
    "Tables",
    "evaluate",
    "explanation",
    "insert",
    "markdown",
    "page",
    "read",
    "table",
]
