"""Families of figures and tables: their declarations, and what an experiment must provide so that one can be drawn."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from ..cell import records
from ..cell.records import Key, nearest
from ..grid.axes import AXES
from ..kinds import KINDS, kind
from .read import refuse

Family = Mapping[str, Any]
#: What names of experiments and families look like: they become parts of paths.
NAME = "[a-z][a-z0-9_]{0,99}"
_FILES = {"propertyNames": "[A-Za-z0-9_]+", "minProperties": 1}
_AXES = {"enum": tuple(AXES), "minItems": 0}


@dataclass(frozen=True)
class Figure:
    """Keys of an entry of `figures` in a configuration: the experiment, and the values of its axes that are shown.

    `family`, by default the name of the entry, lets several experiments show one family: see config/README.md.
    """

    experiment: str
    family: str | None = None
    show: Mapping[str, tuple[Any, ...]] | None = None


@dataclass(frozen=True)
class Shown:
    """Keys of a figure or table of a family: title in the report, origin, caption in reStructuredText."""

    title: str
    source: str = field(metadata={"enum": ("abstract", "program", "reconstructed", "ours")})
    caption: str | None = None


@dataclass(frozen=True)
class Declaration:
    """Keys of a family in workflow/figures.yaml.

    Attributes
    ----------
    kinds
        Kinds of experiment from which it can be drawn.
    notebook
        Name of its notebook in workflow/notebooks; by default its own name.
    parameters
        Parameters of the notebook besides its folders and `show`.
    figures, tables
        What it draws and writes, by name: each figure as PDF and PNG, each table as CSV and LaTeX.
    axes
        Axes that the grid of the experiment must have.
    values
        A value that must be among those shown, by axis.
    options
        Values that options of the experiment must have.
    several
        Axes that may show several values; `show` names one of every other axis. By default any axis may show several.
    """

    kinds: tuple[str, ...] = field(metadata={"enum": KINDS})
    notebook: str | None = None
    parameters: Mapping[str, Any] | None = None
    figures: Mapping[str, Shown] | None = field(default=None, metadata=_FILES)
    tables: Mapping[str, Shown] | None = field(default=None, metadata=_FILES)
    axes: tuple[str, ...] | None = field(default=None, metadata=_AXES)
    values: Mapping[str, float] | None = None
    options: Mapping[str, Any] | None = None
    several: tuple[str, ...] | None = field(default=None, metadata=_AXES)


def check_families(given: Mapping[str, Any]) -> Mapping[str, Family]:
    """Check the families of figures, as in workflow/figures.yaml, and return them.

    Raises
    ------
    ConfigurationError
        On the first mistake: one line.
    """
    refuse(f"families of figures: {mistake}" for mistake in _of_types(given))
    return given


def _of_types(given: Mapping[str, Any]) -> Iterator[str]:
    yield from records.mistakes(given, Key(Mapping[str, Declaration], values={"propertyNames": NAME}))
    for name in (name for name, family in given.items() if not {"figures", "tables"} & family.keys()):
        yield f"{name}: one of the keys 'figures' and 'tables' is missing"


def mistakes(config: Mapping[str, Any], families: Mapping[str, Family]) -> Iterator[str]:
    """Reasons for which a family that a configuration names cannot be drawn, one line each.

    Parameters
    ----------
    config
        A configuration with experiments that have been checked.
    families
        By name, see `check_families`.
    """
    for name, figure in config["figures"].items():
        family = figure.get("family", name)
        if family not in families:
            where = f"figures.{name}.family" if "family" in figure else f"figures.{name}, without the key 'family'"
            yield f"{where}: there is no family {family!r}{nearest(family, families)}; allowed: {', '.join(families)}"
        experiment = figure["experiment"]
        block = config["experiments"][experiment]
        for key, mistake in _mistakes(families[family], experiment, block, figure.get("show", {})):
            yield f"figures.{name}.{key}: {mistake}"


def _mistakes(
    family: Family, experiment: str, block: Mapping[str, Any], show: Mapping[str, list[Any]]
) -> Iterator[tuple[str, str]]:
    """Key and text of each mistake."""
    grid = block["grid"]
    if block["kind"] not in family["kinds"]:
        allowed = " or ".join(family["kinds"])
        yield "experiment", f"{experiment!r} is of the kind {block['kind']}; this family can be drawn of {allowed}"
    for axis in (axis for axis in family.get("axes", ()) if axis not in grid):
        yield "experiment", f"this family needs an axis {axis}, which the grid of {experiment!r} does not have"
    options = {key: value for section in kind(block["kind"]).OPTIONS for key, value in block[section].items()}
    for option, value in family.get("options", {}).items():
        if options.get(option) != value:
            yield "experiment", f"this family needs {option}: {str(value).lower()} in {experiment!r}"
    shown = {**grid, **show}
    for axis, value in family.get("values", {}).items():
        if value not in shown[axis]:
            yield f"show.{axis}", f"this family needs {value} among its values, which are {_listed(shown[axis])}"
    several = family.get("several", grid)
    for axis in (axis for axis, some in shown.items() if len(some) > 1 and axis not in several):
        yield f"show.{axis}", f"this family shows one value of it, not {_listed(shown[axis])}: name one"


def _listed(values: list[Any]) -> str:
    return ", ".join(map(str, values))
