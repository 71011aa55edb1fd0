"""From the cells of an experiment to the tables that figures are made of."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from .grid import INTEGER_AXES, NAME_AXES
from .rates import SlopeFit, authors_slope_of_descent, authors_slope_of_flow, settling_time, tail_slope
from .store import Store, write_cells


def collect(
    store: Store,
    axes: Sequence[Mapping[str, float | str]],
    keys: Sequence[str],
    provenance: Mapping[str, Any] | None = None,
) -> None:
    """Write each table of an experiment, with its axes in front of the columns of its cells, into the store's folder.

    The table `runs` has convergence slopes, too: `authors_…` and `tail_…` (slope in decades per unit time, r_squared,
    start, end) and `settling_time`; see `rates`. A tail is fitted only where the run converged: elsewhere its last
    decades are not the asymptotic ones. After that the tables hold the cells (`Store.settle`).

    Parameters
    ----------
    store
        The cells.
    axes, keys
        Every point of the grid: its value on each axis, and which cell is there. One may be at several points.
    provenance
        What the metadata should say besides the code digests, versions and number of the cells: experiment, digest of
        its configuration, seeds.

    Raises
    ------
    ValueError
        If a cell is missing or broken: the message names the file.
    """
    metadata = {**_common(store, keys), "parts": len(set(keys)), **(provenance or {})}
    for table in store.schemas:
        cells = (
            (key, _with_axes(_with_slopes(store, key) if table == "runs" else store.read(table, key), position))
            for position, key in zip(axes, keys, strict=True)
        )
        # Statistics only of these: pyarrow skips the row groups of ε = 0 (stored as [-0.0, 0.0]) when asked for 0.
        write_cells(store.folder / f"{table}.parquet", cells, metadata, INTEGER_AXES)
    store.settle(keys)


def _with_slopes(store: Store, key: str) -> pa.Table:
    """Runs of a cell, with the slopes of their trajectories."""
    table = store.read("runs", key)
    converged = {
        seed: reason == "converged"
        for seed, reason in zip(table["seed"].to_pylist(), table["stop_reason"].to_pylist(), strict=True)
    }
    fits = []
    for seed, times, excess, gradient_norm in _curves(store.read("trajectories", key)):
        if "eta" in table.column_names:
            authors = authors_slope_of_descent(times, excess)
        else:
            authors = authors_slope_of_flow(times, excess, gradient_norm)
        tail = tail_slope(times, excess) if converged[seed] else SlopeFit.none()
        fits.append([*authors, *tail, settling_time(times, excess)])
    names = [f"{kind}_{field}" for kind in ("authors", "tail") for field in SlopeFit._fields]
    for name, values in zip([*names, "settling_time"], np.array(fits).T, strict=True):
        table = table.append_column(name, pa.array(values))
    return table


def _common(store: Store, keys: Sequence[str]) -> dict[str, Any]:
    """What the cells were computed with: one value where they have it in common, else all of them."""
    found: dict[str, set[str]] = {}
    for key in dict.fromkeys(keys):
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
        if axis in NAME_AXES:
            values = pa.array([value] * len(table))
        else:
            values = pa.array(np.full(len(table), value, dtype=np.int32 if axis in INTEGER_AXES else np.float64))
        table = table.add_column(column, axis, values)
    return table
