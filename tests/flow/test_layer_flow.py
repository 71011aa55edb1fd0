"""The flow of the layers themselves: against that of balanced layers, and what it conserves."""

from itertools import pairwise

import numpy as np
import pytest

from deepbures.flow.gradient_flow import gradient_flow
from deepbures.flow.layer_flow import layer_flow
from deepbures.losses.registry import BuresWasserstein, Frobenius
from deepbures.model.layer_starts import without_balance
from deepbures.model.network import DeepLinearNetwork
from deepbures.model.trajectory import StopReason
from deepbures.rates.unbalanced import layer_imbalance, two_layer_fall

SPECTRUM = [3.0, 1.0, 0.5]


def product(layers):
    return DeepLinearNetwork(layers).end_to_end()


@pytest.mark.parametrize("depth", [1, 2, 4])
@pytest.mark.parametrize("epsilon", [0, 0.2, "frobenius"])
def test_balanced_layers_take_the_reduced_flow(make_target, rng, depth, epsilon):
    loss = (
        Frobenius(make_target(SPECTRUM)) if epsilon == "frobenius" else BuresWasserstein(make_target(SPECTRUM), epsilon)
    )
    W = rng.standard_normal((3, 3))
    flow = layer_flow(loss, DeepLinearNetwork.balanced(W, depth).layers, 0.3, rtol=1e-10)
    reduced = gradient_flow(loss, W, depth, flow.times, rtol=1e-10)
    paths = product(flow.layers)
    np.testing.assert_allclose(
        paths @ paths.mT, reduced.factors @ reduced.factors.mT, rtol=0, atol=1e-7 * np.linalg.norm(W) ** 2
    )
    assert flow.times[-1] == 0.3
    assert flow.stop_reason == StopReason.END_TIME


def test_the_flow_conserves_the_imbalance_of_a_stack(make_target, rng):
    loss = BuresWasserstein(np.stack([make_target(SPECTRUM), make_target([2.0, 1.0, 1.0])]), 0.1)
    W = rng.standard_normal((2, 3, 3))
    members = [without_balance(rng, DeepLinearNetwork.balanced(one, 3).layers, 0.5) for one in W]
    start = [np.stack(layers) for layers in zip(*members, strict=True)]
    flow = layer_flow(loss, start, 100, excess_tolerance=1e-10)
    assert flow.stop_reason == StopReason.CONVERGED
    assert (loss.excess(product([layer[-1] for layer in flow.layers])) <= 1e-10).all()
    for lower, upper in pairwise(flow.layers):
        D = upper.mT @ upper - lower @ lower.mT
        np.testing.assert_allclose(D, np.broadcast_to(D[0], D.shape), rtol=0, atol=1e-8)
    # And the layers are far from balanced all the time.
    assert layer_imbalance([layer[-1, 0] for layer in flow.layers]) > 0.1


def test_one_dimension_by_hand():
    # n = 1, N = 2: d/dt (w_2² − w_1²) = 0 and −dL/dt = (w_1² + w_2²) (∂L/∂w)², which the theorem bounds from below.
    loss = BuresWasserstein(np.eye(1), 0.1)
    flow = layer_flow(loss, [np.array([[0.3]]), np.array([[1.1]])], 1.0, rtol=1e-11)
    w_1, w_2 = (layer[:, 0, 0] for layer in flow.layers)
    np.testing.assert_allclose(w_2**2 - w_1**2, 1.1**2 - 0.3**2, rtol=1e-9)
    s, value = (w_1 * w_2) ** 2, loss.value(product(flow.layers))
    speed = (w_1**2 + w_2**2) * 4 * (1 - 1 / np.sqrt(s + 0.1)) ** 2 * s
    assert (np.diff(value) < 0).all()
    promised = [two_layer_fall(each, 0.1, (1.1**2 - 0.3**2, 0.0)) for each in s]
    assert (speed >= np.array(promised) * value * (1 - 1e-9)).all()


def test_its_end_and_what_it_refuses(make_target, rng):
    loss = BuresWasserstein(make_target(SPECTRUM), 0.1)
    layers = DeepLinearNetwork.balanced(rng.standard_normal((3, 3)), 2).layers
    assert layer_flow(loss, layers, 100, max_steps=3).stop_reason == StopReason.STEP_BUDGET
    with pytest.raises(ValueError, match="layers must have widths of at least n = 3, not 2"):
        layer_flow(loss, [np.ones((2, 3)), np.ones((3, 2))], 1.0)
