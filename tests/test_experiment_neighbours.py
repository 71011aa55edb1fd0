"""The kinds of the neighbours on small grids: their configuration, their tables, and the claims on them."""

import copy

import pandas as pd
import pytest

from deepbures import configuration
from deepbures.claims import Study, Tables, neighbours
from deepbures.claims.evidence import judge
from deepbures.experiment import run_cell
from deepbures.grid import cells

STATEMENTS = {
    "scaled": [neighbours.ONE_STEP, neighbours.SCALED_TAILS, neighbours.QUADRATIC, neighbours.EXPONENTS],
    "barycenter": [neighbours.BARYCENTER_RATE],
    "sparse": [neighbours.FEW_CORRUPTIONS],
    "sensing": [neighbours.REWEIGHTED],
}
SMALL = {
    "scaled": {
        "grid": {"depth": [1, 2, 10]},
        "landscape": {"conditions": [1, 100, 10000], "shares": [0, 0.5], "start_kinds": ["gaussian", "nystrom"]},
    },
    "barycenter": {"grid": {"rank": [1, 5], "depth": [1]}, "landscape": {"spreads": [1, 2], "starts": 10}},
    "sparse": {"grid": {"rank": [3]}, "landscape": {"corrupted": [0.04]}},
    "sensing": {"landscape": {"copies": [0, 1000]}},
}


def small(shipped, kind):
    config = shipped("neighbours.yaml")
    block = config["experiments"][kind]
    for section, changes in SMALL[kind].items():
        block[section].update(changes)
    return config


def results_in(folder, config, kind, seeds):
    tables = {}
    for cell in cells(config, kind):
        for name, table in run_cell(dict(cell.settings), range(seeds)).items():
            tables.setdefault(name, []).append(table.to_pandas().assign(**cell.axes))
    for name, frames in tables.items():
        pd.concat(frames, ignore_index=True).to_parquet(folder / f"{name}.parquet")


@pytest.mark.parametrize("kind", SMALL)
def test_claims_hold_and_can_fail(shipped, tmp_path, kind):
    results_in(tmp_path, small(shipped, kind), kind, 1)
    study = Study({kind: Tables(tmp_path, kind, kind)})
    for statement in STATEMENTS[kind]:
        claim = judge(statement, study)
        assert (claim.verdict, claim.cases > 0) == ("holds", True), (claim.name, claim.verdict, claim.worst_deviation)
    # one column of each table spoilt: the claims on it are violated
    spoilt = {
        "scaled": {"tail_factor": 1.1, "worst_ratio": 1e9, "unit": 1e-30},
        "conditions": {"contraction": 0.5},
        "barycenters": {"factor": 1.1},
        "recoveries": {"error": 1e9},
        "sensed": {"error": 1e20},
    }
    for path in tmp_path.glob("*.parquet"):
        frame = pd.read_parquet(path)
        for column, factor in spoilt.get(path.stem, {}).items():
            frame[column] = frame[column] * factor
        frame.to_parquet(path)
    for statement in STATEMENTS[kind]:
        assert judge(statement, study).verdict == "violated", statement.name


MISTAKES = [
    ("scaled", "target.spectrum", "zipf", "kind 'scaled' needs geometric, not 'zipf'"),
    ("scaled", "grid.epsilon", [0.1], "kind 'scaled' needs [0]"),
    ("scaled", "landscape.target_ranks", [21], "21 must be at most the dimension, 20"),
    ("scaled", "landscape.conditions", [0.5], "must be at least 1"),
    ("scaled", "landscape.start_kinds", ["gauss"], "'gauss' is not allowed"),
    ("barycenter", "loss", "frobenius", "kind 'barycenter' needs bures-wasserstein"),
    ("sparse", "grid.depth", [2], "kind 'sparse' needs [1]"),
    ("sensing", "landscape.copies", [-1], "-1 must be at least 0"),
]


@pytest.mark.parametrize(("experiment", "key", "value", "message"), MISTAKES)
def test_mistakes_give_one_line(shipped, schema, experiment, key, value, message):
    config = copy.deepcopy(shipped("neighbours.yaml"))
    configuration.check(config, schema)
    block = config["experiments"][experiment]
    *sections, last = key.split(".")
    for section in sections:
        block = block[section]
    block[last] = value
    with pytest.raises(configuration.ConfigurationError, match=r"^[^\n]*$") as error:
        configuration.check(config, schema)
    assert message in str(error.value)
