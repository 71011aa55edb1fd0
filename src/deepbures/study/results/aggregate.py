"""From the cells of an experiment to the tables that figures are made from."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from ...model.trajectory import StopReason
from ...rates.measured import (
    SETTLED,
    SlopeFit,
    authors_slope_of_descent,
    authors_slope_of_flow,
    limit_rate,
    limit_slope,
    power_law_tail,
    settling_time,
    tail_drift,
    tail_slope,
)
from ..grid.axes import AXES
from .parquet import write
from .store import Store, collected, tidy

#: The slope of a tail is the sharp rate where at least this fraction of the excess loss is in the slowest direction.
SLOWEST_SHARE = 0.99
#: This module, for `code_digest`.
ROOT = "study.results.aggregate"
_INTEGER_AXES = [axis.name for axis in AXES.values() if axis.type is int]


def collect(
    parts: Sequence[Path],
    tables: Mapping[str, str | Path],
    schemas: Mapping[str, pa.Schema],
    points: Sequence[tuple[Mapping[str, float | str], str]],
    provenance: Mapping[str, Any],
) -> None:
    """Write each table of an experiment, with its axes in front of the columns of its cells.

    The table `runs` also has convergence slopes: `authors_…` and `tail_…` (slope in decades per unit time, r_squared,
    start, end), `tail_drift`, `limit_rate` (NaN unless the tail is settled), `power_law_…` (slope is the exponent of t)
    and `settling_time`; see `rates.measured`. An exponential tail is fitted only where the run converged: elsewhere its
    last decades are not the asymptotic ones. A power law is fitted where it did not. Runs with `slowest_share` have
    `in_tail`, too: 1 where the fit is of the tail itself, that is, its drift is at most `SETTLED` and its slowest
    direction holds `SLOWEST_SHARE` of the excess loss; else 0.

    Parameters
    ----------
    parts
        Files of the cells (see `results.store`). What lies beside them is deleted once all tables are written.
    tables
        File of each table.
    schemas
        Columns of each table in the cells.
    points
        Every point of the grid: its value on each axis, and the key of its cell. A cell may be at several points.
    provenance
        Further metadata besides the code digests, versions and number of the cells: experiment, digest of its
        configuration, seeds.

    Raises
    ------
    ValueError
        If a cell is missing, or a part broken: the message names the file.
    """
    keys = dict.fromkeys(key for _, key in points)
    store = collected(parts, keys, schemas)
    metadata = {**_common(store, keys), "parts": len(keys), **provenance}
    for table, path in tables.items():
        cells = (
            (key, _with_axes(_with_slopes(store, key) if table == "runs" else store.read(table, key), axes))
            for axes, key in points
        )
        # Statistics only of these: pyarrow skips the row groups of ε = 0 (stored as [-0.0, 0.0]) when asked for 0.
        write(path, cells, metadata, _INTEGER_AXES)
    tidy(parts)


def _with_slopes(store: Store, key: str) -> pa.Table:
    """Runs of a cell, with the slopes of their trajectories."""
    table = store.read("runs", key)
    converged = {
        seed: reason == StopReason.CONVERGED
        for seed, reason in zip(table["seed"].to_pylist(), table["stop_reason"].to_pylist(), strict=True)
    }
    fits, of_flows = [], "eta" not in table.column_names
    for seed, times, excess, gradient_norm in _curves(store.read("trajectories", key)):
        if not of_flows:
            authors = authors_slope_of_descent(times, excess)
        else:
            authors = authors_slope_of_flow(times, excess, gradient_norm)
        if converged[seed]:
            tail, drift, power_law = tail_slope(times, excess), tail_drift(times, excess), SlopeFit.none()
        else:
            tail, drift, power_law = SlopeFit.none(), float("nan"), power_law_tail(times, excess)
        limit = float("nan")
        if drift <= SETTLED:
            limit = limit_rate(times, excess, gradient_norm) if of_flows else limit_slope(times, excess)
        fits.append([*authors, *tail, *power_law, drift, limit, settling_time(times, excess)])
    names = [f"{kind}_{field}" for kind in ("authors", "tail", "power_law") for field in SlopeFit._fields]
    for name, values in zip([*names, "tail_drift", "limit_rate", "settling_time"], np.array(fits).T, strict=True):
        table = table.append_column(name, pa.array(values))
    if "slowest_share" in table.column_names:
        drift, share = table["tail_drift"].to_numpy(), table["slowest_share"].to_numpy()
        in_tail = (drift <= SETTLED) & (share >= SLOWEST_SHARE)  # NaN compares as False
        table = table.append_column("in_tail", pa.array(in_tail.astype(np.int8)))
    return table


def _common(store: Store, keys: Iterable[str]) -> dict[str, Any]:
    """Code and versions of the cells: one value where all cells agree, else all values."""
    found: dict[str, set[str]] = {}
    for key in keys:
        for name, value in store.provenance(key).items():
            found.setdefault(name, set()).update(value if isinstance(value, list) else [value])
    return {name: values.pop() if len(values) == 1 else sorted(values) for name, values in found.items()}


def _curves(table: pa.Table) -> Iterator[tuple[int, np.ndarray, np.ndarray, np.ndarray]]:
    names = ["seed", "time", "excess", "gradient_norm"]
    seeds, *columns = (table[name].to_numpy() for name in names)
    starts = np.flatnonzero(np.diff(seeds, prepend=-1))
    for start, stop in zip(starts, [*starts[1:], len(seeds)], strict=True):
        yield int(seeds[start]), *(column[start:stop] for column in columns)


def _with_axes(table: pa.Table, position: Mapping[str, float | str]) -> pa.Table:
    """Put the axes of a cell in front."""
    for column, (axis, value) in enumerate(position.items()):
        if AXES[axis].type is str:
            values = pa.array([value] * len(table), pa.string())  # also for an empty table
        else:
            values = pa.array(np.full(len(table), value, dtype=np.int32 if axis in _INTEGER_AXES else np.float64))
        table = table.add_column(column, axis, values)
    return table
