"""The kinds of experiment, one module for each.

A kind declares
- `TABLES`, the schema of each of its tables;
- `OPTIONS`, a dataclass for each section of an experiment's block in the configuration, see `cell.records`; a kind that
  draws starts has the section `initialization`;
- `COST`, the CPU seconds that a cell of the default study takes for one seed on a small machine;
- `run(settings, seed)`, which returns the rows of its tables (`results.schema.Tables`); or, where seeds are faster
  together, `run_stack(members)`, which yields them for each member, a cell with a seed.

A kind may declare
- `check(block)`, which yields a line for each mistake in its block that types do not exclude;
- `check_rank_of_target(block, rank)`, the same for a target that is read and has this rank;
- `STEPS`, the axes of its step size, of which an experiment has one;
- `SPECTRUM`, the only spectrum of the targets that it draws, and `SOURCES`, the keys of targets that it reads;
- `stack_of(settings)`, if several cells may be computed as one stack, see `flow`.
"""

import pkgutil
from importlib import import_module
from types import ModuleType

#: Names of all kinds.
KINDS = tuple(sorted(module.name for module in pkgutil.iter_modules(__path__)))


def kind(name: str) -> ModuleType:
    """The module of a kind. No other kind is loaded, because imports take most of the time of a short job.

    Raises
    ------
    ValueError
        If there is no such kind.
    """
    if name not in KINDS:
        raise ValueError(f"kind must be one of {', '.join(KINDS)}, not {name!r}")
    return import_module(f".{name}", __name__)
