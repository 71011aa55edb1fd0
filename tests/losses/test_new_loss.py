"""A loss of one's own: what it must define, and that it then works in stacks, in flow, descent and Hessians."""

import numpy as np
import pytest

from deepbures.descent.gradient_descent import gradient_descent
from deepbures.descent.scaled_descent import scaled_descent
from deepbures.flow.gradient_flow import gradient_flow, gradient_flows
from deepbures.landscape.curvature import hessian
from deepbures.losses.base import CovarianceLoss
from deepbures.losses.form import Form
from deepbures.losses.registry import Frobenius
from deepbures.model.network import DeepLinearNetwork
from deepbures.rates.predicted import rates_at_minimum

SPECTRA = np.array([[4.0, 2.0, 1.0], [3.0, 2.5, 0.5], [9.0, 1.0, 0.1]])


class Relative(CovarianceLoss):
    """‖W Wᵀ − Σ0‖²_F/‖Σ0‖²_F + δ, the square loss in units of the target, with a parameter and a computed attribute."""

    name = "relative"
    degree = 0
    label = "relative"

    def __init__(self, covariance, delta=0.0):
        super().__init__(covariance)
        self.delta = delta
        self.size = np.sum(self.eigenvalues**2, axis=-1)

    def on(self, target, epsilon):
        return Relative(target, self.delta)

    def minimum_spectrum(self, rank):
        return np.where(np.arange(self.dimension) < rank, self.eigenvalues, 0)

    def empty_costs(self):
        return self.eigenvalues**2 / self.size[..., None]

    def make_form(self, columns, rank):
        return RelativeForm(self, rank)


class RelativeForm(Form):
    def __init__(self, loss, rank):
        self.loss, self.rank = loss, rank

    def _residual(self, F, spectrum):
        return F @ F.mT - np.eye(F.shape[-2]) * spectrum[..., None]

    def value(self, F):
        squares = np.sum(self._residual(F, self.loss.eigenvalues) ** 2, axis=(-2, -1))
        return squares / self.loss.size + self.loss.delta

    def excess(self, F):
        squares = np.sum(self._residual(F, self.loss.minimum_spectrum(self.rank)) ** 2, axis=(-2, -1))
        tail = np.s_[..., self.rank :]
        cross = np.sum(np.sum(F**2, axis=-1)[tail] * self.loss.eigenvalues[tail], axis=-1)
        return (squares - 2 * cross) / self.loss.size

    def gradient(self, F):
        return 4 * self._residual(F, self.loss.eigenvalues) @ F / self.loss.size[..., None, None]

    def hessian_operator(self, F):
        residual = self._residual(F, self.loss.eigenvalues)
        return lambda V: 4 * (residual @ V + (V @ F.mT + F @ V.mT) @ F) / self.loss.size[..., None, None]


@pytest.fixture
def losses(make_target):
    """A stack of three, and the three alone."""
    covariances = np.array([make_target(spectrum, seed) for seed, spectrum in enumerate(SPECTRA)])
    return Relative(covariances, 0.25), [Relative(covariance, 0.25) for covariance in covariances]


def test_attributes_of_init_follow_the_targets_of_a_stack(losses):
    stack, singles = losses
    np.testing.assert_array_equal(stack.size, [one.size for one in singles])
    for taken in (stack.take([2, 0]), Relative.stacked([singles[2], singles[0]])):
        np.testing.assert_array_equal(taken.size, [singles[2].size, singles[0].size])
        np.testing.assert_array_equal(taken.covariance, [singles[2].covariance, singles[0].covariance])
        assert taken.delta == 0.25
    assert (stack.take(1).size, stack.take(1).shape) == (singles[1].size, ())
    assert singles[0].with_epsilon(0).target is singles[0].target


def test_members_of_a_stack_have_the_numbers_of_single_losses(losses, rng):
    stack, singles = losses
    W, V = rng.standard_normal((2, 3, 3, 2))
    for i, one in enumerate(singles):
        assert stack.value(W)[i] == one.value(W[i])
        assert stack.excess(W, 2)[i] == one.excess(W[i], 2)
        assert one.excess(W[i], 2) == pytest.approx(one.value(W[i]) - 0.25 - one.minimum_value(2), rel=1e-12)
        np.testing.assert_array_equal(stack.gradient(W)[i], one.gradient(W[i]))
        np.testing.assert_array_equal(stack.hessian_product(W, V)[i], one.hessian_product(W[i], V[i]))


def test_flow_and_descent_of_a_stack_are_those_of_its_members(losses, rng):
    stack, singles = losses
    W = rng.standard_normal((3, 3, 3))
    together = gradient_flows(stack, W, 2, max_time=3.0)
    for one, start, flow in zip(singles, W, together, strict=True):
        np.testing.assert_array_equal(flow.excess, gradient_flow(one, start, 2, max_time=3.0).excess)
    network = DeepLinearNetwork.balanced(W, 2)
    run = gradient_descent(stack, network, 0.01, 20, [0, 20])
    for i, one in enumerate(singles):
        alone = gradient_descent(one, [layer[i] for layer in network.layers], 0.01, 20, [0, 20])
        np.testing.assert_array_equal(run.excess[:, i], alone.excess)


def test_it_is_the_square_loss_in_another_unit(losses, rng):
    _, (one, *_) = losses
    square = Frobenius(one.covariance)
    W = rng.standard_normal((3, 3))
    np.testing.assert_allclose(hessian(one, W), hessian(square, W) / one.size, rtol=1e-12, atol=1e-14)
    assert np.isnan(rates_at_minimum(one, 2)).all()  # closed forms are unknown unless the loss defines them
    assert (one.global_rate(2, 1.0), one.level_of_empty_columns(W), one.least_excess(1.0)) == (None, None, 0.0)
    run = scaled_descent(one, [W], 0.1, "none", n_steps=30)  # without a scaling: the gradient itself
    assert (np.diff(run.excess) < 0).all()
