"""Small cells of the experiments on the landscape, and their closed forms, for the tests of tables and figures."""

import functools
import itertools

import numpy as np
import pytest
from collected import collect_cells

from deepbures.plotting import frames
from deepbures.study.cell.problem import make_loss
from deepbures.study.grid.cells import cells
from deepbures.study.results import provenance
from deepbures.study.run import checked, run_cell

LOSSES = ["bures-wasserstein", "frobenius"]
ZIPF = {"spectrum": "zipf", "mode": "eigenvalues"}
#: What each kind looks at, and its axes beyond smin = 0.5: small, but with all that its figures show.
BLOCKS = {
    "hessian": ({"points": 6}, {"loss_name": LOSSES, "epsilon": [0, 0.1], "rank": [2], "depth": [1, 2, 3]}),
    "blow_up": (
        {"singular_values": [1, 1e-2, 1e-3, 1e-5], "vanishing": [1, 2]},
        {"epsilon": [0, 0.01, 0.1], "rank": [2, 4], "depth": [1, 2]},
    ),
    "paths": ({"points": 4, "samples": 5}, {"loss_name": LOSSES, "epsilon": [0], "rank": [2], "depth": [1, 2, 3]}),
    "expansion": ({"samples": 9, "reach": 0.02}, {"epsilon": [0, 0.1], "rank": [2], "depth": [1, 3]}),
    "escape": ({"points": 3, "perturbation": 1e-4}, {"epsilon": [0.1], "rank": [2], "depth": [1, 2]}),
    "surface": ({"starts": 4, "samples": 5}, {"epsilon": [0, 0.1], "rank": [1], "depth": [1, 3]}),
    "critical_search": ({"starts": 4}, {"loss_name": LOSSES, "epsilon": [0.1], "rank": [2], "depth": [1, 2]}),
}
DIMENSIONS = {"escape": 3, "surface": 2, "critical_search": 3}
SEEDS = {"hessian": 2, "blow_up": 2, "paths": 2, "critical_search": 2}
KINDS = list(BLOCKS)


def study(kind):
    """Configuration of one small experiment of a kind, of its own name."""
    options, grid = BLOCKS[kind]
    block = {"kind": kind, "dimension": DIMENSIONS.get(kind, 4), "target": ZIPF, "landscape": options}
    if "loss_name" not in grid:
        block["loss"] = "bures-wasserstein"
    return {"study": {"seed": 9}, "experiments": {kind: {**block, "grid": {**grid, "smin": [0.5]}}}}


def settings(kind, landscape=None, **changes):
    """Settings of one cell, two layers where nothing else is said."""
    options, grid = BLOCKS[kind]
    return {
        "study_seed": 9,
        "kind": kind,
        "loss": "bures-wasserstein",
        "dimension": DIMENSIONS.get(kind, 4),
        "target": ZIPF,
        "landscape": {key: {**options, **(landscape or {})}[key] for key in options},
        "epsilon": 0.1,
        "smin": 0.5,
        "rank": grid["rank"][0],
        "depth": 2,
        **changes,
    }


def frame(kind, seeds=(0,), **changes):
    """The (first) table of one cell."""
    return next(iter(run_cell(settings(kind, **changes), seeds).values())).to_pandas()


def loader(tmp_path_factory):
    """Loader of all tables of the small experiment of a kind, computed once and collected as the study does."""

    @functools.cache
    def load(kind):
        folder, config = tmp_path_factory.mktemp(kind), study(kind)
        points = [(cell.axes, cell.settings) for cell in cells(config, kind)]
        with pytest.MonkeyPatch.context() as patch:
            # Every cell records the versions of its packages; looking them up takes longer than most cells here.
            patch.setattr(provenance, "version", functools.cache(provenance.version))
            tables = collect_cells(folder, points, range(SEEDS.get(kind, 1)))
        return {name: frames.read(path) for name, path in tables.items()}

    return load


def frame_of_target(folder, kind, covariance, seeds=(0,), table=None, **changes):
    """A table (the first one) of one cell whose target is the given matrix."""
    file = folder / f"{len(list(folder.iterdir()))}.npy"
    np.save(file, covariance)
    drawn = settings(kind, smin=-1, dimension=len(covariance), target={"covariance": str(file)}, **changes)
    found = run_cell(drawn, seeds)
    return found[table or next(iter(found))].to_pandas()


def loss_of(kind, loss="bures-wasserstein", epsilon=0.1, seed=0, **changes):
    """The loss of a cell, with the target of a seed."""
    return make_loss(checked(settings(kind, loss=loss, epsilon=epsilon, **changes)), seed)


def missing(loss):
    """What each direction that is left empty adds to the loss (paper.md section 3)."""
    if loss.name == "frobenius":
        return loss.eigenvalues**2
    return (np.sqrt(loss.eigenvalues) - np.sqrt(loss.epsilon)) ** 2


def values_in_order(loss, rank):
    """L(W_J) over all J of `rank` elements, lowest first."""
    return sorted(missing(loss).sum() - missing(loss)[list(J)].sum() for J in all_sets(loss, rank))


def all_sets(loss, rank):
    return list(itertools.combinations(range(loss.dimension), rank))


def inversions(kept, dimension):
    """Pairs a in J, b not in J with λ_b > λ_a."""
    return sum(b < a for a in kept for b in range(dimension) if b not in kept)


def rows(table):
    return table.to_pylist()
