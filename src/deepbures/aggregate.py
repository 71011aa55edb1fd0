"""From the files of single jobs to the tables that figures are made of."""

from __future__ import annotations

import functools
import itertools
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from .grid import INTEGER_AXES, NAME_AXES
from .rates import (
    SETTLED,
    SlopeFit,
    authors_slope_of_descent,
    authors_slope_of_flow,
    power_law_tail,
    settling_time,
    tail_drift,
    tail_slope,
)
from .store import PartsFile, read_metadata, replacing

#: Share of the excess loss in the slowest direction from which on a tail is that of the sharp rate.
SLOWEST_SHARE = 0.9
#: Statistics only for these: with them pyarrow skips the row groups of ε = 0 (stored as [-0.0, 0.0]) when asked for 0.
_WRITING = {"compression": "zstd", "write_statistics": list(INTEGER_AXES)}


def collect_runs(
    destination: str | Path,
    axes: Iterable[Mapping[str, float | str]],
    runs: Sequence[str | Path],
    trajectories: Sequence[str | Path],
    keys: Sequence[str] | None = None,
    provenance: Mapping[str, Any] | None = None,
) -> None:
    """Write one table of all runs of an experiment, with its axes and convergence slopes as columns.

    Adds `authors_…` and `tail_…` (slope in decades per unit time, r_squared, start, end), `tail_drift`,
    `power_law_…` (slope is the exponent of t) and `settling_time`; see `rates`. An exponential tail is fitted only
    where the run converged: elsewhere its last decades are not the asymptotic ones. A power law is fitted where
    it did not. Of flows also `in_tail`: 1 where the fit is of the tail itself, its drift at most `SETTLED` and its
    slowest direction holding `SLOWEST_SHARE` of the excess loss; else 0.

    Parameters
    ----------
    destination
        Parquet file.
    axes
        Position in the grid of each file: its value on each axis.
    runs, trajectories
        Files of the jobs, in the same order.
    keys, provenance
        See `collect`.
    """
    tables = []
    all_parts = zip(axes, _parts(runs, keys), _parts(trajectories, keys), strict=True)
    for position, table, trajectories_of_part in all_parts:
        converged = dict(
            zip(table["seed"].to_pylist(), (r == "converged" for r in table["stop_reason"].to_pylist()), strict=True)
        )
        fits = []
        for seed, times, excess, gradient_norm in _curves(trajectories_of_part):
            if "eta" in table.column_names:
                authors = authors_slope_of_descent(times, excess)
            else:
                authors = authors_slope_of_flow(times, excess, gradient_norm)
            if converged[seed]:
                tail, drift, power_law = tail_slope(times, excess), tail_drift(times, excess), SlopeFit.none()
            else:
                tail, drift, power_law = SlopeFit.none(), float("nan"), power_law_tail(times, excess)
            fits.append([*authors, *tail, *power_law, drift, settling_time(times, excess)])
        names = [f"{kind}_{field}" for kind in ("authors", "tail", "power_law") for field in SlopeFit._fields]
        names += ["tail_drift", "settling_time"]
        for name, values in zip(names, np.array(fits).T, strict=True):
            table = table.append_column(name, pa.array(values))
        if "slowest_share" in table.column_names:
            drift, share = table["tail_drift"].to_numpy(), table["slowest_share"].to_numpy()
            in_tail = (drift <= SETTLED) & (share >= SLOWEST_SHARE)  # NaN compares as False
            table = table.append_column("in_tail", pa.array(in_tail.astype(np.int8)))
        tables.append(_with_axes(table, position))
    with replacing(destination) as temporary:
        table = pa.concat_tables(tables).replace_schema_metadata(_metadata(runs, keys, provenance))
        pq.write_table(table, temporary, **_WRITING)


def collect(
    destination: str | Path,
    axes: Iterable[Mapping[str, float | str]],
    files: Sequence[str | Path],
    keys: Sequence[str] | None = None,
    provenance: Mapping[str, Any] | None = None,
) -> None:
    """Write the files of an experiment's jobs as one table, with its axes as columns; one row group a part.

    Parameters
    ----------
    destination, axes, files
        As in `collect_runs`.
    keys
        What to take from each file, by `store.part_key`; default: its only part.
    provenance
        What the metadata should say besides the code digests, versions and number of the files: experiment,
        digest of its configuration, seeds.
    """
    with replacing(destination) as temporary:
        writer = None
        metadata = _metadata(files, keys, provenance)
        for position, part in zip(axes, _parts(files, keys), strict=True):
            table = _with_axes(part, position).replace_schema_metadata(metadata)
            writer = writer or pq.ParquetWriter(temporary, table.schema, **_WRITING)
            writer.write_table(table)
        if writer is None:
            raise ValueError("there are no files to collect")
        writer.close()


def _parts(files: Sequence[str | Path], keys: Sequence[str] | None) -> Iterator[pa.Table]:
    """The part of each file that is asked for."""
    opened = functools.lru_cache(maxsize=256)(PartsFile)  # those of shared jobs are asked for again and again
    for file, key in zip(files, keys or itertools.repeat(None), strict=keys is not None):
        parts = opened(file)
        if key is None and len(parts.keys) > 1:
            raise ValueError(f"{file} holds {len(parts.keys)} parts: keys must say which is asked for")
        yield parts.read(key or next(iter(parts.keys)))


def _metadata(
    files: Sequence[str | Path], keys: Sequence[str] | None, provenance: Mapping[str, Any] | None
) -> dict[str, str]:
    """Provenance of an aggregate: what was said of it, and what its files have in common or not."""
    found: dict[str, set[str]] = {}
    for file in dict.fromkeys(map(str, files)):
        for key, value in read_metadata(file).items():
            if key != "parts":
                found.setdefault(key, set()).add(value)
    common = {key: values.pop() if len(values) == 1 else sorted(values) for key, values in found.items()}
    parts = len(set(keys or map(str, files)))
    return {"deepbures": json.dumps({**common, "parts": parts, **(provenance or {})}, sort_keys=True)}


def _curves(table: pa.Table) -> Iterator[tuple[int, np.ndarray, np.ndarray, np.ndarray]]:
    names = ["seed", "time", "excess", "gradient_norm"]
    seeds, *columns = (table[name].to_numpy() for name in names)
    starts = np.flatnonzero(np.diff(seeds, prepend=-1))
    for start, stop in zip(starts, [*starts[1:], len(seeds)], strict=True):
        yield int(seeds[start]), *(column[start:stop] for column in columns)


def _with_axes(table: pa.Table, position: Mapping[str, float | str]) -> pa.Table:
    """Put the cell's axes in front, and leave its metadata (which the job's own file keeps) behind."""
    for column, (axis, value) in enumerate(position.items()):
        if axis in NAME_AXES:
            values = pa.array([value] * len(table))
        else:
            values = pa.array(np.full(len(table), value, dtype=np.int32 if axis in INTEGER_AXES else np.float64))
        table = table.add_column(column, axis, values)
    return table.replace_schema_metadata(None)
