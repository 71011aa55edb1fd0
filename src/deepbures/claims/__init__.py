"""The statements of the study, each tested on all results that bear on it."""

from .evaluation import STATEMENTS, about, evaluate, read, table
from .evidence import Study, Tables
from .mutation import Mutation
from .power import detections
from .rendering import explanation, insert, markdown, page

__all__ = [
    "STATEMENTS",
    "Mutation",
    "Study",
    "Tables",
    "about",
    "detections",
    "evaluate",
    "explanation",
    "insert",
    "markdown",
    "page",
    "read",
    "table",
]
