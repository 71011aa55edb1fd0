"""Figures by start: what they draw of data that is known."""

import numpy as np
import pandas as pd
import pytest

from deepbures.plotting import spectral, starts

LEVELS = [(kind, scale) for kind in ("level", "saddle") for scale in (0.5, 1.0)]


def tables(**changes):
    """Runs of levels whose excess falls at 2 exp(−t/2) first and faster later, and their trajectories."""
    axes = pd.DataFrame(LEVELS, columns=["initialization", "initial_scale"]).assign(epsilon=0.1, depth=2, seed=0)
    runs = axes.assign(excess_initial=2.0, sharp_rate=1.0, low_rank_rate=0.25, **changes)
    times = np.array([0.0, 1.0, 2.0, 4.0])
    excess = 2 * np.exp(-np.array([0.0, 0.5, 1.0, 4.0]))
    return runs, pd.concat(axes.assign(time=t, excess=e) for t, e in zip(times, excess, strict=True))


def test_the_lasting_rate_is_the_largest_that_holds_at_every_record():
    runs, samples = tables()
    np.testing.assert_allclose(starts.lasting_rate(runs, samples), 0.5, rtol=1e-12)
    late = samples[(samples["time"] == 0) | (samples["time"] == 4)]
    np.testing.assert_allclose(starts.lasting_rate(runs, late), 1.0, rtol=1e-12)


def test_levels_are_drawn_promised_below_measured():
    (axis,) = starts.levels(*tables()).axes
    lines = {line.get_label(): line.get_ydata() for line in axis.lines}
    assert lines["promised"].tolist() == [0.25, 0.25]
    np.testing.assert_allclose(lines["kept by flows on the way to the saddle"], 0.5, rtol=1e-12)
    unknown, samples = tables()
    (axis,) = starts.levels(unknown.assign(low_rank_rate=np.nan), samples).axes
    assert "promised" not in {line.get_label() for line in axis.lines}


def test_outcomes_have_the_area_of_their_fraction():
    runs = pd.DataFrame(
        {
            "initialization": "level",
            "initial_scale": 0.5,
            "depth": 2,
            "relative_step": [0.5, 0.5, 0.5, 0.5, 1.2, 1.2, 1.2, 1.2],
            "seed": [0, 1, 2, 3] * 2,
            "stop_reason": ["converged"] * 4 + ["diverged", "step budget", "step budget", "step budget"],
        }
    )
    (axis,) = starts.step_outcomes(runs).axes
    sizes = sorted(line.get_markersize() ** 2 / 36 for line in axis.lines if len(line.get_xdata()) == 1)
    assert sizes == pytest.approx([0.25, 0.75, 1.0])
    assert axis.lines[-1].get_xdata() == [0.5, 0.5]  # between the last step below 1 and the first above


def test_crosses_are_those_of_the_start_that_is_drawn():
    # A random start has no half-times: no theory of another start is drawn over it.
    times = np.array([0.0, 1.0, 2.0])
    samples = pd.DataFrame({"seed": 0, "epsilon": 0.1, "depth": 2, "time": times, "loss": [3.0, 2.0, 1.0]})
    run = {"seed": 0, "epsilon": 0.1, "rank": 1, "depth": 2, "epsilon_effective": 0.1, "start_scale": 0.1}
    run |= {"energy_levels": [3.0, 1.0], "eigenvalues_target": [2.0, 1.0], "loss_minimum": 1.0}
    for half_times, crosses in (([], 0), ([0.5], 1)):
        runs = pd.DataFrame([{**run, "half_times": half_times}])
        (axis,) = spectral.energy_levels(runs, samples).axes
        assert sum(line.get_marker() == "x" for line in axis.lines) == crosses
