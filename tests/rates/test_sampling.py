"""Finite samples: B²(Σ̂, Σ0) against its law, and training on Σ̂."""

import numpy as np
import pytest

from deepbures.losses.registry import BuresWasserstein
from deepbures.model.diagnostics import squared_bures_distance
from deepbures.rates.sampling import expected_sampling_error
from deepbures.study.cell.problem import make_loss
from deepbures.study.kinds import finite_sample
from deepbures.study.run import checked, run_cell

SETTINGS = {
    "study_seed": 3,
    "kind": "finite_sample",
    "loss": "bures-wasserstein",
    "dimension": 4,
    "target": {"spectrum": "zipf", "mode": "eigenvalues"},
    "initialization": {"kind": "small", "scale": 0.1},
    "sampling": {"sizes": [20, 2000], "draws": 100},
    "integration": {"rtol": 1e-7, "excess_tolerance": 1e-12, "max_time": 1000, "max_steps": 1000, "samples": 40},
    "epsilon": 0,
    "smin": 0.5,
    "rank": 4,
    "depth": 2,
}


@pytest.fixture(scope="module")
def tables():
    return {name: table.to_pandas() for name, table in run_cell(SETTINGS, [0, 1]).items()}


def test_distances_follow_their_law(tables):
    # Of first order in 1/m: 200 draws of m = 2000 within four standard errors; the next order is seen at m = 20.
    drawn = tables["sampling"]
    assert len(drawn) == 2 * 2 * 100
    relative = drawn["squared_bures"] / drawn["expected"]
    many = relative[drawn["samples"] == 2000]
    assert many.mean() == pytest.approx(1, abs=4 * many.std() / np.sqrt(len(many)))
    assert many.std() / np.sqrt(len(many)) < 0.06
    for seed, m in ((0, 20), (1, 2000)):
        expected = drawn[(drawn["seed"] == seed) & (drawn["samples"] == m)]["expected"].unique()
        eigenvalues = make_loss(checked(SETTINGS), seed).eigenvalues
        assert expected == pytest.approx([expected_sampling_error(eigenvalues, m)], rel=1e-12)


def test_factor_has_the_covariance_of_its_samples():
    # R of a QR: Σ̂ itself, of rank min(n, m), with the mean Σ0.
    population = BuresWasserstein(np.diag([3.0, 2.0, 1.0]))
    rng = np.random.default_rng(0)
    covariances = [F @ F.T for F in (finite_sample._sample_factor(rng, population, 5) for _ in range(4000))]
    np.testing.assert_allclose(np.mean(covariances, axis=0), population.covariance, atol=0.12)
    assert finite_sample._sample_factor(rng, population, 2).shape == (3, 2)


def test_training_ends_at_the_sample_and_not_at_the_population(tables):
    for _, run in tables["training"].groupby(["seed", "samples"]):
        last = run.iloc[-1]
        assert last["loss"] <= 1e-11
        assert last["loss_minimum"] == pytest.approx(0, abs=1e-12)
        drawn = tables["sampling"]
        first = drawn[(drawn["seed"] == last["seed"]) & (drawn["samples"] == last["samples"]) & (drawn["draw"] == 0)]
        # There the loss against Σ0 is B²(Σ̂, Σ0), whatever training does more.
        assert last["population_loss"] == pytest.approx(first["squared_bures"].iloc[0], rel=1e-4)
        assert run["loss"].is_monotonic_decreasing


def test_draws_are_common_to_depths_and_smoothings():
    small = {**SETTINGS, "sampling": {"sizes": [10], "draws": 3}}
    one, other = (
        run_cell({**small, **change}, [0])["sampling"]["squared_bures"].to_pylist()
        for change in ({}, {"depth": 5, "epsilon": 0.1, "rank": 2})
    )
    assert one == other


def test_too_few_samples_and_the_square_loss_are_refused():
    with pytest.raises(ValueError, match="rank 4 exceeds the rank 3 of the target"):
        run_cell({**SETTINGS, "sampling": {"sizes": [3], "draws": 1}}, [0])
    with pytest.raises(ValueError, match="needs the loss 'bures-wasserstein', not 'frobenius'"):
        run_cell({**SETTINGS, "loss": "frobenius"}, [0])


def test_distance_of_factors_is_that_of_covariances():
    F = np.diag([2.0, 1.0])
    assert float(squared_bures_distance(F, np.eye(2))) == pytest.approx(1)
