"""The statements of the study, each tested on all results that bear on it."""

from .evaluation import STATEMENTS, evaluate, read, table
from .evidence import Study, Tables
from .rendering import explanation, insert, markdown, page

__all__ = ["STATEMENTS", "Study", "Tables", "evaluate", "explanation", "insert", "markdown", "page", "read", "table"]
