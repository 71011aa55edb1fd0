"""Cells computed and collected as the study does, without Snakemake."""

from deepbures.study.kinds import kind
from deepbures.study.results.aggregate import collect
from deepbures.study.results.store import Store
from deepbures.study.run import complete


def collect_cells(folder, points, seeds, provenance=None):
    """The store of an experiment of one kind, with its tables: `points` are the axes and settings of each cell."""
    store = Store(folder, kind(points[0][1]["kind"]).TABLES)
    keys = []
    for _, settings in points:
        held, mistakes, _ = complete(store, [(settings, seeds)])
        assert mistakes == []
        keys += held
    collect(store, [axes for axes, _ in points], keys, provenance)
    return store
