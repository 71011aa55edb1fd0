"""Checks of a whole configuration. Every mistake is reported in one line."""

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..cell.records import Key, mistakes, nearest
from ..grid.target import files_of, with_files
from . import experiment, families, paths
from .families import NAME, Family, Figure
from .read import refuse, with_numbers


@dataclass(frozen=True)
class Study:
    """Keys of `study`; see config/README.md."""

    seed: int = field(metadata={"minimum": 0})
    results: str
    figures: str
    fail_on_violated_claims: bool
    only: tuple[str, ...] | None = None
    shared_jobs: int | None = field(default=None, metadata={"minimum": 0})


@dataclass(frozen=True)
class Configuration:
    """Keys of a configuration."""

    study: Study
    experiments: Mapping[str, Mapping[str, Any]] = field(metadata={"propertyNames": NAME, "minProperties": 1})
    figures: Mapping[str, Figure] = field(metadata={"propertyNames": NAME})


def check(config: Mapping[str, Any], known: Mapping[str, Family] | None = None) -> dict[str, Any]:
    """Check a merged configuration and return it with numbers, paths and the choice of `study.only` applied.

    Parameters
    ----------
    config
        As read from YAML, overlays merged.
    known
        Families of figures by name, see `check_families`; without them, whether figures can be drawn is not checked.

    Raises
    ------
    ConfigurationError
        On the first mistake: one line.
    """
    checked: dict[str, Any] = with_numbers(config)
    refuse(mistakes(checked, Key(Configuration)))
    _complete(checked)
    for name, block in checked["experiments"].items():
        refuse(experiment.mistakes_of_types(block, f"experiments.{name}"))
    refuse(_of_study(checked["study"]))
    refuse(_of_names(checked))
    checked = _limited(checked)
    refuse(_of_content(checked))
    if known is not None:
        refuse(families.mistakes(checked, known))
    return _with_plain_paths(checked)


def _complete(config: Mapping[str, Any]) -> None:
    """Complete experiments whose targets are not drawn, and leave s_min out of what figures show of them."""
    completed = [name for name, block in config["experiments"].items() if experiment.complete(block, name)]
    for figure in config["figures"].values():
        if figure["experiment"] in completed:
            figure.get("show", {}).pop("smin", None)


def _of_study(study: Mapping[str, Any]) -> Iterator[str]:
    """Mistakes in the folders of a study."""
    for key in ("results", "figures"):
        yield from paths.mistakes_of_folder(f"study.{key}", study[key])
    results, figures = (Path(os.path.abspath(study[key])) for key in ("results", "figures"))
    if results in (figures, *figures.parents) or figures in results.parents:
        yield f"study.figures: {study['figures']!r} must not be, contain or lie in study.results, {study['results']!r}"


def _of_names(config: Mapping[str, Any]) -> Iterator[str]:
    """Names of experiments that do not exist."""
    experiments = config["experiments"]
    named = [("study.only", name) for name in config["study"].get("only", ())]
    named += [(f"figures.{name}.experiment", figure["experiment"]) for name, figure in config["figures"].items()]
    for where, name in ((where, name) for where, name in named if name not in experiments):
        close = nearest(name, experiments)
        yield f"{where}: there is no experiment {name!r}{close}; allowed: {', '.join(experiments)}"


def _limited(checked: dict[str, Any]) -> dict[str, Any]:
    """The experiments that `study.only` names, with their figures; all if it is not set."""
    only = checked["study"].get("only", checked["experiments"])
    return {
        **checked,
        "experiments": {name: block for name, block in checked["experiments"].items() if name in only},
        "figures": {name: figure for name, figure in checked["figures"].items() if figure["experiment"] in only},
    }


def _of_content(config: Mapping[str, Any]) -> Iterator[str]:
    """Mistakes in experiments and figures of the right types."""
    experiments = config["experiments"]
    for name, block in experiments.items():
        yield from (f"experiments.{name}.{mistake}" for mistake in experiment.mistakes_of_content(block))
    for name, figure in config["figures"].items():
        shown, grid = figure["experiment"], experiments[figure["experiment"]]["grid"]
        for axis, values in figure.get("show", {}).items():
            where = f"figures.{name}.show.{axis}"
            if axis not in grid:
                yield f"{where}: the grid of {shown} has no such axis{nearest(axis, grid)}"
            for absent in (value for value in values if value not in grid[axis]):
                yield f"{where}: {absent!r} is not in the grid of {shown}; allowed: {', '.join(map(str, grid[axis]))}"


def _with_plain_paths(checked: dict[str, Any]) -> dict[str, Any]:
    """The configuration with one spelling for each path: ./results//x/ is results/x."""
    for key in ("results", "figures"):
        checked["study"][key] = os.path.normpath(checked["study"][key])
    for block in checked["experiments"].values():
        plain = {file: os.path.normpath(file) for file in files_of(block["target"])}
        block["target"] = with_files(block["target"], plain)
    return checked
