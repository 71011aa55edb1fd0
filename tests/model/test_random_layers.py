"""Layers of random laws, balanced and cut, and the streams that they are drawn from."""

from itertools import pairwise

import numpy as np
import pytest

from deepbures.model.network import DeepLinearNetwork
from deepbures.model.starts import BALANCES, DISTRIBUTIONS, draw_layer, draw_network, with_end_rank
from deepbures.study.cell.problem import make_loss, make_start
from deepbures.study.run import checked


def best_approximation(W, rank):
    """Eckart-Young: the leading part of the SVD."""
    U, s, Vh = np.linalg.svd(W, full_matrices=False)
    return (U * s)[:, :rank] @ Vh[:rank]


def singular_values(W):
    return np.linalg.svd(W, compute_uv=False)


# --- One layer --------------------------------------------------------------------------------------------------

VARIANCES = {
    "normal": lambda rows, columns: 0.7**2,
    "uniform": lambda rows, columns: 1 / 3,
    "xavier_normal": lambda rows, columns: 2 / (rows + columns),
    "xavier_uniform": lambda rows, columns: 2 / (rows + columns),
    "kaiming_normal": lambda rows, columns: 2 / columns,
    "kaiming_uniform": lambda rows, columns: 2 / columns,
}


def test_every_distribution_is_tested():
    assert {*VARIANCES, "orthogonal"} == set(DISTRIBUTIONS)


@pytest.mark.parametrize("shape", [(600, 200), (200, 600)])
@pytest.mark.parametrize("name", VARIANCES)
def test_layer_has_the_mean_and_variance_that_define_it(rng, name, shape):
    # Within five standard errors over 120,000 entries: √(v/m) of the mean, v √((κ − 1)/m) of the variance, with the
    # kurtosis κ = 3 of a normal law, whose own is √(24/m), and 9/5 of a uniform one.
    W = draw_layer(rng, name, *shape, deviation=0.7)
    assert W.shape == shape
    variance, kurtosis, m = VARIANCES[name](*shape), 1.8 if name.endswith("uniform") else 3, W.size
    assert abs(W.mean()) < 5 * np.sqrt(variance / m)
    assert abs(np.mean(W**2) - variance) < 5 * variance * np.sqrt((kurtosis - 1) / m)
    assert np.mean(W**4) / variance**2 == pytest.approx(kurtosis, abs=5 * np.sqrt(24 / m))
    # Independent entries: singular values from σ |√rows − √columns| to σ (√rows + √columns), to 10 %.
    edges = np.sqrt(variance) * np.abs(np.sqrt(shape[0]) + np.array([1, -1]) * np.sqrt(shape[1]))
    np.testing.assert_allclose(singular_values(W)[[0, -1]], edges, rtol=0.1)


@pytest.mark.parametrize("name", ["uniform", "xavier_uniform", "kaiming_uniform"])
def test_uniform_layer_fills_its_range(rng, name):
    # [−√3 σ, √3 σ], which is [−1, 1] for `uniform`.
    W = draw_layer(rng, name, 300, 200)
    bound = np.sqrt(3 * VARIANCES[name](300, 200))
    assert bound == 1 or name != "uniform"
    assert bound * 0.999 < -W.min() <= bound
    assert bound * 0.999 < W.max() <= bound


@pytest.mark.parametrize("shape", [(5, 3), (3, 5), (4, 4), (1, 6)])
def test_orthogonal_layer_has_singular_values_1(rng, shape):
    W = draw_layer(rng, "orthogonal", *shape)
    assert W.shape == shape
    np.testing.assert_allclose(singular_values(W), 1, rtol=1e-13)


@pytest.mark.parametrize("shape", [(3, 3), (4, 2), (2, 4)])
def test_orthogonal_layers_point_everywhere(rng, shape):
    # Mean 0 and E W_ij² = min(rows, columns)/(rows · columns), over 3000 draws, within five standard errors.
    W = np.array([draw_layer(rng, "orthogonal", *shape) for _ in range(3000)])
    assert np.abs(W.mean(axis=0)).max() < 5 * W.std(axis=0).max() / np.sqrt(3000)
    squares = W**2
    tolerance = 5 * squares.std(axis=0).max() / np.sqrt(3000)
    np.testing.assert_allclose(squares.mean(axis=0), min(shape) / np.prod(shape), atol=tolerance)
    if shape == (3, 3):
        np.testing.assert_allclose(np.linalg.det(W), 1, rtol=1e-12)


@pytest.mark.parametrize("name", ["Normal", "he", "xavier", "kaiming_orthogonal", "_normal", ""])
def test_unknown_distribution_is_refused(rng, name):
    message = f"^distribution must be one of {', '.join(DISTRIBUTIONS)}, not {name!r}$"
    with pytest.raises(ValueError, match=message):
        draw_layer(rng, name, 2, 2)
    with pytest.raises(ValueError, match=message):
        draw_network(rng, 3, 2, 2, name)


# --- Networks ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("gamma", [1, 2])
@pytest.mark.parametrize(("depth", "rank"), [(1, 4), (2, 4), (2, 1), (5, 3)])
def test_normal_layers_give_end_to_end_entries_of_their_variance(rng, depth, rank, gamma):
    # Mean 0, variance d_0^{−γ}, whatever depth and bottleneck; 4 × 6 matrices, 3000 draws, five standard errors.
    draws = (draw_network(rng, 4, depth, rank, "normal", gamma=gamma, input_dimension=6) for _ in range(3000))
    W = np.array([network.end_to_end() for network in draws]) * 6 ** (gamma / 2)
    squares = np.mean(W**2, axis=(1, 2))
    tolerance = 5 * squares.std() / np.sqrt(3000)
    assert tolerance < 0.4  # the test has teeth
    assert squares.mean() == pytest.approx(1, abs=tolerance)
    means = W.mean(axis=(1, 2))
    assert means.mean() == pytest.approx(0, abs=5 * means.std() / np.sqrt(3000))


def test_normal_end_to_end_matrix_has_the_same_variance(rng):
    draws = [
        draw_network(rng, 4, 3, 4, "normal", balance="end_to_end", gamma=2, input_dimension=6) for _ in range(2000)
    ]
    squares = np.array([np.mean(network.end_to_end() ** 2) for network in draws]) * 6**2
    assert squares.mean() == pytest.approx(1, abs=5 * squares.std() / np.sqrt(2000))


@pytest.mark.parametrize("balance", BALANCES)
@pytest.mark.parametrize(("depth", "rank"), [(1, 4), (2, 3), (5, 2)])
def test_layers_chain_through_the_bottleneck(rng, depth, rank, balance):
    network = draw_network(rng, 4, depth, rank, "uniform", balance=balance, input_dimension=6)
    assert [W.shape for W in network.layers] == [*pairwise([4, *[rank] * (depth - 1), 6])][::-1]
    assert np.linalg.matrix_rank(network.end_to_end()) == rank


@pytest.mark.parametrize("name", DISTRIBUTIONS)
@pytest.mark.parametrize(("depth", "rank"), [(2, 5), (3, 2), (10, 3)])
def test_balanced_networks_are_balanced(name, depth, rank):
    # W_{j+1}ᵀ W_{j+1} = W_j W_jᵀ; the product is that of the layers drawn one by one from the same stream.
    drawn, product, end_to_end = (
        draw_network(np.random.default_rng(8), 5, depth, rank, name, balance=balance, input_dimension=7)
        for balance in BALANCES
    )
    for network in (product, end_to_end):
        scale = max(np.sum(W**2) for W in network.layers)
        assert network.balancedness() < 1e-13 * max(scale, 1)
    W = drawn.end_to_end()
    np.testing.assert_allclose(product.end_to_end(), W, rtol=0, atol=1e-13 * np.linalg.norm(W))
    assert drawn.balancedness() > 1e-3 or name == "orthogonal"


@pytest.mark.parametrize("name", DISTRIBUTIONS)
@pytest.mark.parametrize("depth", [1, 2, 5])
def test_end_to_end_draw_is_cut_to_its_best_approximation(name, depth):
    # One n × d_0 matrix of the law, whatever the depth; at rank k the leading part of its SVD.
    def draw(rank):
        stream = np.random.default_rng(9)
        return draw_network(stream, 5, depth, rank, name, balance="end_to_end", input_dimension=7).end_to_end()

    whole = draw_layer(np.random.default_rng(9), name, 5, 7, 7**-0.5)
    np.testing.assert_allclose(draw(5), whole, atol=1e-13)
    for rank in (1, 3):
        if name == "orthogonal":  # equal singular values: any part of rank k is a best one
            np.testing.assert_allclose(singular_values(draw(rank)), np.arange(5) < rank, atol=1e-13)
            assert np.linalg.norm(whole - draw(rank)) == pytest.approx(np.sqrt(5 - rank), rel=1e-12)
        else:
            np.testing.assert_allclose(draw(rank), best_approximation(whole, rank), atol=1e-13)


@pytest.mark.parametrize("name", DISTRIBUTIONS)
def test_one_layer_is_the_draw_itself(name):
    # Balanced or not; below full rank cut, since one layer has no bottleneck.
    whole = draw_layer(np.random.default_rng(3), name, 4, 6, 6**-0.5)
    for balance in BALANCES:
        for rank in (4, 2):
            stream = np.random.default_rng(3)
            (W,) = draw_network(stream, 4, 1, rank, name, balance=balance, input_dimension=6).layers
            if rank == 4:
                np.testing.assert_allclose(W, whole, atol=1e-15)
            elif name != "orthogonal":
                np.testing.assert_allclose(W, best_approximation(whole, rank), atol=1e-13)
            assert np.linalg.matrix_rank(W) == rank


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"balance": "Product"}, "balance must be one of none, product, end_to_end, not 'Product'"),
        ({"rank": 0}, "rank must lie between 1 and min(n, d_0) = 4, not 0"),
        ({"rank": 5}, "rank must lie between 1 and min(n, d_0) = 4, not 5"),
        ({"rank": 4, "input_dimension": 3}, "rank must lie between 1 and min(n, d_0) = 3, not 4"),
        ({"depth": 0}, "depth must be an integer ≥ 1, not 0"),
        ({"depth": 2.0}, "depth must be an integer ≥ 1, not 2.0"),
    ],
)
@pytest.mark.parametrize("distribution", ["normal", "orthogonal"])
def test_network_refuses_bad_settings(rng, distribution, options, message):
    settings = {"dimension": 4, "depth": 2, "rank": 2, "distribution": distribution, **options}
    with pytest.raises(ValueError) as caught:  # noqa: PT011, compared whole
        draw_network(rng, **settings)
    assert str(caught.value) == message


@pytest.mark.parametrize("depth", [1, 2, 5])
@pytest.mark.parametrize("rank", [1, 2, 3])
def test_end_layers_are_cut_to_their_best_approximations(rng, rank, depth):
    network = draw_network(rng, 5, depth, 4 if depth > 1 else 5, "normal", input_dimension=6)
    cut = with_end_rank(network, rank)
    ends = {0, depth - 1}
    for j, (W, before) in enumerate(zip(cut.layers, network.layers, strict=True)):
        if j in ends:
            assert np.linalg.matrix_rank(W) == rank
            np.testing.assert_allclose(W, best_approximation(before, rank), atol=1e-14)
            # No matrix of that rank is nearer: what is lost are the singular values beyond.
            lost = np.sqrt(np.sum(singular_values(before)[rank:] ** 2))
            assert np.linalg.norm(W - before) == pytest.approx(lost, rel=1e-12)
        else:
            np.testing.assert_array_equal(W, before)
    assert np.linalg.matrix_rank(cut.end_to_end()) == rank


def test_end_rank_beyond_the_layers_cuts_nothing(rng):
    network = draw_network(rng, 5, 3, 2, "normal")
    for W, before in zip(with_end_rank(network, 9).layers, network.layers, strict=True):
        np.testing.assert_allclose(W, before, atol=1e-14)
    with pytest.raises(ValueError, match=r"^rank must be at least 1, not 0$"):
        with_end_rank(network, 0)


# --- Starts of an experiment ------------------------------------------------------------------------------------

SETTINGS = {
    "study_seed": 11,
    "loss": "bures-wasserstein",
    "dimension": 5,
    "target": {"spectrum": "zipf", "mode": "eigenvalues"},
    "epsilon": 0.1,
    "smin": 0.5,
    "rank": 5,
    "depth": 3,
    "kind": "descent",
    "descent": {"max_steps": 1, "samples": 2},
}


def start_of(seed=0, kind="normal", balance=None, end_rank=None, **changes):
    initialization = {
        "kind": kind,
        "balance": balance,
        "scale": 0.01 if kind == "small" else None,
        "end_rank": end_rank,
    }
    initialization = {key: value for key, value in initialization.items() if value is not None}
    settings = {**SETTINGS, "initialization": initialization, **changes}
    return make_start(checked(settings), seed, make_loss(checked(settings), seed))


ONE_MATRIX = {
    "close": {"kind": "close"},
    "small": {"kind": "small"},
    "normal": {"balance": "end_to_end"},
    "uniform": {"kind": "uniform", "balance": "end_to_end"},
    "kaiming": {"kind": "kaiming_normal", "balance": "end_to_end"},
}
LAYER_BY_LAYER = {
    f"{kind}-{balance}": {"kind": kind, "balance": balance}
    for kind in ("normal", "orthogonal")
    for balance in ("none", "product")
}


@pytest.mark.parametrize("change", [*ONE_MATRIX.values(), *LAYER_BY_LAYER.values()])
def test_start_is_deterministic_and_differs_by_seed(change):
    first, again, other = start_of(**change), start_of(**change), start_of(seed=1, **change)
    for W, same in zip(first.network.layers, again.network.layers, strict=True):
        np.testing.assert_array_equal(W, same)
    assert np.abs(first.end_to_end - other.end_to_end).max() > 1e-3
    np.testing.assert_allclose(first.network.end_to_end(), first.end_to_end, atol=1e-13)


def test_kinds_have_their_own_streams():
    # Different kinds of one family too: the same normal numbers would make W a multiple of another.
    W = [start_of(kind=kind, balance="end_to_end").end_to_end.ravel() for kind in ("normal", "xavier_normal")]
    W += [start_of(kind="kaiming_normal", balance="end_to_end").end_to_end.ravel()]
    assert np.abs(np.corrcoef(W) - np.eye(3)).max() < 0.7


@pytest.mark.parametrize("change", ONE_MATRIX.values(), ids=ONE_MATRIX)
def test_end_to_end_draw_is_common_to_all_depths(change):
    whole = start_of(**change).end_to_end
    for depth in (1, 2, 10):
        np.testing.assert_allclose(start_of(depth=depth, **change).end_to_end, whole, atol=1e-12)


@pytest.mark.parametrize("change", [ONE_MATRIX[name] for name in ("normal", "uniform", "kaiming")])
@pytest.mark.parametrize("rank", [1, 4])
def test_end_to_end_draw_is_common_to_all_ranks_up_to_the_cut(change, rank):
    # At rank k its best approximation; for all ε and smin, too.
    whole, cut = start_of(**change).end_to_end, start_of(rank=rank, smin=3, epsilon=0, **change).end_to_end
    np.testing.assert_allclose(cut, best_approximation(whole, rank), atol=1e-12)


def test_small_starts_of_all_ranks_share_their_frames():
    # s U_k V_kᵀ = (cut cutᵀ / s²) · s U Vᵀ.
    whole, cut = start_of(kind="small").end_to_end, start_of(kind="small", rank=2, smin=3, epsilon=0).end_to_end
    np.testing.assert_allclose(cut @ cut.T @ whole, 1e-4 * cut, atol=1e-18)
    assert np.linalg.matrix_rank(cut) == 2


@pytest.mark.parametrize("kind", ["normal", "uniform", "orthogonal"])
def test_layers_drawn_one_by_one_have_a_stream_for_each_depth_and_rank(kind):
    # From one stream the first layers at depths 2 and 3, or ranks 5 and 4, would be multiples of one another.
    def numbers(**changes):
        return start_of(kind=kind, balance="none", **changes).network.layers[0].ravel()[:20]

    base = numbers(depth=2)
    for other in (numbers(depth=3), numbers(depth=2, rank=4)):
        assert abs(np.corrcoef(base, other)[0, 1]) < 0.8
    np.testing.assert_array_equal(numbers(depth=2, epsilon=0, smin=3), base)  # but not for each ε and smin


@pytest.mark.parametrize(("depth", "rank"), [(2, 5), (4, 3)])
@pytest.mark.parametrize("kind", ["normal", "orthogonal"])
def test_product_is_that_of_the_layers_as_drawn(kind, depth, rank):
    drawn, product = (start_of(kind=kind, balance=b, depth=depth, rank=rank) for b in ("none", "product"))
    np.testing.assert_allclose(product.end_to_end, drawn.end_to_end, atol=1e-13)
    assert product.network.balancedness() < 1e-13
    assert drawn.network.balancedness() > 0.1 or kind == "orthogonal"


@pytest.mark.parametrize("change", [*ONE_MATRIX.values(), *LAYER_BY_LAYER.values()])
def test_one_layer_below_full_rank_is_narrow(change):
    # d_0 = k: the layer is n × k, with the W Wᵀ of the n × d_0 matrix.
    rank = 4 if change == {"kind": "close"} else 2
    start = start_of(depth=1, rank=rank, smin=3, **change)
    (W,) = start.network.layers
    assert W.shape == (5, rank)
    assert start.end_to_end.shape == (5, 5)
    np.testing.assert_allclose(W @ W.T, start.end_to_end @ start.end_to_end.T, atol=1e-13)
    assert np.linalg.matrix_rank(W) == rank
    if change in ONE_MATRIX.values():
        deep = start_of(depth=2, rank=rank, smin=3, **change).end_to_end
        np.testing.assert_allclose(W @ W.T, deep @ deep.T, atol=1e-12)


@pytest.mark.parametrize("depth", [1, 2, 4])
def test_end_rank_cuts_the_start(depth):
    whole, cut = (start_of(balance="end_to_end", depth=depth, rank=4, end_rank=end) for end in (None, 2))
    expected = with_end_rank(whole.network, 2)
    for W, other in zip(cut.network.layers, expected.layers, strict=True):
        np.testing.assert_array_equal(W, other)
    np.testing.assert_array_equal(cut.end_to_end, expected.end_to_end())
    assert np.linalg.matrix_rank(cut.end_to_end) == 2


def test_scale_and_draws_are_those_of_the_start():
    close, small, normal = start_of(kind="close"), start_of(kind="small"), start_of(balance="end_to_end")
    assert close.draws > 1
    assert close.scale > 0
    assert (small.scale, small.draws) == (0.01, 1)
    assert np.isnan(normal.scale)
    assert normal.draws == 1
    for start in (close, small, normal):
        assert isinstance(start.network, DeepLinearNetwork)
        assert start.network.balancedness() < 1e-13
