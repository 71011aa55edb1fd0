"""Cells computed and collected as the study does, without Snakemake."""

import json
from pathlib import Path

import pandas as pd
import pyarrow as pa

from deepbures.study.grid.cells import cells
from deepbures.study.kinds import kind
from deepbures.study.results import parquet
from deepbures.study.results.aggregate import collect
from deepbures.study.results.code_digest import code_digest
from deepbures.study.results.schema import VECTOR
from deepbures.study.results.store import key_of, part_of
from deepbures.study.run import complete, roots, run_cell


def collect_cells(folder, points, seeds, provenance=None):
    """Files of the tables of an experiment of one kind: `points` are the axes and settings of each cell."""
    name = points[0][1]["kind"]
    schemas, code = kind(name).TABLES, code_digest(*roots(name))
    distinct = {json.dumps(settings, sort_keys=True): settings for _, settings in points}
    part = Path(folder) / ".cells/plan/job.part"
    complete(part, [(settings, seeds) for settings in distinct.values()])
    block = f"{seeds[0]}-{seeds[-1]}"
    tables = {table: Path(folder) / f"{table}.parquet" for table in schemas}
    keys = [(axes, key_of(part_of(settings, block), code)) for axes, settings in points]
    collect([part], tables, schemas, keys, provenance or {})
    part.unlink()  # as Snakemake does
    return tables


def tables_in(folder, config, experiment, seeds):
    """Write the tables of an experiment of a configuration, computed for some seeds."""
    tables = {}
    for cell in cells(config, experiment):
        for name, table in run_cell(dict(cell.settings), range(seeds)).items():
            tables.setdefault(name, []).append(table.to_pandas().assign(**cell.axes))
    for name, frames in tables.items():
        write_table(folder / f"{name}.parquet", pd.concat(frames, ignore_index=True))


def write_table(path, frame):
    """A table of a test's own, written as the study writes its tables: readers refuse what carries no digests."""
    table = pa.Table.from_pandas(frame, preserve_index=False)
    for index, field in enumerate(table.schema):
        if pa.types.is_large_string(field.type) or pa.types.is_dictionary(field.type):
            table = table.set_column(index, field.name, table[field.name].cast(pa.string()))
        elif pa.types.is_list(field.type):
            table = table.set_column(index, field.name, table[field.name].cast(VECTOR))
    parquet.write(path, [("all", table)], {})
