"""Low rank plus sparse: recovery of a covariance with corrupted entries by several methods."""

from dataclasses import dataclass, field

import numpy as np

from ...neighbours.sparse_recovery import METHODS, draw_corrupted, recover_low_rank
from ..cell import checks
from ..cell.settings import Settings
from ..grid.seeds import generator
from ..results.schema import COUNT, FLAG, FLOAT, NAME, Tables, schema

#: For each fraction of corrupted entries (`share`) and method; `error` is ‖W Wᵀ − Σ*‖_F / ‖Σ*‖_F at the end.
TABLES = {"recoveries": schema(share=FLOAT, method=NAME, steps=COUNT, converged=FLAG, error=FLOAT)}
#: `target.spectrum` in the configuration.
SPECTRUM = "geometric"
COST = 2.0


@dataclass(frozen=True)
class Options:
    """Keys of `landscape` in the configuration; see config/README.md."""

    condition: float = field(metadata={"minimum": 1})
    corrupted: tuple[float, ...] = field(metadata={"minimum": 0, "maximum": 1})
    max_steps: int = field(metadata={"minimum": 1})


OPTIONS = {"landscape": Options}


#: One layer; the kind sets targets and ε itself.
check = checks.one_layer


def run(settings: Settings, seed: int) -> Tables:
    """Rows of the table `recoveries`."""
    options: Options = settings.options["landscape"]
    n, rank = settings.dimension, settings.rank
    rows = []
    for share in options.corrupted:
        rng = generator(settings.study_seed, "corrupted", seed, dimension=n, rank=rank, share=share)
        drawn = draw_corrupted(rng, n, rank, options.condition, share)
        for method in METHODS:
            found = recover_low_rank(drawn.low_rank + drawn.sparse, rank, share, method, n_steps=options.max_steps)
            error = np.linalg.norm(found.factor @ found.factor.T - drawn.low_rank) / np.linalg.norm(drawn.low_rank)
            steps = len(found.changes)
            row = {"share": share, "method": method, "steps": steps, "converged": found.converged}
            rows.append({**row, "error": float(error)})
    return {"recoveries": rows}
