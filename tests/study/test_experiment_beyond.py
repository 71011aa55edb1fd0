"""The kinds beyond the paper on small grids: their tables, the claims on them, their figures, own samples."""

import numpy as np
import pandas as pd
import pytest
from collected import tables_in

from deepbures import barycenter
from deepbures.claims import Study, Tables, detections, minibatch, smoothing
from deepbures.claims.evidence import Statement
from deepbures.losses.registry import BuresWasserstein, Sinkhorn
from deepbures.plotting import minibatch as minibatch_figures
from deepbures.plotting import smoothing as smoothing_figures
from deepbures.study import configuration
from deepbures.study.grid.cells import cells
from deepbures.study.kinds import minibatch as kind
from deepbures.study.run import run_cell

SMALL = {
    "smoothing": (
        smoothing,
        {"rank": [2, 5], "depth": [1, 2]},
        {"epsilons": [0, 0.05, 0.4], "blurs": [0.03, 0.1, 1], "max_steps": 3000},
    ),
    "minibatch": (
        minibatch,
        {"loss_name": ["bures-wasserstein", "sinkhorn"], "depth": [1, 3]},
        {"batches": [20, 100], "runs": 8, "max_steps": 300, "halving_steps": 30},
    ),
}


def small(shipped, name):
    config = shipped("beyond.yaml")
    block = config["experiments"][name]
    block["grid"].update(SMALL[name][1])
    block["landscape"].update(SMALL[name][2])
    return config


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """Folder of the tables of both kinds, computed once."""
    found = {}

    def of(shipped, name):
        if name not in found:
            found[name] = tmp_path_factory.mktemp(name)
            tables_in(found[name], small(shipped, name), name, 1)
        return found[name]

    return of


@pytest.mark.slow
@pytest.mark.parametrize("name", SMALL)
def test_claims_hold_and_every_mutation_turns_their_verdicts(shipped, results, name):
    study = Study({name: Tables(results(shipped, name), name, name)})
    for statement in (one for one in vars(SMALL[name][0]).values() if isinstance(one, Statement)):
        claim, found = detections(statement, study)
        assert (claim.verdict, claim.cases > 0) == ("holds", True), (claim.name, claim.verdict, claim.worst_deviation)
        assert all(one.seen for one in found), [one for one in found if not one.seen]


@pytest.mark.slow
def test_figures_draw_every_loss(shipped, results):
    curvatures, costs, ends, curves = (
        pd.read_parquet(results(shipped, name) / f"{table}.parquet")
        for name, table in (
            ("smoothing", "curvatures"),
            ("smoothing", "costs"),
            ("minibatch", "ends"),
            ("minibatch", "curves"),
        )
    )
    left, right = smoothing_figures.curvatures(curvatures[curvatures["rank"] == 2]).axes
    assert len([line for line in left.lines if len(line.get_xdata()) > 2]) == 3  # ε = 0 too
    assert len(right.lines) == 6  # with their bounds
    assert len(smoothing_figures.costs(costs[costs["rank"] == 2]).axes[0].lines) == 4
    assert len(smoothing_figures.biases(costs[costs["rank"] == 2]).axes[0].lines) == 4
    assert [len(ax.lines) for ax in minibatch_figures.biases(ends).axes] == [9, 9]
    assert [len(ax.lines) for ax in minibatch_figures.curves(curves).axes] == [5, 5]


def test_the_minimum_of_the_mean_loss_is_the_barycenter(rng):
    """For the Bures-Wasserstein loss, found by the solver of `neighbours` from the same batches."""
    loss = BuresWasserstein.from_spectrum([3.0, 1.0])
    halves = np.stack([np.stack([np.cov(rng.standard_normal((2, 12)) * [[1.7], [1.0]])] * 2)] * 2)[:, None]
    halves = halves + 0.1 * np.eye(2) * rng.uniform(0.5, 1, (2, 1, 2, 1, 1))
    batches = kind._batches(loss, halves, "plain")
    found = kind._mean_minimum(loss, batches, 0)
    np.testing.assert_allclose(found, np.diag(barycenter(halves.mean(axis=0)[0])), rtol=1e-5)


@pytest.mark.parametrize("blur", [0.5, 2.0])
def test_bias_is_the_second_order_of_the_gradient(blur):
    """E ∇L at S = Σ0 + δS vanishes to second order in a fluctuation of two points, Σ0 ± E."""
    lam = np.array([3.0, 2.0, 0.5])
    loss = Sinkhorn.from_spectrum(lam, None, blur)
    for entry in ((0, 0), (0, 2), (1, 2)):
        E = np.zeros((3, 3))
        E[entry] = E[entry[::-1]] = 1e-3
        shift = loss.batch_bias(E**2)
        F = np.diag(np.sqrt(lam + shift))
        mean = sum(Sinkhorn(np.diag(lam) + sign * E, blur).gradient(F) for sign in (1, -1)) / 2
        alone = sum(Sinkhorn(np.diag(lam) + sign * E, blur).gradient(np.diag(np.sqrt(lam))) for sign in (1, -1)) / 2
        assert np.abs(mean).max() < 1e-4 * np.abs(alone).max()


def test_losses_and_depths_see_the_same_batches(shipped):
    config = small(shipped, "minibatch")
    config["experiments"]["minibatch"]["landscape"].update({"batches": [10], "max_steps": 40, "constant_shares": [0.1]})
    ends = [run_cell(dict(cell.settings), [0])["ends"].to_pandas() for cell in cells(config, "minibatch")]
    for depth in (0, 2):  # cells of one loss: the minimum of the mean loss does not depend on the depth
        for one, other in zip(ends[depth]["mean_minimum"], ends[depth + 1]["mean_minimum"], strict=True):
            np.testing.assert_array_equal(one, other)


def test_own_samples_are_the_stream(shipped, tmp_path, monkeypatch, rng):
    """Rows of ±1 have no variance of their squares: only the off-diagonal entries scatter, and the bias is less."""
    monkeypatch.chdir(tmp_path)
    np.savetxt("own.csv", rng.choice([-1.0, 1.0], (400, 3)) * [2, 1.5, 1], delimiter=",")
    config = small(shipped, "minibatch")
    block = config["experiments"]["minibatch"]
    block.update(target={"samples": "own.csv"})
    block["grid"].update({"loss_name": ["bures-wasserstein"], "depth": [1], "smin": [-1]})
    block["landscape"].update({"batches": [50]})
    config = configuration.check(config)
    ends = run_cell(dict(cells(config, "minibatch")[0].settings), [0])["ends"].to_pandas()
    plain = ends[ends["method"] == "plain"].iloc[0]
    bias = 1 - plain["expected"] / plain["unbiased"]
    lam = plain["unbiased"]
    gaussian = np.sum((1 + np.eye(3)) * (lam / (lam[:, None] + lam)) ** 2, axis=1) / 50
    assert np.all(bias < 0.8 * gaussian)
    np.testing.assert_allclose(plain["mean_minimum"] / plain["expected"], 1, atol=0.01)


def test_a_loss_needs_its_options(shipped):
    config = shipped("beyond.yaml")
    del config["experiments"]["sinkhorn_flow"]["grid"]["blur"]
    with pytest.raises(configuration.ConfigurationError, match="the key 'blur' is missing: the loss 'sinkhorn' needs"):
        configuration.check(config)
