"""The configuration of a study: read, merged, checked."""

from .check import check
from .families import check_families
from .read import ConfigurationError, lay_over, merged, of_command_line, read, with_numbers

__all__ = [
    "ConfigurationError",
    "check",
    "check_families",
    "lay_over",
    "merged",
    "of_command_line",
    "read",
    "with_numbers",
]
