"""What users do with the objects of a run: print, compare, draw, tabulate, store them, and follow a run."""

import inspect
import io
from contextlib import redirect_stderr
from dataclasses import fields

import matplotlib
import numpy as np
import pytest

import deepbures
from deepbures import (
    BuresWasserstein,
    DeepLinearNetwork,
    DescentTrajectory,
    FlowTrajectory,
    StopReason,
    gradient_descent,
    gradient_flow,
    gradient_flows,
    scaled_descent,
    squared_distance,
)
from deepbures.process import progress as module_of_progress

matplotlib.use("agg")
LOSS = BuresWasserstein(np.diag([4.0, 2.0, 1.0]), epsilon=0.1)
START = DeepLinearNetwork.balanced(0.5 * np.eye(3), 2)


def stack_of_descents():
    """Three runs, of which one converges and one diverges before the last step."""
    layers = [np.broadcast_to(W, (3, *W.shape)) for W in START.layers]
    return gradient_descent(LOSS, layers, [0.05, 0.01, 5.0], 60, excess_tolerance=1e-3)


RUNS = {
    "flow": lambda: gradient_flow(LOSS, 0.5 * np.eye(3), 2, max_time=1, samples=7),
    "descent": lambda: gradient_descent(LOSS, START, 0.05, 60),
    "stack": stack_of_descents,
    "scaled": lambda: scaled_descent(LOSS, START, n_steps=5),
}


@pytest.fixture(scope="module", params=RUNS)
def run(request):
    """A trajectory of each kind."""
    return RUNS[request.param]()


def test_every_public_name_is_one_that_can_be_called_and_says_what_it_is():
    for name in deepbures.__all__:
        found = getattr(deepbures, name)
        assert callable(found), name
        assert not inspect.ismodule(found), name
        assert len(inspect.getdoc(found)) > 40, name
    for cls in (FlowTrajectory, DescentTrajectory):  # help() shows no attributes of a base class
        assert all(field.name in inspect.getdoc(cls) for field in fields(cls)), cls


def test_objects_are_a_line(run):
    deep = DeepLinearNetwork.balanced(np.eye(3), 50)
    for thing in (run, LOSS, START, deep, BuresWasserstein(np.ones((4, 1, 1)))):
        assert "\n" not in repr(thing)
        assert len(repr(thing)) < 160
    assert "λ from 4 to 1, ε = 0.1" in repr(LOSS)
    assert "2 layers, widths 3 → 3 → 3" in repr(START)
    assert "stack of (4,) targets" in repr(BuresWasserstein(np.ones((4, 1, 1))))


def test_objects_compare_and_hash_without_an_error(run):
    assert run == run
    assert run != RUNS["flow"]()
    assert len({run, LOSS, START}) == 3


def test_a_saved_trajectory_is_read_bit_for_bit(run, tmp_path):
    run.save(tmp_path / "run.npz")
    again = type(run).load(tmp_path / "run.npz")
    for field in fields(run):
        before, after = getattr(run, field.name), getattr(again, field.name)
        if isinstance(before, list):
            assert len(before) == len(after)
            assert all(np.array_equal(one, other, equal_nan=True) for one, other in zip(before, after, strict=True))
        elif field.name == "stop_reason":
            assert np.array_equal(before, after)
            assert all(isinstance(reason, StopReason) for reason in (after if run.loss.ndim > 1 else [after]))
        else:
            assert np.array_equal(before, after, equal_nan=True)
            assert type(before) is type(after)


def test_what_is_no_trajectory_is_refused_in_one_line(tmp_path):
    RUNS["flow"]().save(tmp_path / "run.npz")
    np.save(tmp_path / "run.npy", np.eye(2))
    for path, cls in (("run.npz", DescentTrajectory), ("run.npy", FlowTrajectory)):
        with pytest.raises(ValueError, match=f"^[^\n]*{path} does not hold a {cls.__name__} that was saved$"):
            cls.load(tmp_path / path)


def test_a_table_has_a_row_for_each_sample(run):
    frame = run.to_frame()
    recorded = np.isfinite(run.loss)
    assert len(frame) == recorded.sum()
    assert np.array_equal(frame["excess"], run.excess[recorded])
    times = np.broadcast_to(
        run.times.reshape(*run.times.shape, *[1] * (run.loss.ndim - run.times.ndim)), run.loss.shape
    )
    assert np.array_equal(frame["time"], times[recorded])
    if run.loss.ndim > 1:
        _, runs = np.nonzero(recorded)
        assert np.array_equal(frame["run"], runs)


def test_a_plot_shows_the_excess_against_time(run):
    axes = run.plot()
    assert axes.get_yscale() == "log"
    assert len(axes.lines) == max(1, int(np.prod(run.loss.shape[1:])))
    frame = run.to_frame()
    first = frame[(frame["excess"] > 0) & (frame.get("run", 0 * frame["time"]) == 0)]
    assert np.array_equal(axes.lines[0].get_ydata(), first["excess"])
    assert run.plot(axes) is axes
    matplotlib.pyplot.close("all")


@pytest.mark.parametrize("method", ["auto", "explicit"])
def test_a_flow_reports_its_steps_and_may_be_ended(method):
    seen = []
    flow = gradient_flow(
        LOSS, 0.5 * np.eye(3), 2, max_time=1, method=method, progress=lambda *reached: seen.append(reached)
    )
    assert seen == sorted(seen)
    assert seen[-1] == (flow.n_steps, flow.times[-1])
    quiet = gradient_flow(LOSS, 0.5 * np.eye(3), 2, max_time=1, method=method)
    assert np.array_equal(flow.factors, quiet.factors)

    def stop(steps, _time):
        if steps >= 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        gradient_flows(LOSS, np.array([0.5 * np.eye(3)] * 2), 2, max_time=1, method=method, progress=stop)


def test_a_descent_reports_its_steps_and_prints_a_line_each_second(monkeypatch):
    seen = []
    gradient_descent(LOSS, START, 0.05, 60, progress=lambda *reached: seen.append(reached))
    assert seen == [(step, pytest.approx(0.05 * step)) for step in range(0, 61, 10)]
    seconds = iter(range(0, 1000, 2))
    monkeypatch.setattr(module_of_progress.time, "monotonic", lambda: 0.125 * next(seconds))
    with redirect_stderr(io.StringIO()) as printed:
        gradient_descent(LOSS, START, 0.05, 60, progress=True)
    lines = printed.getvalue().splitlines()
    assert 0 < len(lines) < 7  # of 7 reports
    assert lines[0].startswith("gradient descent: ")


@pytest.mark.parametrize(
    ("call", "line"),
    [
        (lambda: BuresWasserstein(np.ma.masked_array(np.eye(2), mask=[[1, 0], [0, 0]])), "covariance .* no masked"),
        (lambda: squared_distance(np.eye(2), np.ma.masked_array(np.eye(2))), "no masked entries"),
        (lambda: DeepLinearNetwork([np.ma.masked_array(np.eye(2))]), "layer 1 must hold no masked entries"),
        (lambda: gradient_flow(LOSS, [np.ma.masked_array(np.ones(3))] * 3, 2), "initial must hold no masked entries"),
        (lambda: BuresWasserstein([["1", "0"], ["0", "1"]]), "covariance must hold real numbers, not <U1"),
        (lambda: BuresWasserstein([[1.0, 0.0], [0.0]]), "covariance must be an array, but its parts have different"),
        (lambda: gradient_flow(BuresWasserstein, np.eye(3), 2), "not the class BuresWasserstein"),
        (lambda: gradient_flows(BuresWasserstein, np.ones((1, 3, 3)), 2), "not the class BuresWasserstein"),
        (lambda: gradient_descent(np.eye(3), START, 0.1, 5), "loss on a target, .* not a ndarray"),
        (lambda: scaled_descent(None, START), "not a NoneType"),
    ],
)
def test_what_is_no_matrix_or_loss_is_refused_in_one_line(call, line):
    with pytest.raises(ValueError, match=f"^[^\n]*{line}[^\n]*$"):
        call()
