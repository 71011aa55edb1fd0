"""Collect the cells of an experiment into its tables."""

from pathlib import Path

from deepbures.study.kinds import kind
from deepbures.study.results.aggregate import collect
from deepbures.study.results.store import Store

if __name__ == "__main__":
    jobs, parameters = snakemake.params.jobs, snakemake.params
    store = Store(parameters.folder, kind(parameters.kind).TABLES)
    try:
        collect(store, parameters.axes, parameters.cells, parameters.provenance)
    except ValueError as broken:
        # The lists of the jobs say that the cells are there: those that are wrong go, and the jobs run again.
        for path, keys in jobs.items():
            if not all(key in store for key in keys):
                Path(path).unlink(missing_ok=True)
        raise SystemExit(f"{broken}; run again: it will be computed anew") from None
