"""Reading, selecting and averaging the tables that figures are made from."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ..linalg.psd import Array
from ..study.grid.axes import AXES, axes_of
from ..study.results import parquet
from . import style
from .style import Colors, Look

#: Floor of logarithms, relative to the largest value of a column: smaller values are rounding, or a sign change of a
#: distance.
_FLOOR = 1e-17
_SHORT = {"bures-wasserstein": "BW"}


def read(path: str | Path, show: Mapping[str, Sequence[float]] | None = None) -> pd.DataFrame:
    """Read a table, only the rows whose axes have one of the values to `show`; a broken or edited one is refused."""
    return parquet.read(path, show=show)


def label(**values: float | str) -> str:
    """Legend entry such as ε = 0.1, N = 10, in mathematical type; names as they are, and no s_min that is none."""
    return ", ".join(
        value.replace("_", " ") if isinstance(value, str) else f"${AXES[axis].symbol} = {value:g}$"
        for axis, value in values.items()
        if (axis, value) != ("smin", -1)
    )


def label_of_cell(frame: pd.DataFrame, axes: Iterable[str] = ()) -> str:
    """Legend entry of a frame with a single value on each of the axes, by default on all axes."""
    return label(**{axis: only_value(frame, axis) for axis in axes or axes_of(frame.columns)})


def keys_of(frame: pd.DataFrame) -> list[str]:
    """Columns that identify a run: its axes and its seed."""
    return [*axes_of(frame.columns), "seed"]


def groups(frame: pd.DataFrame, by: str) -> Iterator[tuple[Any, pd.DataFrame]]:
    """Sub-frames by one column, in ascending order."""
    yield from frame.groupby(by, sort=True)


def colored(frame: pd.DataFrame, by: str, colors: Colors = style.sequential) -> Iterator[tuple[Any, pd.DataFrame, Any]]:
    """Sub-frames by one column, in ascending order, each with a colour of its own."""
    for (value, part), color in zip(groups(frame, by), colors(frame[by].nunique()), strict=True):
        yield value, part, color


def marked(frame: pd.DataFrame, by: str, colors: Colors = style.sequential) -> Iterator[tuple[Any, pd.DataFrame, Look]]:
    """As `colored`, each with the keywords of a colour and a marker of its own."""
    for (value, part), look in zip(groups(frame, by), style.looks(frame[by].nunique(), colors), strict=True):
        yield value, part, look


def by_loss(frame: pd.DataFrame) -> Iterator[tuple[str, pd.DataFrame]]:
    """Sub-frames by loss and smoothing, each with its name; the square loss, which has no smoothing, once."""
    for name, cells in groups(frame, "loss_name"):
        for epsilon, part in groups(cells, "epsilon"):
            yield name_of_loss(name, epsilon), part
            if name == "frobenius":
                break


def name_of_loss(name: str, epsilon: float) -> str:
    """Legend entry of a loss, with its smoothing if it has one."""
    return "Frobenius" if name == "frobenius" else f"{_SHORT.get(name, name)}, {label(epsilon=epsilon)}"


def panels(frame: pd.DataFrame, by: str, height: float, **options: Any) -> tuple[Figure, list[tuple[Axes, Any, Any]]]:
    """Figure with a panel for each value of a column; the panels, each with its value and its rows."""
    parts = list(groups(frame, by))
    figure, axes = style.row(len(parts), height, **options)
    return figure, [(axis, *part) for axis, part in zip(axes, parts, strict=True)]


def only_value(frame: pd.DataFrame, axis: str) -> Any:
    """The only value of an axis in a frame.

    Raises
    ------
    ValueError
        If the frame holds several: the figure's `show` must name one.
    """
    values = frame[axis].unique()
    if len(values) != 1:
        raise ValueError(f"this figure shows one value of {axis}, not {len(values)}: name it under `show`")
    return values[0]


def over_seeds(frame: pd.DataFrame, columns: Sequence[str], within: Sequence[str] = ()) -> pd.DataFrame:
    """Mean, sample standard deviation (ddof 1; NaN for one seed) and number of seeds with a value, one row per cell.

    Or one row per cell and value of the columns `within` it, such as its critical points.
    """
    grouped = frame.groupby([*axes_of(frame.columns), *within], sort=True)
    parts = [
        grouped[list(columns)].mean().add_suffix("_mean"),
        grouped[list(columns)].std(ddof=1).add_suffix("_std"),
        grouped[list(columns)].count().add_suffix("_count"),
    ]
    return pd.concat(parts, axis=1).reset_index()


def curves(
    trajectories: pd.DataFrame, column: str, times: Array, *, against: str = "time", logarithmic: bool = True
) -> Array:
    """A column of every seed's trajectory at common times (or steps): (seeds, times), NaN after a run's end.

    Interpolated linearly in the column `against`, in the logarithm of the column where `logarithmic`.
    """
    for axis in axes_of(trajectories.columns):
        only_value(trajectories, axis)
    result = []
    floor = _FLOOR * float(trajectories[column].abs().max())
    for _, run in trajectories.groupby("seed", sort=True):
        values = run[column].to_numpy(dtype=float)
        if logarithmic:
            values = np.log10(np.maximum(values, floor))
        result.append(np.interp(times, run[against], values, right=np.nan))
    return 10 ** np.array(result) if logarithmic else np.array(result)


def time_grid(trajectories: pd.DataFrame, number: int = 300) -> Array:
    """Logarithmic times from the first step of the fastest run to the end of the slowest run: two to four decades."""
    first, last = trajectories.loc[trajectories["time"] > 0, "time"].agg(["min", "max"])
    return np.geomspace(np.clip(first, 1e-4 * last, 1e-2 * last), last, number)


def band(values: Array, *, logarithmic: bool = True) -> tuple[Array, Array, Array]:
    """Mean and mean ∓ one sample standard deviation (ddof 1) over seeds (first axis); `logarithmic`: of logarithms.

    NaN once one of the seeds has ended. A single seed has no deviation: the bounds are NaN.
    """
    data = np.log10(values) if logarithmic else values
    mean = data.mean(axis=0)
    deviation = data.std(axis=0, ddof=1) if len(data) > 1 else np.full_like(mean, np.nan)
    bounds = mean, mean - deviation, mean + deviation
    return tuple(10**b for b in bounds) if logarithmic else bounds


def quantiles(values: pd.Series, by: pd.Series) -> tuple[pd.Index, tuple[pd.Series, pd.Series, pd.Series]]:
    """The keys of the groups in ascending order, and the median, 10 % and 90 % quantiles of each group."""
    grouped = values.groupby(by)
    return grouped.median().index, (grouped.median(), grouped.quantile(0.1), grouped.quantile(0.9))
