"""`each` runs a statement at every case, and tells which one fails."""

import inspect

import numpy as np
import pytest
from cases import each


def test_each_runs_the_product_of_its_cases_with_new_generators():
    seen = []

    @each("a", [1, 2])
    @each(("b", "c"), [(3, 4), (5, 6)])
    def statement(rng, a, b, c):
        seen.append((a, b, c, rng.random()))

    assert list(inspect.signature(statement).parameters) == ["rng"]
    statement(rng=np.random.default_rng(0))
    first = np.random.default_rng(0).random()
    assert seen == [(a, b, c, first) for a in (1, 2) for b, c in ((3, 4), (5, 6))]


def test_each_names_the_case_that_fails():
    @each("a", [1, 2, 3])
    def statement(a):
        assert a != 2

    with pytest.raises(AssertionError) as caught:
        statement()
    assert caught.value.__notes__ == ["at a = 2"]
