"""Whole runs of the authors' program, step by step, and the gradient flow that they approximate."""

from pathlib import Path

import numpy as np
import pytest

from deepbures.diagnostics import balanced_gradient_norm
from deepbures.gradient_flow import gradient_flow
from deepbures.losses import BuresWasserstein, Frobenius
from deepbures.network import DeepLinearNetwork

CASES = sorted(path.stem for path in Path(__file__).parent.joinpath("reference").glob("case[1-4]*.npz"))


def make_loss(case):
    return (
        Frobenius(case["covariance"])
        if case["loss_name"] == "Fro"
        else BuresWasserstein(case["covariance"], case["epsilon"])
    )


def initial_network(case):
    return DeepLinearNetwork([case[f"layer_initial_{j}"] for j in range(1, case["depth"] + 1)])


@pytest.mark.parametrize("name", CASES)
def test_descent_reproduces_the_authors_curves(reference, name):
    # W_j ← W_j − η ∂L^N/∂W_j for thousands of steps. Loss to 1e-12 of its start (theirs is a difference of traces),
    # gradient norm to 1e-10 of itself, balancedness to 1e-12, final matrix to 1e-12.
    case, found = reference(name), []
    loss, network = make_loss(case), initial_network(case)
    recorded = set(case["step"].tolist())
    for step in range(case["n_steps"] + 1):
        W = network.end_to_end()
        gradients = network.layer_gradients(loss.gradient(W))
        if step in recorded:
            norm = np.sqrt(sum(np.vdot(gradient, gradient) for gradient in gradients))
            found.append((loss.value(W), norm, network.balancedness()))
        moved = [layer - case["step_size"] * g for layer, g in zip(network.layers, gradients, strict=True)]
        network = DeepLinearNetwork(moved)
    losses, norms, imbalance = np.transpose(found)
    np.testing.assert_allclose(losses, case["loss"], rtol=0, atol=1e-12 * losses[0])
    np.testing.assert_allclose(norms, case["gradient_norm"], rtol=1e-10)
    np.testing.assert_allclose(imbalance, case["balancedness"], rtol=0, atol=1e-12)
    assert np.linalg.norm(W - case["end_to_end_final"]) < 1e-12 * np.linalg.norm(W)


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
