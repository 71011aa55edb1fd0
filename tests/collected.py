"""Cells computed and collected as the study does, without Snakemake."""

from deepbures.aggregate import collect
from deepbures.experiment import complete
from deepbures.experiment.kinds import kind
from deepbures.store import Store


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
