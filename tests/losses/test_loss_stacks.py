"""Losses on stacks of targets: each member gets what it gets alone."""

import exact
import numpy as np
import pytest
from test_losses import SPECTRUM, make_loss

from deepbures.losses.registry import BuresWasserstein


def make_stack(make_target, kind):
    """A loss on a stack (2, 3) of targets that differ in spectrum, basis and ε, and the six losses one by one."""
    covariances = np.stack([make_target(SPECTRUM * (1 + i / 4), i) for i in range(6)])
    kinds = [kind] * 6 if kind == "frobenius" else [kind * (1 + i / 2) for i in range(6)]
    stacked = kind if kind == "frobenius" else np.reshape(kinds, (2, 3))
    singles = np.empty(6, dtype=object)
    singles[:] = [make_loss(*pair) for pair in zip(kinds, covariances, strict=True)]
    return make_loss(stacked, covariances.reshape(2, 3, 5, 5)), singles.reshape(2, 3)


@pytest.mark.parametrize("columns", [3, 5, 7])
@pytest.mark.parametrize("kind", [0, 0.2, "frobenius"])
def test_stack_of_targets_equals_the_single_losses_bit_for_bit(make_target, rng, kind, columns):
    # Leading axes (4, 2, 3): each matrix meets the target in its place of (2, 3).
    loss, singles = make_stack(make_target, kind)
    W, V = rng.standard_normal((2, 4, 2, 3, 5, columns))
    rank = min(columns, 5)
    stacked = loss.value(W), loss.excess(W, rank), loss.gradient(W), loss.hessian_product(W, V)
    fixed = *loss.minimum(2), loss.minimum_spectrum(2), loss.minimum_value(2), loss.saddle_values(3)
    assert [x.shape for x in fixed] == [(2, 3, 5, 5), (2, 3), (2, 3, 5), (2, 3), (2, 3, 4)]
    for i in np.ndindex(2, 3):
        one, w, v = singles[i], W[:, *i], V[:, *i]
        expected = one.value(w), one.excess(w, rank), one.gradient(w), one.hessian_product(w, v)
        for together, alone in zip(stacked, expected, strict=True):
            np.testing.assert_array_equal(together[:, *i], alone)
        expected = *one.minimum(2), one.minimum_spectrum(2), one.minimum_value(2), one.saddle_values(3)
        for together, alone in zip(fixed, expected, strict=True):
            np.testing.assert_array_equal(together[i], alone)


@pytest.mark.parametrize("columns", [3, 5, 7])
@pytest.mark.parametrize("kind", [0, 0.2, "frobenius"])
def test_singular_matrices_in_a_stack_change_no_bits_of_the_others(make_target, rng, kind, columns):
    loss, W = make_loss(kind, make_target(SPECTRUM, 0)), rng.standard_normal((30, 5, columns))
    W[1], W[3, :, 0] = 0, W[3, :, 1]

    def computed(W):
        return loss.value(W), *loss.value_and_gradient(W), loss.gradient(W)

    for i, w in enumerate(W):
        for stacked, alone in zip(computed(W), computed(w), strict=True):
            np.testing.assert_array_equal(stacked[i], alone)


@pytest.mark.parametrize("kind", [0, 0.2, "frobenius"])
def test_stack_of_targets_in_fifty_digits(make_target, rng, kind):
    # One W for all: L(W) against each Σ0 and ε from the definition, and L*.
    loss, singles = make_stack(make_target, kind)
    W = rng.standard_normal((5, 3))
    values, minima = loss.value(W), loss.minimum_value(3)
    assert values.shape == (2, 3)
    for i in np.ndindex(2, 3):
        if kind == "frobenius":
            exact_value = exact.frobenius(W, loss.covariance[i])
            exact_minimum = exact.frobenius_minimum(loss.covariance[i], 3)
        else:
            exact_value = exact.bures_wasserstein(W, loss.covariance[i], singles[i].epsilon)
            exact_minimum = exact.bures_wasserstein_minimum(loss.covariance[i], singles[i].epsilon, 3)
        assert values[i] == pytest.approx(float(exact_value), rel=1e-13)
        assert minima[i] == pytest.approx(float(exact_minimum), rel=1e-12)


@pytest.mark.parametrize("kind", [0, 0.2, "frobenius"])
def test_take_chooses_targets_as_from_a_flat_array(make_target, rng, kind):
    loss, singles = make_stack(make_target, kind)
    W = rng.standard_normal((5, 5))
    values = loss.value(W).ravel()
    some = np.array([True, False, False, True, False, True])
    for members in (4, [4], [5, 0, 5], [[0, 1], [2, 3]], some):
        taken = loss.take(members)
        assert taken.shape == values[members].shape
        np.testing.assert_array_equal(taken.value(W), values[members])
    assert loss.take(4).shape == ()
    np.testing.assert_array_equal(loss.take(4).gradient(W), singles[1, 1].gradient(W))
    np.testing.assert_array_equal(loss.take(4).covariance, singles[1, 1].covariance)
    assert loss.take(some).take([2, 1]).value(W).tolist() == [values[5], values[3]]
    # The loss that it was taken from stays, and one target gives itself.
    assert loss.shape == (2, 3)
    assert singles[0, 0].take([0, 0, 0]) is singles[0, 0]


@pytest.mark.parametrize("kind", [0, 0.2, "frobenius"])
def test_stacked_spectra_are_those_of_the_stacked_covariances(make_target, kind):
    # Spectra are handed on, and yet bit for bit those that the stack itself would have.
    _, singles = make_stack(make_target, kind)
    covariances, epsilon = (
        np.stack([getattr(one, name) for one in singles.flat]) for name in ("covariance", "epsilon")
    )
    handed_on, decomposed = type(singles[0, 0]).stacked(list(singles.flat)), make_loss(kind, covariances)
    assert handed_on.shape == (6,)
    np.testing.assert_array_equal(np.broadcast_to(handed_on.epsilon, 6), epsilon)
    for name in ("covariance", "eigenvalues", "eigenvectors"):
        np.testing.assert_array_equal(getattr(handed_on, name), getattr(decomposed, name))


@pytest.mark.parametrize("epsilon", [0, 0.2, [0.2, 0.1, 0.3]])
def test_attributes_of_a_stack(make_target, epsilon):
    # Ω diag(λ) Ωᵀ = Σ0 and one ε for each target; `has_kink` is a plain bool.
    covariances = np.stack([make_target(SPECTRUM, i) for i in range(3)])
    loss = BuresWasserstein(covariances, epsilon)
    assert (loss.shape, loss.dimension, loss.has_kink) == ((3,), 5, epsilon == 0)
    np.testing.assert_array_equal(loss.epsilon, np.broadcast_to(epsilon, 3))
    rebuilt = loss.eigenvectors * loss.eigenvalues[:, None, :] @ loss.eigenvectors.swapaxes(1, 2)
    np.testing.assert_allclose(rebuilt, loss.covariance, atol=1e-14)
    single = BuresWasserstein(covariances[0], 0.1)
    assert (single.shape, single.epsilon, single.has_kink) == ((), 0.1, False)
    assert BuresWasserstein(covariances[0]).has_kink is True


@pytest.mark.parametrize("eigenvalues", [[4, 2, 1, 0.5], [4, 2, 0, 0]])
def test_stack_of_targets_may_mix_conditions(make_target, rng, eigenvalues):
    # Where ε and W are small M is nearly singular, and singular values take the place of eigh: target by target.
    epsilon = np.array([1e-14, 0.1, 1e-10, 1.0])
    covariances = np.stack([make_target(eigenvalues, i) for i in range(4)])
    W = rng.standard_normal((2, 4, 4, 4)) * np.array([1, 1, 1e-4, 1e-8])  # the last columns tiny
    W[1, :2] = rng.standard_normal((2, 4, 4))
    for epsilons in (epsilon, np.zeros(4)):
        loss = BuresWasserstein(covariances, epsilons)
        expected = [BuresWasserstein(covariances[i], epsilons[i]).gradient(W[:, i]) for i in range(4)]
        np.testing.assert_array_equal(loss.gradient(W), np.stack(expected, axis=1))


def test_float32_stack_stays_float32(make_target, rng):
    covariances, W = np.stack([make_target(SPECTRUM, i) for i in range(3)]), rng.standard_normal((3, 5, 5))
    for kind in (0, [0.3, 0.2, 0.1], "frobenius"):
        single, double = make_loss(kind, covariances.astype(np.float32)), make_loss(kind, covariances)
        w = W.astype(np.float32)
        for found, expected in (
            (single.value(w), double.value(W)),
            (single.gradient(w), double.gradient(W)),
            (single.hessian_product(w, w), double.hessian_product(W, W)),
            (single.minimum_spectrum(3), double.minimum_spectrum(3)),
        ):
            assert found.dtype == np.float32
            np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-4)
