"""Whatever a configuration holds, it is read or refused in one line: a thousand texts and values from a fixed seed."""

import copy
import time
import warnings
from pathlib import Path

import numpy as np
import pytest
from mutations import SPECIAL, mutated, outcome

from deepbures.study import configuration
from deepbures.study.grid.cells import count_parts

FAMILIES = configuration.read(Path(__file__).parents[2] / "workflow/figures.yaml")
TEXT = """study: {seed: 2303, results: results, figures: figures, fail_on_violated_claims: false}
experiments:
  convergence:
    kind: flow
    loss: bures-wasserstein
    dimension: 4
    target: {spectrum: zipf, mode: eigenvalues}
    initialization: {kind: small, scale: 0.1}
    seeds: 10
    seeds_per_job: 5
    grid: {epsilon: [0, 0.1], smin: [-1, 0.5], rank: [2, 4], depth: [1, 3]}
    integration: {rtol: 1.0e-6, excess_tolerance: 1.0e-9, max_time: 1000, max_steps: 500, samples: 10}
  own:
    kind: descent
    loss: frobenius
    dimension: 3
    target: {covariance: own.csv, sep: ",", header: null}
    initialization: {kind: small, scale: 0.1}
    seeds: 2
    seeds_per_job: 1
    grid: {epsilon: [0], smin: [-1], rank: [3], depth: [1, 2], relative_step: [0.5]}
    descent: {excess_tolerance: 1.0e-6, max_steps: 100, samples: 10}
figures:
  trajectories: {experiment: convergence, show: {epsilon: [0], smin: [-1], rank: [2], depth: [3]}}
"""
VALUES = [
    None,
    True,
    -1,
    0,
    0.5,
    1e300,
    10**9,
    float("nan"),
    float("inf"),
    "",
    "x" * 300,
    [],
    {},
    [[]],
    [1, 1],
    {"a": 1},
]
VALUES += [("kind", "flow"), b"x", 2**70, *SPECIAL]


def _places(value, path=()):
    """The path of each value in dictionaries and lists."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        yield (*path, key)
        yield from _places(item, (*path, key))


def _with_other_values(rng, config):
    """A copy with one to three values replaced, removed or put under another name."""
    config = copy.deepcopy(config)
    for _ in range(rng.geometric(0.7)):
        places = list(_places(config)) or [("study",)]
        *folders, last = places[rng.integers(len(places))]
        block = config
        for key in folders:
            block = block[key]
        value = VALUES[rng.integers(len(VALUES))]
        what = rng.integers(4)
        if what == 0:
            del block[last]
        elif what == 1 and isinstance(block, dict):
            block[value if isinstance(value, str | int | None) else "x"] = block.pop(last)
        else:
            block[last] = copy.deepcopy(value)
    return config


def _all(folder, numbers):
    path = folder / "own.yaml"
    original, passed = _original(folder), []
    for number in numbers:
        rng = np.random.default_rng([28, number])
        path.write_bytes(mutated(rng, TEXT.encode(), [TEXT.encode()]))
        start = time.process_time()
        if number % 2:
            config, _ = outcome(lambda: configuration.read(path), configuration.ConfigurationError)
        else:
            config = _with_other_values(rng, original)
        if config is not None:
            config, _ = outcome(lambda c=config: configuration.check(c, FAMILIES), configuration.ConfigurationError)
        assert time.process_time() - start < 2, number
        if config is not None:
            assert max(count_parts(config, name) for name in config["experiments"]) <= 100_000
            assert configuration.check(config, FAMILIES) == config
        passed.append(config is not None)
    assert 0.02 < np.mean(passed) < 0.98


def _original(folder):
    (folder / "original.yaml").write_text(TEXT)
    original = configuration.read(folder / "original.yaml")
    configuration.check(original, FAMILIES)
    return original


@pytest.fixture(autouse=True)
def own_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    np.savetxt("own.csv", np.diag([3.0, 2, 1]), delimiter=",")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


def test_mutated_configurations_are_read_or_refused_in_one_line(tmp_path):
    _all(tmp_path, range(60))


@pytest.mark.slow
def test_many_mutated_configurations_are_read_or_refused_in_one_line(tmp_path):
    _all(tmp_path, range(60, 1000))


@pytest.mark.fuzz
def test_very_many_mutated_configurations_are_read_or_refused_in_one_line(tmp_path):
    _all(tmp_path, range(1000, 20_000))
