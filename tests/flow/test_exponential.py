"""φ-functions in 50 digits, and collocation against closed forms and its order."""

import mpmath as mp
import numpy as np
import pytest

from deepbures.flow.collocation import CollocationStack
from deepbures.flow.collocation_path import dense_output
from deepbures.flow.exponential import Collocation, lobatto_nodes, phi_functions
from deepbures.flow.options import FlowOptions

ARGUMENTS = np.concatenate(
    [[0.0], *(sign * np.geomspace(1e-300, 600, 60) for sign in (1, -1)), [-1e5, -1e10], np.linspace(-6, 6, 121)]
)


def exact_phi(order, z):
    """φ_k(z) by its recursion in 80 digits, and by its series where that loses them."""
    with mp.workdps(80):
        z = mp.mpf(float(z))
        if abs(z) < 0.01:
            return mp.fsum(z**j / mp.factorial(j + order) for j in range(30))
        value = mp.exp(z)
        for k in range(1, order + 1):
            value = (value - 1 / mp.factorial(k - 1)) / z
        return value


@pytest.mark.parametrize("order", [1, 2, 4, 6])
def test_phi_functions_in_fifty_digits(order):
    # Every argument of either sign, from 0 through 1e-300 to 600 and −1e10: to 1e-14 relative.
    found = phi_functions(ARGUMENTS, order)
    for k in range(1, order + 1):
        for z, value in zip(ARGUMENTS, found[k], strict=True):
            exact = exact_phi(k, z)
            assert abs(mp.mpf(float(value)) - exact) <= 1e-14 * exact, (k, z)
    np.testing.assert_array_equal(found[0], np.exp(ARGUMENTS))


def test_nodes_are_those_of_lobatto():
    # Four points on [−1, 1]: ±1, ±1/√5; five: 0, ±√(3/7).
    np.testing.assert_allclose(2 * lobatto_nodes(3) - 1, [-(0.2**0.5), 0.2**0.5, 1], atol=1e-15)
    np.testing.assert_allclose(2 * lobatto_nodes(4) - 1, [-((3 / 7) ** 0.5), 0, (3 / 7) ** 0.5, 1], atol=1e-15)


@pytest.mark.parametrize("count", [2, 3, 4, 5])
def test_polynomials_are_integrated_exactly(count):
    # y' = z y + Σ_q a_q t^q, y(0) = 0, by quadrature in 30 digits, at two fractions of the step; and g from its values.
    scheme = Collocation(count)
    coefficients = np.random.default_rng(count).standard_normal(count)
    values = np.polynomial.polynomial.polyval(scheme.nodes, [0, *coefficients])
    np.testing.assert_allclose(scheme.coefficients(values[:, None]), coefficients[:, None], rtol=1e-11)
    last = np.polynomial.polynomial.polyval(2.5 * (np.append(0, scheme.nodes[:-1]) - 1), [0, *coefficients])
    np.testing.assert_allclose(scheme.extrapolated(last[:, None], np.array([0.4]))[0], coefficients[:1], rtol=1e-10)
    for z in (-50.0, -1.0, 0.3, 4.0):
        for theta in (0.2, 1.0):
            weights = scheme.weights(np.array([z]), theta)
            found = sum(a * w for a, w in zip(coefficients, weights[1:], strict=True))
            with mp.workdps(30):
                exact = mp.quad(
                    lambda s, z=z, theta=theta: (
                        mp.exp((theta - s) * z) * sum(mp.mpf(float(a)) * s**q for q, a in enumerate(coefficients, 1))
                    ),
                    mp.linspace(0, theta, 9),
                )
            assert float(found[0]) == pytest.approx(float(exact), rel=1e-12, abs=1e-14)
            assert weights[0][0] == pytest.approx(np.expm1(theta * z) / z, rel=1e-14)


def test_highest_coefficients_are_those_of_legendre():
    # 2 P_3 + 5 P_2 − P_1 on [0, 1], less its value at 0.
    scheme = Collocation(3)
    legendre = np.polynomial.Legendre([0, -1, 5, 2], domain=[0, 1])
    values = legendre(scheme.nodes) - legendre(0)
    below, top = scheme.highest(scheme.coefficients(values[:, None]))
    assert (below[0], top[0]) == (pytest.approx(5, rel=1e-12), pytest.approx(2, rel=1e-12))


class Logistic:
    """y' = r (1 − y) y, entry by entry, with J frozen at y = 1: y = 1/(1 + (1/y_0 − 1) e^{−rt})."""

    def __init__(self, rates):
        self.rates = rates

    def take(self, members):
        return Logistic(self.rates[members])

    def field(self, y):
        return self.rates * (1 - y) * y, np.zeros(y.shape[:-2])

    def jacobian(self, y, members):
        return -self.rates[members] * np.ones_like(y)

    def projected(self, y):
        return y

    def admissible(self, y):
        return np.ones(len(y), dtype=bool)

    def moved(self, y, members):
        return np.zeros(len(members), dtype=bool)


def solve(rates, start, end, rtol):
    options, times = FlowOptions(depth=1, rtol=rtol), np.zeros(len(start))
    stack = CollocationStack(Logistic(rates), start.copy(), times, np.full(len(start), end), options)
    steps = [[] for _ in start]
    while stack.active.place.size:
        stepped, _, made = stack.sweep()
        for j, step in zip(stack.active.place[stepped], made, strict=True):
            steps[j].append(step)
        stack.keep(stack.active.time < end)
    return steps


def logistic(rates, start, times):
    return 1 / (1 + (1 / start - 1) * np.exp(-rates * times[:, None, None]))


@pytest.mark.parametrize("rate", [1.0, 1e4])
def test_tolerance_is_kept_along_the_steps(rate):
    # Rates of 1 and of rate in one matrix: errors between the steps follow rtol, whatever the stiffness.
    rates = np.array([[[1.0, rate]]])
    start, times = np.array([[[0.2, 0.7]]]), np.linspace(0.01, 5, 97)
    errors = []
    for rtol in (1e-4, 1e-6, 1e-8):
        (steps,) = solve(rates, start, 5.0, rtol)
        knots = np.array([step.time for step in steps])
        found = dense_output(steps, np.searchsorted(knots, times) - 1, times)
        errors.append(np.abs(found - logistic(rates, start, times)).max())
        assert errors[-1] < 20 * rtol
    assert errors[2] < errors[1] / 5 < errors[0] / 25


def test_order_of_convergence():
    # One step from the solution: m = 3 gives y(h) to O(h^{m+2}) between the nodes, measured over five halvings of h.
    scheme, rate, start = Collocation(3), 2.0, 0.3
    errors = []
    for h in 0.4 / 2.0 ** np.arange(6):
        z, f = np.array([-rate]), rate * (1 - start) * start
        weights = [scheme.weights(h * z, c) for c in scheme.nodes]
        y = np.full((3, 1), start)
        for _ in range(60):
            g = rate * (1 - y) * y - f + rate * (y - start)
            a = scheme.coefficients(g)
            y = np.array([start + h * (w[0] * f + sum(q * v for q, v in zip(a, w[1:], strict=True))) for w in weights])
        w = scheme.weights(h * z, 0.35)
        middle = start + h * (w[0] * f + sum(q * v for q, v in zip(a, w[1:], strict=True)))
        errors.append(abs(middle[0] - logistic(rate, start, np.array([0.35 * h]))[0, 0, 0]))
    orders = np.log2(np.array(errors[:-1]) / errors[1:])
    np.testing.assert_allclose(orders[-3:], 5, atol=0.25)


def test_members_get_the_bits_they_get_alone():
    rng = np.random.default_rng(1)
    rates, start = rng.uniform(0.1, 1e3, (7, 2, 2)), rng.uniform(0.1, 2, (7, 2, 2))
    together = solve(rates, start, 3.0, 1e-6)
    assert len({len(steps) for steps in together}) > 1
    for j in range(7):
        (alone,) = solve(rates[j : j + 1], start[j : j + 1], 3.0, 1e-6)
        assert [step.size for step in alone] == [step.size for step in together[j]]
        np.testing.assert_array_equal(alone[-1].coefficients, together[j][-1].coefficients)
