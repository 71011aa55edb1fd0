"""The axes of the grid: their names in paths, figures and tables, and the keys that they replace."""

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
        Key of an experiment's block that the axis replaces, such as `initialization.scale`; its values are checked
        like that key's. Empty for an axis of a value that every cell has, a field of `cell.settings.Settings`.
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
        """The heading of its column in a table."""
        return self.heading or (f"${self.symbol}$" if self.symbol else self.name)


#: All axes by name, in the order of their nesting in paths and tables. Every experiment has the four from `epsilon` on.
AXES = {
    axis.name: axis
    for axis in (
        Axis("loss_name", of="loss", type=str, heading="loss"),
        Axis("blur", r"\sigma", of="loss_options.blur", heading=r"blur $\sigma$"),
        Axis("initialization", of="initialization.kind", type=str),
        Axis("balance", of="initialization.balance", type=str),
        Axis("initial_scale", r"\sigma", of="initialization.scale", heading="scale of $W(0)$"),
        Axis("imbalance", r"\delta", of="initialization.imbalance"),
        Axis("width", "h", of="initialization.width", type=int),
        Axis("epsilon", r"\varepsilon"),
        Axis("smin", r"s_{\min}"),
        Axis("rank", "k", type=int),
        Axis("depth", "N", type=int),
        Axis("step_size", r"\eta"),
        Axis("relative_step", r"\eta / \eta_{\max}", heading=r"$\eta\,\lambda_{\max}/2$"),
        Axis("theorem_step", r"\eta / \min(\eta_1, \eta_2, \eta_3)", heading=r"$\eta/\min(\eta_1,\eta_2,\eta_3)$"),
        Axis("proved_step", r"\eta / \bar\eta"),
    )
}
#: The axes for descent's step size; an experiment has one of them.
STEP_AXES = ("step_size", "relative_step", "theorem_step", "proved_step")


def canonical(value: float | str) -> str:
    """The only spelling of a value: "1" for 1 and 1.0, "0.001" for 1e-3; names are not changed."""
    return value if isinstance(value, str) else f"{float(value) + 0.0:.12g}"  # + 0.0: -0.0 is "0" too


def axes_of(names: Container[str]) -> list[str]:
    """The axes among some names, such as the columns of a table, in the order of `AXES`."""
    return [axis for axis in AXES if axis in names]


def value_of(block: Mapping[str, Any], key: str) -> Any:
    """The value in a block of the configuration at a key such as `initialization.scale`; None if it is not given."""
    section, _, name = key.rpartition(".")
    return (block.get(section, {}) if section else block).get(name)


def placed(settings: Mapping[str, Any], key: str, value: Any) -> dict[str, Any]:
    """A copy of the settings with another value at a key such as `initialization.scale`."""
    section, _, name = key.rpartition(".")
    return {**settings, **({section: {**settings.get(section, {}), name: value}} if section else {name: value})}
