"""The axes of the grid: what each is called in paths, figures and tables, and which key it may replace."""

from __future__ import annotations

from collections.abc import Container, Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Axis:
    """An axis of the grid.

    Attributes
    ----------
    name
        In the configuration, paths and tables.
    symbol
        In figures, as LaTeX; empty for an axis of names.
    of
        Key of an experiment's block that it replaces, such as `initialization.scale`. Its values are checked like
        that key's; an axis that replaces no key is in the schema under `grid`.
    type
        float, int or str.
    heading
        In tables, as LaTeX; by default the symbol, or the name.
    """

    name: str
    symbol: str = ""
    of: str = ""
    type: type = float
    heading: str = ""

    @property
    def column(self) -> str:
        """Its heading in a table."""
        return self.heading or (f"${self.symbol}$" if self.symbol else self.name)


#: All axes by name, in the order in which they nest in paths and tables. Every experiment has the four in the middle.
AXES = {
    axis.name: axis
    for axis in (
        Axis("loss_name", of="loss", type=str, heading="loss"),
        Axis("initialization", of="initialization.kind", type=str),
        Axis("balance", of="initialization.balance", type=str),
        Axis("initial_scale", r"\sigma", of="initialization.scale", heading="scale of $W(0)$"),
        Axis("epsilon", r"\varepsilon"),
        Axis("smin", r"s_{\min}"),
        Axis("rank", "k", type=int),
        Axis("depth", "N", type=int),
        Axis("step_size", r"\eta"),
        Axis("relative_step", r"\eta / \eta_{\max}", heading=r"$\eta\,\lambda_{\max}/2$"),
        Axis("theorem_step", r"\eta / \min(\eta_1, \eta_2, \eta_3)", heading=r"$\eta/\min(\eta_1,\eta_2,\eta_3)$"),
    )
}
#: The axes for descent's step size; an experiment has one of them.
STEP_AXES = ("step_size", "relative_step", "theorem_step")


def canonical(value: float | str) -> str:
    """One spelling for each value: 1 and 1.0 are "1", 1e-3 is "0.001"; names stay as they are."""
    return value if isinstance(value, str) else f"{float(value) + 0.0:.12g}"  # + 0.0: -0.0 is "0" too


def axes_of(names: Container[str]) -> list[str]:
    """The axes among some names (keys of a grid, columns of a table), in their order."""
    return [axis for axis in AXES if axis in names]


def value_of(block: Mapping[str, Any], key: str) -> Any:
    """The value in a block of the configuration at a key such as `initialization.scale`; None if there is none."""
    section, _, name = key.rpartition(".")
    return (block.get(section, {}) if section else block).get(name)


def placed(settings: Mapping[str, Any], key: str, value: Any) -> dict[str, Any]:
    """The settings with a value at a key such as `initialization.scale`."""
    section, _, name = key.rpartition(".")
    return {**settings, **({section: {**settings[section], name: value}} if section else {name: value})}
