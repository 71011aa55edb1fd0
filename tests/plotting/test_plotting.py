"""Figures of bounds, tails and samples: what they draw of data that is known."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from collected import collect_cells

from deepbures.plotting import bounds, convergence, frames, sampling, spectral, style
from deepbures.study.grid.cells import cells


def collected(folder, shipped, experiment, seeds=(0,)):
    """Tables of an experiment of the smoke study, for a few seeds."""
    points = [(cell.axes, cell.settings) for cell in cells(shipped("smoke.yaml"), experiment)]
    tables = collect_cells(folder, points, list(seeds))
    return [frames.read(path) for path in tables.values()]


def test_bounds_are_counted_as_they_are(tmp_path, shipped):
    runs, samples = collected(tmp_path, shipped, "bounds_n1")
    table = bounds.with_violations(runs, samples)
    # ε = λ, W(0) = 0.5: the counterexample. Where the bound is proved it holds.
    violated = table["violated"]
    counter = (table["initial_scale"] == 0.5) & (table["epsilon"] == 1)
    assert counter.sum() == 2
    assert violated[counter].all()
    assert not (violated & (table["bound_is_proved"] == 1)).any()
    figure = bounds.where_bounds_hold(runs, samples)
    legends = [axis.get_legend() for axis in figure.axes if axis.get_legend()]
    texts = [text.get_text() for legend in legends for text in legend.get_texts()]
    inside = table[(table["margin"] > 0) & (table["excess_initial"] > 0)]
    for depth in (1, 2):
        assert f"violated ({violated[inside.index][inside['depth'] == depth].sum()})" in texts


def test_crosses_of_aligned_starts_lie_on_their_curves(tmp_path, shipped):
    runs, samples = collected(tmp_path, shipped, "plateaus")
    for depth in (1, 2):
        run = runs[runs["depth"] == depth].iloc[0]
        times, losses = spectral._half_done(run, depth)
        curve = samples[(samples["depth"] == depth) & (samples["seed"] == run["seed"])]
        assert len(times) == run["rank"]
        np.testing.assert_allclose(losses, np.interp(times, curve["time"], curve["loss"]), rtol=0.02)
    assert len(spectral.energy_levels(runs, samples).axes) == 1


def test_finite_samples_are_drawn(tmp_path, shipped):
    drawn, training = collected(tmp_path, shipped, "finite_sample", seeds=range(2))
    figure = sampling.finite_sample(drawn, training)
    assert [axis.get_xlabel() for axis in figure.axes] == ["number of samples $m$", r"time $t$"]
    summary = sampling.summary(drawn)
    assert summary["ratio_mean"].iloc[-1] == pytest.approx(1, abs=0.15)


def test_power_laws_are_drawn_of_flows_that_reached_their_horizon_and_of_none():
    depth = np.array([1, 2, 2])
    runs = pd.DataFrame(
        {"depth": depth, "seed": 0, "smin": [-1, -1, 5], "lambda_min": 0.5, "epsilon_effective": [0.5, 0.5, 0.1],
         "sharp_rate": [0, 0, 1.0], "stop_reason": "end time", "time_final": 100.0, "power_law_slope": -2.0,
         "excess_final": 1e-4}
    )  # fmt: skip
    labels = [convergence.algebraic_tail(part).axes[0].get_legend().get_texts()[0].get_text() for part in
              (runs, runs[runs["smin"] > 0])]  # fmt: skip
    assert labels == ["2 flows", "0 flows"]


def test_deviations_have_one_degree_of_freedom_less():
    frame = pd.DataFrame({"depth": 1, "seed": [0, 1, 2], "value": [1.0, 2.0, 6.0]})
    summary = frames.over_seeds(frame, ["value"]).iloc[0]
    assert (summary["value_mean"], summary["value_std"]) == pytest.approx((3, np.sqrt(7)))
    mean, low, high = frames.band(np.array([[1.0], [2.0], [6.0]]), logarithmic=False)
    assert (mean[0], low[0], high[0]) == pytest.approx((3, 3 - np.sqrt(7), 3 + np.sqrt(7)))
    mean, low, high = frames.band(np.ones((1, 2)))
    assert mean.tolist() == [1, 1]
    assert np.isnan([low, high]).all()


@pytest.mark.parametrize("unit", [1.0, 1e-12, 1e12])
def test_floor_of_logarithms_is_relative(unit):
    # 1e-12 of the largest is data in every unit; 0 is cut off at 1e-17 of it.
    run = pd.DataFrame({"seed": 0, "time": [0.0, 1.0, 2.0], "value": unit * np.array([1, 1e-12, 0])})
    values = frames.curves(run, "value", np.array([0.0, 1.0, 2.0]))[0]
    np.testing.assert_allclose(values, unit * np.array([1, 1e-12, 1e-17]), rtol=1e-9)


@pytest.mark.parametrize(
    ("low", "high", "labels"),
    [
        (0.3, 4.0, ["0.5", "1", "2"]),  # one power of 10
        (2e-5, 9e-5, [r"$2 \times 10^{-5}$", r"$5 \times 10^{-5}$"]),  # none
        (3.2, 4.1, ["3.5", "4"]),
        (2e5, 8e5, [r"$2 \times 10^{5}$", r"$5 \times 10^{5}$"]),
    ],
)
def test_a_short_logarithmic_axis_has_few_labels_and_at_least_two(low, high, labels):
    @style.styled
    def drawn():
        figure, axes = style.panels()
        axes[0, 0].set(xscale="log", xlim=(low, high), yscale="log", ylim=(1e-3, 1e3))
        return figure

    figure = drawn()
    figure.draw_without_rendering()
    (axis,) = figure.axes
    assert shown_labels(axis.xaxis) == labels
    # Where powers of 10 are enough, they are all there is.
    assert all(label.startswith(r"$\mathdefault{10^{") for label in shown_labels(axis.yaxis))
    plt.close(figure)


def test_ticks_that_are_chosen_stay():
    @style.styled
    def drawn():
        figure, axes = style.panels()
        axes[0, 0].set(xscale="log", xlim=(1, 5))
        axes[0, 0].set_xticks([1, 3], minor=False)
        return figure

    figure = drawn()
    assert list(figure.axes[0].get_xticks()) == [1, 3]
    plt.close(figure)


def shown_labels(axis):
    """Labels of an axis, of large and small ticks, that are in view."""
    low, high = axis.get_view_interval()
    ticks = [tick for minor in (False, True) for tick in (axis.get_minor_ticks() if minor else axis.get_major_ticks())]
    return [tick.label1.get_text() for tick in ticks if low <= tick.get_loc() <= high and tick.label1.get_text()]
