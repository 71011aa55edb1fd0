"""Experiments in which bounds can fail: starts by scale, steps of the theorem, columns of the bounds, units."""

import copy

import numpy as np
import pytest

from deepbures.flow.gradient_flow import gradient_flow
from deepbures.losses.registry import BuresWasserstein, Frobenius
from deepbures.model.diagnostics import least_singular_value
from deepbures.model.starts import aligned_start, close_start
from deepbures.rates import predicted as predicted_rates
from deepbures.rates.measured import worst_ratio
from deepbures.rates.program_constants import bound_is_proved
from deepbures.study.cell.measure import slowest_share
from deepbures.study.cell.problem import make_loss, make_start
from deepbures.study.configuration import ConfigurationError, check
from deepbures.study.grid.cells import cells
from deepbures.study.grid.target import limited_epsilon
from deepbures.study.run import checked, run_cell

FLOW = {
    "study_seed": 5,
    "kind": "flow",
    "loss": "bures-wasserstein",
    "dimension": 4,
    "target": {"spectrum": "zipf", "mode": "eigenvalues"},
    "initialization": {"kind": "close"},
    "integration": {"rtol": 1e-8, "excess_tolerance": 1e-12, "max_time": 100, "max_steps": 1000, "samples": 400},
    "epsilon": 0.1,
    "smin": 0.5,
    "rank": 4,
    "depth": 2,
}
DESCENT = {key: value for key, value in FLOW.items() if key != "integration"} | {
    "kind": "descent",
    "descent": {"max_steps": 200, "samples": 20},
    "theorem_step": 0.5,
}
#: λ_1 = 1.
SCALAR = {"dimension": 1, "rank": 1, "smin": -1, "initialization": {"kind": "small", "scale": 0.5}}


def rows(settings, seeds=(0,), **changes):
    return [table.to_pylist() for table in run_cell({**settings, **changes}, seeds).values()]


def column(samples, name):
    return np.array([row[name] for row in samples])


# --- The program's bound and ours --------------------------------------------------------------------------------


@pytest.mark.parametrize(("depth", "by"), [(1, 0.4), (2, 0.1)])
@pytest.mark.parametrize("epsilon", [1, 0.9])
def test_counterexample_breaks_the_programs_bound_and_not_ours(depth, by, epsilon):
    # n = 1, λ = 1, W(0) = 0.5, c = 0.88 at ε = 1: paper.md section 11.
    (run,), samples = rows(FLOW, **SCALAR, depth=depth, epsilon=epsilon)
    times, excess = column(samples, "time"), column(samples, "excess")
    if epsilon == 1:
        assert run["margin"] == pytest.approx(2 - np.sqrt(1.25), rel=1e-12)
        early = times <= by
        assert worst_ratio(times[early], excess[early], run["bound_rate"]) > 1 + 1e-4
    assert worst_ratio(times, excess, run["bound_rate"]) > 1.5
    assert worst_ratio(times, excess, run["global_rate"], run["loss_initial"]) <= 1 + 1e-9
    assert run["bound_is_proved"] == 0


@pytest.mark.parametrize("scale", [-0.95, -0.3, 0.01, 1.0])
@pytest.mark.parametrize("epsilon", [0, 0.1, 0.7])
def test_columns_of_the_bounds_are_those_of_theory(scale, epsilon):
    settings = {**FLOW, "epsilon": epsilon, "initialization": {"kind": "close", "scale": scale}}
    loss = make_loss(checked(settings), 1)
    start = make_start(checked(settings), 1, loss)
    least = np.linalg.svd(start.end_to_end, compute_uv=False)[-1]
    (run,), samples = rows(settings, [1])
    assert run["least_singular_value_initial"] == pytest.approx(least, rel=1e-12)
    expected = predicted_rates.global_rate(loss.eigenvalues, loss.epsilon, 2, least)
    assert run["global_rate"] == pytest.approx(expected, rel=1e-12)
    assert expected > 0
    assert run["bound_is_proved"] == bound_is_proved(run["margin"], loss.epsilon, loss.eigenvalues, least)
    times, excess = column(samples, "time"), column(samples, "excess")
    assert worst_ratio(times, excess, run["global_rate"], run["loss_initial"]) <= 1 + 1e-7
    # σ_n(W(t)) is never below the least of its start and its limit.
    floor = min(least, np.sqrt(loss.eigenvalues[-1] - loss.epsilon))
    assert column(samples, "least_singular_value").min() >= floor * (1 - 1e-7)
    assert samples[0]["least_singular_value"] == pytest.approx(least, rel=1e-9)


def test_least_singular_value_is_the_kth_even_where_the_start_has_a_lower_rank():
    # n = k = 4, end_rank 3: σ_4 = 0, and the third is not taken for it.
    (run,), samples = rows(FLOW, initialization={"kind": "normal", "balance": "end_to_end", "end_rank": 3})
    assert run["least_singular_value_initial"] == pytest.approx(0, abs=1e-12)
    assert column(samples, "least_singular_value").max() == pytest.approx(0, abs=1e-12)
    F = np.diag([3.0, 2.0, 1.0])[:, :2]
    assert [float(least_singular_value(F, k)) for k in (2, 3)] == pytest.approx([2, 0], abs=1e-15)


def test_square_loss_has_its_own_global_rate_and_no_bound_of_the_program():
    (run,), samples = rows(FLOW, loss="frobenius", epsilon=0, initialization={"kind": "small", "scale": 0.3})
    assert np.isnan(run["bound_rate"])
    assert run["bound_is_proved"] == 0
    assert run["global_rate"] == pytest.approx(16 * 2 * 0.09**1.5, rel=1e-9)
    times, excess = column(samples, "time"), column(samples, "excess")
    assert worst_ratio(times, excess, run["global_rate"], run["loss_initial"]) <= 1 + 1e-7


def test_worst_ratio_sees_one_sample_above_the_bound():
    t = np.linspace(0, 3, 31)
    excess = 2 * np.exp(-4 * t)
    assert worst_ratio(t, excess, 4) == pytest.approx(1, rel=1e-12)
    assert worst_ratio(t, excess, 3.9) == pytest.approx(np.exp(-0.01), rel=1e-12)
    assert worst_ratio(t, excess, 4.1) == pytest.approx(np.exp(0.3), rel=1e-12)
    assert worst_ratio(t, excess * np.where(t == t[7], 1.5, 1), 4) == pytest.approx(1.5, rel=1e-12)
    assert worst_ratio(t, excess, 4, initial=4) == pytest.approx(0.5, rel=1e-12)
    assert np.isnan(worst_ratio(t, excess, float("nan")))


# --- Starts -----------------------------------------------------------------------------------------------------


def test_scale_of_a_close_start_sets_its_margin_and_side(make_target):
    loss = BuresWasserstein(make_target([4.0, 2.0, 1.0]), 0.3)
    optimum, _ = loss.minimum()
    margins = []
    for scale in (-0.9, -0.3, 0.001, 0.1, 10.95):
        start = close_start(np.random.default_rng(3), loss, 3, first_scale=scale)
        S = start.end_to_end @ start.end_to_end.T
        gap = np.linalg.eigvalsh(S - optimum)
        assert (gap < 0).all() if scale < 0 else (gap > 0).all()
        assert np.linalg.matrix_rank(S) == 3
        margins.append(np.sqrt(1.0) - np.sqrt(loss.value(start.end_to_end)))
    assert min(margins) > 0
    assert margins[2] > 0.99 > margins[3] > margins[4]


@pytest.mark.parametrize("scale", [0, -1, -2, float("nan")])
def test_close_start_refuses_a_scale_without_rank(make_target, scale):
    with pytest.raises(ValueError, match="more than -1 and not 0"):
        close_start(np.random.default_rng(0), BuresWasserstein(make_target([2.0, 1.0])), 2, first_scale=scale)


@pytest.mark.parametrize("epsilon", [0, 0.2])
@pytest.mark.parametrize("depth", [1, 2, 5])
def test_aligned_start_is_half_done_at_the_predicted_times(epsilon, depth):
    # S(t) commutes with Σ0; at the half-time of mode i its eigenvalue is (λ_i − ε)/2, to the accuracy of the flow.
    settings = {**FLOW, "initialization": {"kind": "aligned", "scale": 0.05}, "rank": 3, "epsilon": epsilon}
    settings["integration"] = {**FLOW["integration"], "samples": 400}
    (run,), _ = rows(settings, depth=depth)
    loss = make_loss(checked(settings), 0)
    start = aligned_start(np.random.default_rng(0), loss, 3, 0.05)
    S = start.end_to_end @ start.end_to_end.T
    np.testing.assert_allclose(S @ loss.covariance, loss.covariance @ S, atol=1e-14)
    predicted = np.array(run["half_times_predicted"])
    flow = gradient_flow(loss, start.end_to_end, depth, np.sort(predicted), rank=3, rtol=1e-9)
    in_basis = loss.eigenvectors.T @ flow.factors
    s = np.sum(in_basis**2, axis=-1)
    for i, place in enumerate(np.argsort(np.argsort(predicted))):
        assert s[place, i] == pytest.approx((loss.eigenvalues[i] - epsilon) / 2, rel=1e-5)
    # What is recorded as measured is interpolated between samples.
    np.testing.assert_allclose(run["half_times"], predicted, rtol=5e-3)


def test_other_starts_have_no_half_times():
    (run,), _ = rows(FLOW)
    assert run["half_times"] == run["half_times_predicted"] == []


# --- The tail, by direction ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("epsilon", [0, 0.3])
@pytest.mark.parametrize("rank", [2, 4])
def test_excess_by_direction_adds_up_to_the_excess(make_target, rng, epsilon, rank):
    loss = BuresWasserstein(make_target([5.0, 3.0, 2.0, 1.0]), epsilon)
    optimum = loss.eigenvectors[:, :rank] * np.sqrt(loss.eigenvalues[:rank] - epsilon)
    direction = rng.standard_normal((4, rank))
    errors = []
    for size in (1e-3, 1e-4):
        F = optimum + size * direction
        total = sum(part.sum() for part in loss.excess_by_direction(F, rank))
        errors.append(abs(total / loss.excess(F, rank) - 1))
    assert errors[0] < 0.02
    assert errors[1] < errors[0] / 5  # of first order: the excess is cut off after the second


def test_slowest_share_tells_which_direction_is_left(make_target):
    # One direction alone at a time: 1 for that of the least rate, 0 for others.
    loss = BuresWasserstein(make_target([5.0, 3.0, 1.0], diagonal=True), 0.1)
    rates = np.concatenate(predicted_rates.local_rates(loss.eigenvalues, 0.1, 2, 3))
    optimum = np.diag(np.sqrt(loss.eigenvalues - 0.1))
    names = list(zip(*np.triu_indices(3), strict=True))
    slowest = names[int(np.argmin(rates))]
    for a, b in names:
        S = optimum @ optimum
        S[a, b] += 1e-6
        S[b, a] = S[a, b]
        share = slowest_share(loss, np.linalg.cholesky(S), 2, 3)
        assert share == pytest.approx(float((a, b) == slowest), abs=1e-4)
    assert np.isnan(slowest_share(BuresWasserstein(np.eye(2), 1.0), np.eye(2), 1, 2))
    assert np.isnan(slowest_share(Frobenius(np.eye(2)), np.eye(2), 1, 2))


# --- Steps of the theorem ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("epsilon", [0, 0.1])
@pytest.mark.parametrize("share", [0.5, 1])
def test_theorem_step_is_a_share_of_the_least_of_three(epsilon, share):
    settings = {**DESCENT, "theorem_step": share, "epsilon": epsilon}
    for run in rows(settings, range(2))[0]:
        least = min(run["log10_eta_1"], run["log10_eta_2"], run["log10_eta_3"])
        assert run["eta"] == pytest.approx(share * 10**least, rel=1e-12)


def test_descent_records_what_each_step_is_proved_to_take():
    settings = {**DESCENT, "depth": 1, "initialization": {"kind": "close", "scale": 0.1}}
    (run,), samples = rows(settings)
    least, eta = run["least_singular_value_initial"], run["eta"]
    m = min(least**2, run["lambda_min"] - 0.1)
    assert run["descent_global_rate"] == pytest.approx(4 * eta * (1 - eta) * m / (m + 0.1), rel=1e-10)
    steps, loss = column(samples, "step"), column(samples, "loss")
    assert (loss <= loss[0] * (1 - run["descent_global_rate"]) ** steps * (1 + 1e-12)).all()
    assert np.isnan(rows(DESCENT)[0][0]["descent_global_rate"])  # two layers: nothing is proved


def test_theorem_step_that_no_float_holds_is_refused_in_one_line():
    with pytest.raises(ValueError, match=r"theorem's step, 1e-\d+, is too small a float"):
        run_cell({**DESCENT, "depth": 200, "dimension": 6, "rank": 6}, [0])
    with pytest.raises(ValueError, match="needs a start with a margin"):
        run_cell({**DESCENT, "initialization": {"kind": "normal", "balance": "none"}}, [3])
    small = {"kind": "small", "scale": 0.1}
    with pytest.raises(ValueError, match="theorem_step needs the loss 'bures-wasserstein'"):
        run_cell({**DESCENT, "loss": "frobenius", "epsilon": 0, "initialization": small}, [0])


# --- What is refused, and units -----------------------------------------------------------------------------------


def test_epsilon_next_to_the_least_eigenvalue_is_that_eigenvalue():
    values = np.array([3.0, 1.0])
    for epsilon in (1.0, 1 - 1e-12, 1 + 1e-12, 7.0):
        assert limited_epsilon(epsilon, values, 2) == 1.0
        assert limited_epsilon(epsilon, values, 1) == min(epsilon, 3.0)  # the empty direction needs no limit
    assert limited_epsilon(0.999, values, 2) == 0.999
    assert limited_epsilon(0, values, 2) == limited_epsilon(0.1, np.array([1.0, 0.0]), 2) == 0
    # So direction n is empty at ε = λ_n for every seed, whatever eigh rounds.
    for seed in range(10):
        loss = make_loss(checked({**FLOW, "dimension": 5, "smin": -1, "epsilon": 0.2}), seed)
        assert (loss.minimum_spectrum(5) > 0).sum() == 4


@pytest.mark.parametrize("settings", [FLOW, {**DESCENT, "descent": {"max_steps": 5, "samples": 2}}])
def test_tolerance_that_nothing_meets_too_soon(settings):
    # ε = 0: the excess loss of W = 0 is tr Σ0.
    trace = make_loss(checked({**settings, "epsilon": 0}), 0).eigenvalues.sum()
    section = "integration" if settings["kind"] == "flow" else "descent"
    for factor in (1.0, 5.0):
        options = {**settings[section], "excess_tolerance": factor * trace}
        with pytest.raises(ValueError, match="excess_tolerance must be below the excess loss of W = 0, which is"):
            run_cell({**settings, "epsilon": 0, section: options}, [0])
    run_cell({**settings, "epsilon": 0, section: {**settings[section], "excess_tolerance": 0.9 * trace}}, [0])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"excess_tolerance": float("nan")}, "excess_tolerance must not be negative, not nan"),
        ({"excess_tolerance": -1e-9}, "excess_tolerance must not be negative"),
        ({"max_steps": 2.5}, "max_steps must be an integer"),
        ({"max_steps": float("nan")}, "max_steps must be an integer"),
        ({"samples": 2.5}, "samples one of at least 2, not"),
    ],
)
def test_flow_refuses_ends_without_meaning(make_target, options, message):
    with pytest.raises(ValueError, match=message):
        gradient_flow(BuresWasserstein(make_target([2.0, 1.0])), np.eye(2), 2, **{"max_time": 1.0, **options})


def test_rank_beyond_the_targets_is_refused_up_front(tmp_path, shipped):
    # Four dimensions, of which the samples span three.
    samples = np.random.default_rng(0).standard_normal((50, 3)) @ np.eye(3, 4)
    np.save(tmp_path / "samples.npy", samples)
    target = {"samples": str(tmp_path / "samples.npy")}
    with pytest.raises(ValueError, match="rank 4 exceeds the rank 3 of the target"):
        run_cell({**FLOW, "target": target}, [0])
    config = copy.deepcopy(shipped())
    block = config["experiments"]["low_rank"]
    block |= {"target": target, "dimension": 4}
    block["grid"] |= {"smin": [-1], "rank": [3, 4]}
    config["figures"] = {}
    with pytest.raises(ConfigurationError) as caught:
        check(config)
    assert "grid.rank: 4 must be at most the rank of the target, 3" in str(caught.value)
    block["grid"]["rank"] = [3]
    check(config)


@pytest.mark.parametrize("array", [np.full((9, 4), 0.1), np.zeros((9, 4))])
def test_equal_samples_are_refused(tmp_path, array):
    np.save(tmp_path / "samples.npy", array)
    with pytest.raises(ValueError, match="all samples are equal"):
        run_cell({**FLOW, "target": {"samples": str(tmp_path / "samples.npy")}}, [0])


def test_zero_target_is_refused(tmp_path):
    np.save(tmp_path / "covariance.npy", np.zeros((4, 4)))
    with pytest.raises(ValueError, match="zero"):
        run_cell({**FLOW, "target": {"covariance": str(tmp_path / "covariance.npy")}}, [0])


#: Powers of the unit of Σ0 that columns have; lists and what is left out have their own tests.
UNITS = {"margin": 0.5, "least_singular_value_initial": 0.5, "loss_initial": 1, "excess_final": 1, "lambda_min": 1}
SAMPLE_UNITS = {"loss": 1, "excess": 1, "covariance_distance": 1, "squared_bures": 1, "least_singular_value": 0.5}


@pytest.mark.parametrize("factor", [1e-12, 1e12])
@pytest.mark.parametrize("rank", [2, 4])
def test_another_unit_of_the_target_scales_every_column(tmp_path, factor, rank):
    # Σ0 and ε times f, W(0) times √f, t times f^{−(1−1/N)}: the same flow.
    base = make_loss(checked(FLOW), 0).covariance
    found = []
    depth = 2
    for unit in (1.0, factor):
        np.save(tmp_path / "covariance.npy", unit * base)
        settings = {
            **FLOW,
            "target": {"covariance": str(tmp_path / "covariance.npy")},
            "initialization": {"kind": "small", "scale": 0.1 * np.sqrt(unit)},
            "rank": rank,
            "depth": depth,
            "epsilon": 0.1 * unit,
            "integration": {
                **FLOW["integration"],
                "excess_tolerance": 1e-12 * unit,
                "max_time": 100 / unit ** (1 - 1 / depth),
            },
        }
        found.append(rows(settings))
    (one,), (other,) = (runs for runs, _ in found)
    assert one["stop_reason"] == other["stop_reason"] == "converged"
    assert (one["steps"], one["evaluations"]) == pytest.approx((other["steps"], other["evaluations"]), rel=0.05)
    for name, power in UNITS.items():
        assert other[name] == pytest.approx(one[name] * factor**power, rel=0.2 if name == "excess_final" else 1e-8)
    rate = factor ** (1 - 1 / depth)
    for name in ("sharp_rate", "global_rate", "bound_rate"):
        np.testing.assert_allclose(other[name], one[name] * rate, rtol=1e-8)
    assert other["slowest_share"] == pytest.approx(one["slowest_share"], rel=1e-3)
    # The same curve, wherever the integrator put its samples.
    (_, first), (_, second) = found
    t, u = column(first, "time"), column(second, "time") * rate
    shared = t[(t > 0) & (t < 0.5 * min(t[-1], u[-1]))]
    for name, power in SAMPLE_UNITS.items():
        expected = np.interp(shared, t, np.log(column(first, name)))
        got = np.interp(shared, u, np.log(column(second, name) / factor**power))
        np.testing.assert_allclose(got, expected, atol=0.02)


# --- The shipped experiments -----------------------------------------------------------------------------------


@pytest.mark.parametrize("experiment", ["certified_n1", "certified_n2", "certified_n5"])
def test_certified_descents_promise_a_fall_above_rounding(shipped, experiment):
    # Else nothing is tested: at least 1e6 times the rounding of the loss, 1e-12, for ε > 0 within the shipped steps.
    for cell in cells(shipped("smoke.yaml"), experiment)[-1:]:
        (run,), _ = rows({**cell.settings, "descent": {"max_steps": 30, "samples": 5}})
        promised = run["eta"] * run["descent_rate"] * cell.settings["descent"]["max_steps"]
        assert promised > 1e-6


@pytest.mark.parametrize("experiment", ["bounds_n1", "bounds_n2", "bounds_n5"])
def test_shipped_bounds_reach_both_sides_of_the_optimum(shipped, experiment):
    runs = [
        rows({**cell.settings, "integration": {**cell.settings["integration"], "max_steps": 3, "samples": 2}})[0][0]
        for cell in cells(shipped(), experiment)
        if cell.settings["depth"] == 1
    ]
    above = [run["least_singular_value_initial"] ** 2 >= run["lambda_min"] - run["epsilon_effective"] for run in runs]
    margins = [run["margin"] / np.sqrt(run["lambda_min"]) for run in runs]
    assert any(above)
    assert not all(above)
    assert min(margin for margin in margins if margin > 0) < 0.2
    assert max(margins) > 0.8
    assert {run["bound_is_proved"] for run in runs} == {0, 1}
