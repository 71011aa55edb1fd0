"""Log lines of long work, under a clock that the tests set."""

import logging

import numpy as np
import pytest
from cases import each

from deepbures.descent.gradient_descent import gradient_descent
from deepbures.losses.polar import Polar
from deepbures.losses.registry import BuresWasserstein
from deepbures.process import progress
from deepbures.process.progress import Progress


@pytest.fixture
def clock(monkeypatch):
    """Seconds that time.monotonic shows, as a list of one."""
    now = [1000.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    return now


@pytest.fixture
def lines(caplog):
    """Loader of the lines logged since the last call."""
    caplog.set_level(logging.INFO, logger="deepbures")

    def load():
        found = [record.getMessage() for record in caplog.records]
        caplog.clear()
        return found

    return load


def test_time_left_is_extrapolated_from_the_pace_so_far(clock, lines):
    # left = elapsed (total − done) / done.
    work = Progress("runs", 8)
    clock[0] += 10
    work.update(2)
    assert lines() == ["runs: 2 of 8 (25 %), at most 30 s left"]
    clock[0] += 20
    work.update(3)
    assert lines() == ["runs: 3 of 8 (38 %), at most 50 s left"]
    clock[0] += 10
    work.update(8)
    assert lines() == ["runs: 8 of 8 (100 %), at most 0 s left"]


@each("interval", [1.0, 10.0])
def test_at_most_one_line_an_interval(clock, lines, interval):
    work = Progress("runs", 100, interval)
    for done in range(1, 101):
        clock[0] += interval / 4
        work.update(done)
        assert len(lines()) == (done % 4 == 0)


def test_short_work_logs_nothing(clock, lines):
    work = Progress("runs", 3)
    clock[0] += 9.9
    for done in range(4):
        work.update(done)
    assert lines() == []


@each("total", [0, 5])
def test_no_pace_before_the_first_part_is_done(clock, lines, total):
    # Nothing to extrapolate from, and no division by zero; the first part that is done is told at once.
    work = Progress("runs", total)
    clock[0] += 100
    work.update(0)
    assert lines() == []
    if total:
        work.update(1)
        assert lines() == ["runs: 1 of 5 (20 %), at most 400 s left"]


def test_gradient_descent_tells_its_progress(clock, lines, monkeypatch):
    # A step of one second each: told every 10 steps, whatever is recorded.
    loss = BuresWasserstein([[1.0]])
    gradient = Polar.gradient

    def slow(form, F):
        clock[0] += 1
        return gradient(form, F)

    monkeypatch.setattr(Polar, "gradient", slow)
    gradient_descent(loss, [np.eye(1)], 0.01, 40, [0])
    assert [line.split(",")[0] for line in lines()] == [
        f"gradient descent: {done} of 40 ({share} %)" for done, share in [(10, 25), (20, 50), (30, 75), (40, 100)]
    ]
