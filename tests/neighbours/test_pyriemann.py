"""Barycenters and the classifier by minimum distance against pyRiemann."""

import numpy as np
import pytest
from pyriemann.classification import MDM
from pyriemann.geometry.mean import mean_wasserstein
from sklearn.datasets import load_digits

from deepbures.neighbours.barycenter import barycenter, draw_covariances, nearest


@pytest.mark.parametrize("spread", [0.3, 1, 2])
def test_mean_to_ten_digits(rng, spread):
    covariances = draw_covariances(rng, 7, 6, spread)
    weights = rng.dirichlet(np.full(7, 3.0))
    expected = mean_wasserstein(covariances, tol=1e-13, maxiter=5000, sample_weight=weights)
    np.testing.assert_allclose(barycenter(covariances, weights), expected, atol=1e-10 * np.abs(expected).max())


def test_predictions_on_the_digits_are_the_same():
    # The half of the images with even numbers trains, the other is predicted: all 898 alike.
    images, classes = load_digits().images / 16, load_digits().target
    down, across = np.gradient(images, axis=(1, 2))
    y, x = np.mgrid[-1:1:8j, -1:1:8j]
    features = np.stack(np.broadcast_arrays(x, y, images, abs(across), abs(down)), axis=1).reshape(-1, 5, 64)
    covariances = np.array([np.cov(values, bias=True) for values in features])
    train, test = np.arange(len(classes)) % 2 == 0, np.arange(len(classes)) % 2 == 1
    means = [barycenter(covariances[train & (classes == c)]) for c in range(10)]
    found = nearest(means, covariances[test])
    expected = MDM(metric="wasserstein").fit(covariances[train], classes[train]).predict(covariances[test])
    np.testing.assert_array_equal(found, expected)
    assert np.mean(found == classes[test]) > 0.6
