"""The kinds of experiment, one module for each.

A kind declares its tables (`TABLES`, the schema of each), its options (`OPTIONS`, a dataclass by section of an
experiment's block; the metadata of a field says in words of JSON schema what its values may be), what a cell of the
default study costs (`COST`: CPU seconds for one seed, on a small machine), and how it is computed:
`run(settings, seeds)` yields the columns of its tables, seed by seed. One whose cells may share a stack says so by
`stack_of` and `run_stack`, see `flow`.
"""

from __future__ import annotations

import pkgutil
from importlib import import_module
from types import ModuleType

#: Names of all kinds.
KINDS = tuple(sorted(module.name for module in pkgutil.iter_modules(__path__)))


def kind(name: str) -> ModuleType:
    """The module of a kind. Others are not loaded: imports take most of the time of a short job.

    Raises
    ------
    ValueError
        If there is no such kind.
    """
    if name not in KINDS:
        raise ValueError(f"kind must be one of {', '.join(KINDS)}, not {name!r}")
    return import_module(f".{name}", __name__)
