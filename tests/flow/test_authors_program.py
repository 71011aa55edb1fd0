"""Whole runs of the authors' program, step by step, and the gradient flow that they approximate."""

from pathlib import Path

import numpy as np
import pytest
from exact import balanced_gradient_norm

from deepbures.descent.gradient_descent import gradient_descent
from deepbures.flow.gradient_flow import gradient_flow
from deepbures.losses.registry import BuresWasserstein, Frobenius
from deepbures.model.network import DeepLinearNetwork
from deepbures.model.trajectory import StopReason

EVERY_CASE = sorted(path.stem for path in Path(__file__).parents[1].joinpath("reference").glob("case[1-4]*.npz"))
CASES = [name for name in EVERY_CASE if not name.endswith("_f32")]
FLOAT32_CASES = [name for name in EVERY_CASE if name.endswith("_f32")]


def make_loss(case):
    return (
        Frobenius(case["covariance"])
        if case["loss_name"] == "Fro"
        else BuresWasserstein(case["covariance"], case["epsilon"])
    )


def initial_network(case):
    return DeepLinearNetwork([case[f"layer_initial_{j}"] for j in range(1, case["depth"] + 1)])


def descend(case, dtype=None):
    """Our descent from the case's start; all of it in another precision if one is given."""
    case = {key: value.astype(dtype) if dtype and np.ndim(value) == 2 else value for key, value in case.items()}
    return gradient_descent(
        make_loss(case), initial_network(case), case["step_size"], case["n_steps"], record_steps=case["step"]
    )


@pytest.mark.parametrize("name", CASES)
def test_descent_reproduces_the_authors_curves(reference, name):
    # W_j ← W_j − η ∂L^N/∂W_j for thousands of steps. Loss to 1e-12 of its start (theirs is a difference of traces),
    # gradient norm to 1e-10 of itself, balancedness to 1e-12, final matrix to 1e-12.
    case = reference(name)
    found = descend(case)
    np.testing.assert_array_equal(found.steps, case["step"])
    np.testing.assert_allclose(found.times, case["step"] * case["step_size"], rtol=1e-15)
    np.testing.assert_allclose(found.loss, case["loss"], rtol=0, atol=1e-12 * case["loss"][0])
    np.testing.assert_allclose(found.gradient_norm, case["gradient_norm"], rtol=1e-10)
    np.testing.assert_allclose(found.balancedness, case["balancedness"], rtol=0, atol=1e-12)
    W = DeepLinearNetwork(found.layers).end_to_end()
    assert np.linalg.norm(W - case["end_to_end_final"]) < 1e-12 * np.linalg.norm(W)
    assert found.stop_reason == StopReason.STEP_BUDGET
    assert found.last_step == case["n_steps"]


@pytest.mark.parametrize("name", FLOAT32_CASES)
def test_float32_descent_is_as_close_to_exact_as_the_authors(reference, name):
    # Both against the same start followed in float64. Ours may be 1.5 times as far away as theirs; its loss, a sum of
    # squares instead of a difference of traces near 50, is 10 times nearer.
    case = reference(name)
    found, exact = descend(case), descend(case, np.float64)
    assert {layer.dtype for layer in found.layers} == {np.dtype(np.float32)}
    W, W_exact = (DeepLinearNetwork(run.layers).end_to_end() for run in (found, exact))
    theirs = {
        "matrix": np.abs(case["end_to_end_final"] - W_exact).max(),
        **{key: np.abs(case[key] - getattr(exact, key)).max() for key in ("loss", "gradient_norm", "balancedness")},
    }
    ours = {
        "matrix": np.abs(W - W_exact).max(),
        **{
            key: np.abs(getattr(found, key) - getattr(exact, key)).max()
            for key in ("loss", "gradient_norm", "balancedness")
        },
    }
    assert 10 * ours["loss"] < theirs["loss"]
    for key in ("gradient_norm", "balancedness"):
        assert ours[key] < 1.5 * theirs[key], key
    assert ours["matrix"] < 2 * theirs["matrix"] < 2e-4


@pytest.mark.parametrize("name", [name for name in CASES if not name.startswith("case3")])
def test_flow_is_what_the_authors_descent_approximates(reference, name):
    # Balanced starts, t = η · step: they differ by O(η), at most 0.3 % of L(0) in the loss and 2e-5 in the final S.
    case = reference(name)
    loss, network = make_loss(case), initial_network(case)
    assert network.balancedness() < 1e-13
    trajectory = gradient_flow(loss, network.end_to_end(), case["depth"], case["step_size"] * case["step"])
    np.testing.assert_allclose(trajectory.loss, case["loss"], rtol=0, atol=3e-3 * case["loss"][0])
    S = case["end_to_end_final"] @ case["end_to_end_final"].T
    assert np.linalg.norm(trajectory.final - S) < 2e-5 * np.linalg.norm(S)
    # The norm over all layers, from the end-to-end factor alone; equal at the start, where nothing has drifted.
    norms = balanced_gradient_norm(loss, trajectory.factors, case["depth"])
    assert norms[0] == pytest.approx(case["gradient_norm"][0], rel=1e-12)
    np.testing.assert_allclose(norms, case["gradient_norm"], rtol=0.01)


def test_flow_follows_a_point_of_the_authors_grid(reference):
    # case5: 20,000 steps of η = 1e-5 in float64: the loss to 0.1 % all the way down, S to 1e-6.
    case = {key: np.asarray(value, dtype=float) for key, value in reference("case5_gridpoint").items()}
    loss = BuresWasserstein(case["covariance"], 0.1)
    network = DeepLinearNetwork([case[f"layer_initial_{j}"] for j in range(1, 11)])
    trajectory = gradient_flow(loss, network.end_to_end(), 10, 1e-5 * np.arange(0, 20001, 50))
    np.testing.assert_allclose(trajectory.loss, case["loss_float64"][::50], rtol=1e-3)
    S = case["end_to_end_final_float64"] @ case["end_to_end_final_float64"].T
    assert np.linalg.norm(trajectory.final - S) < 1e-6 * np.linalg.norm(S)
