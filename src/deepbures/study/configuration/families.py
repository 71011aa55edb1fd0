"""Families of figures and tables: what an experiment must provide so that one can be drawn from it."""

from __future__ import annotations

import difflib
from collections.abc import Container, Iterable, Iterator, Mapping
from typing import Any

from ..kinds import kind

Family = Mapping[str, Any]


def mistakes(config: Mapping[str, Any], families: Mapping[str, Family]) -> Iterator[str]:
    """Reasons why a family that a configuration names cannot be drawn: one line each.

    Parameters
    ----------
    config
        A configuration whose experiments have been checked.
    families
        By name, as in `workflow/figures.yaml`.
    """
    for name, figure in config["figures"].items():
        if name not in families:
            yield f"figures: unknown key {name!r}{nearest(name, families)}; allowed: {', '.join(families)}"
            continue
        experiment = figure["experiment"]
        block = config["experiments"][experiment]
        for key, mistake in _mistakes(families[name], experiment, block, figure.get("show", {})):
            yield f"figures.{name}.{key}: {mistake}"


def _mistakes(
    family: Family, experiment: str, block: Mapping[str, Any], show: Mapping[str, list[Any]]
) -> Iterator[tuple[str, str]]:
    """Key and text of each mistake."""
    grid = block["grid"]
    if block["kind"] not in family["kinds"]:
        allowed = " or ".join(family["kinds"])
        yield "experiment", f"{experiment!r} is of the kind {block['kind']}; this family can be drawn of {allowed}"
        return
    for axis in (axis for axis in family.get("axes", ()) if axis not in grid):
        yield "experiment", f"this family needs an axis {axis}, which the grid of {experiment!r} does not have"
    sections = kind(block["kind"]).OPTIONS
    options = {key: value for section in sections for key, value in block.get(section, {}).items()}
    for option, value in family.get("options", {}).items():
        if options.get(option) != value:
            yield "experiment", f"this family needs {option}: {str(value).lower()} in {experiment!r}"
    shown = {**grid, **show}
    for axis, value in family.get("values", {}).items():
        if value not in shown[axis]:
            yield f"show.{axis}", f"this family needs {value} among its values, which are {_listed(shown[axis])}"
    for axis in _with_several(shown, family.get("several", grid)):
        yield f"show.{axis}", f"this family shows one value of it, not {_listed(shown[axis])}: name one"
    for axis in _with_several(grid, family.get("several_in_grid", grid)):
        yield "experiment", f"this family needs one {axis} in the grid of {experiment!r}, not {_listed(grid[axis])}"


def _with_several(values: Mapping[str, list[Any]], allowed: Container[str]) -> list[str]:
    return [axis for axis, some in values.items() if len(some) > 1 and axis not in allowed]


def _listed(values: list[Any]) -> str:
    return ", ".join(map(str, values))


def nearest(word: str, candidates: Iterable[str], question: str = "did you mean {}?") -> str:
    """Which of the candidates a misspelt word may have meant, as the end of a message."""
    close = difflib.get_close_matches(word, candidates, n=1)
    return f", {question.format(repr(close[0]))}" if close else ""
