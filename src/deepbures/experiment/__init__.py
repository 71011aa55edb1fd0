"""One cell of the grid: what is drawn, trained and measured for a block of seeds, as tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa

from .. import store
from . import blow_up, critical_search, descent, escape, expansion, flow, hessian, paths, surface

#: By the `kind` of the settings: columns of each table, for one seed after the other.
_RUN = {
    "flow": flow.run,
    "descent": descent.run,
    "hessian": hessian.run,
    "blow_up": blow_up.run,
    "paths": paths.run,
    "expansion": expansion.run,
    "escape": escape.run,
    "surface": surface.run,
    "critical_search": critical_search.run,
}
#: Settings that cells of every kind have.
_REQUIRED = ("study_seed", "kind", "loss", "dimension", "target", "epsilon", "smin", "rank", "depth")


def run_cell(settings: Mapping[str, Any], seeds: Sequence[int]) -> dict[str, pa.Table]:
    """Compute one cell of an experiment.

    Parameters
    ----------
    settings
        `grid.Cell.settings`.
    seeds
        Seed indices.

    Returns
    -------
    dict
        The tables that `store.SCHEMAS` names for the `kind` of the cell, such as `runs` (one row a
        seed) and `trajectories` (one row a seed and sample).
    """
    for key in (key for key in _REQUIRED if key not in settings):
        raise ValueError(f"the settings of a cell must hold {key!r}; they hold {', '.join(settings)}")
    kind = settings["kind"]
    if kind not in _RUN:
        raise ValueError(f"kind must be one of {', '.join(_RUN)}, not {kind!r}")
    parts = list(_RUN[kind](settings, seeds))
    metadata = {"cell": dict(settings), **store.provenance(f"experiment.{kind}")}
    tables = {}
    for table, schema in store.SCHEMAS[kind].items():
        columns = {name: [value for part in parts for value in part[table][name]] for name in schema.names}
        tables[table] = store.table_of(columns, schema, metadata)
    return tables
