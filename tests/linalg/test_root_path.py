"""Inverse roots along a path: right to rounding at every call, each member by itself, whatever the steps are."""

import numpy as np
import pytest

from deepbures.linalg.root_path import RootPath

EPS = np.finfo(float).eps
N = 16


def walk(rng, steps, drift, condition):
    """M_t = X_t X_tᵀ, X_t on a path of this speed, with the condition of M_0."""
    X = np.diag(np.geomspace(1, condition**-0.5, N)) @ np.linalg.qr(rng.standard_normal((N, N)))[0]
    V = X @ rng.standard_normal((N, N)) / N
    return [(X + drift * t * V) @ (X + drift * t * V).T for t in range(steps)]


def follow(stacks):
    """Roots along a path of stacks, and how many were decomposed at each call."""
    roots, found, counts = RootPath(), [], []
    for M in stacks:

        def decompose(members, M=M):
            counts.append(int(members.sum()))
            mu, Q = np.linalg.eigh(M[members])
            return np.sqrt(mu), Q

        counts.append(0)
        found.append(roots.inverse_root(M, decompose))
    return found, counts


@pytest.mark.parametrize("condition", [1.0, 30.0, 1e4])
@pytest.mark.parametrize("drift", [0.0, 1e-8, 1e-5, 1e-3, 0.1, 1.0])
def test_every_root_is_right_to_rounding(rng, drift, condition):
    path = np.array(walk(rng, 60, drift, condition))[:, None]
    found, counts = follow(path)
    for M, (root, share) in zip(path[:, 0], found, strict=True):
        mu, Q = np.linalg.eigh(M)
        exact = (Q / np.sqrt(mu)) @ Q.T
        assert np.abs(root[0] - exact).max() <= 500 * EPS * mu[-1] / mu[0] * np.abs(exact).max()
        assert np.linalg.norm(root[0] @ M @ root[0] - np.eye(N)) <= 500 * EPS * mu[-1] / mu[0]
        assert share[0] == pytest.approx(mu[0] / mu[-1], rel=0.5)
    if drift <= 1e-5:
        assert sum(counts) <= 6
    if drift == 1:
        assert sum(counts) >= 50


def test_a_basis_that_grows_old_is_noticed(rng):
    # M turns, slowly at first and then faster: one iteration is enough in most calls, and converges ever more slowly.
    generator = rng.standard_normal((N, N))
    w, U = np.linalg.eig((generator - generator.T) / np.linalg.norm(generator - generator.T, 2))
    for first, growth in ((1e-7, 1.002), (1e-8, 1.005), (1e-5, 1.0)):
        angles = np.cumsum(first * growth ** np.arange(4000))
        turns = [((U * np.exp(w * angle)) @ U.conj().T).real for angle in angles[angles < 0.3]]
        path = [(R * np.geomspace(1, 0.1, N)) @ R.T for R in turns]
        found, counts = follow([(M + M.T)[None] / 2 for M in path])
        residuals = [
            np.linalg.norm(root[0] @ M @ root[0] - np.eye(N)) for M, (root, _) in zip(path, found, strict=True)
        ]
        assert max(residuals) <= 500 * EPS
        assert sum(counts) < len(path) / 20


def test_members_get_the_bits_they_get_alone(rng):
    # Slow, fast, and one that jumps; some leave on the way.
    paths = [walk(rng, 80, drift, condition) for drift, condition in ((1e-6, 10), (1e-3, 100), (1e-4, 3), (0.3, 30))]
    paths[2][40:] = walk(rng, 40, 1e-5, 50)
    alone = [follow(np.array(path)[:, None])[0] for path in paths]
    stacks = np.array(paths).swapaxes(0, 1)
    roots, members = RootPath(), np.arange(4)
    for t, M in enumerate(stacks):
        if t == 20:
            roots.keep(members != 1)
            members = members[members != 1]
        M = M[members]

        def decompose(which, M=M):
            mu, Q = np.linalg.eigh(M[which])
            return np.sqrt(mu), Q

        found, share = roots.inverse_root(M, decompose)
        for j, i in enumerate(members):
            np.testing.assert_array_equal(found[j], alone[i][t][0][0])
            assert share[j] == alone[i][t][1][0]


def test_ill_conditioned_matrices_and_small_ones_are_decomposed_each_time(rng):
    _, counts = follow(np.array(walk(rng, 20, 1e-8, 1e7))[:, None])
    assert sum(counts) == 20
    _, counts = follow([np.eye(4)[None]] * 20)
    assert sum(counts) == 20
