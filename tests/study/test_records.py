"""Keys that dataclasses declare: every wrong value gives a line that says where it is and what is allowed."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest

from deepbures.study.cell.records import Key, keys_of, mistakes, record


@dataclass(frozen=True)
class Inner:
    name: str = field(metadata={"enum": ("a", "b")})


@dataclass(frozen=True)
class Outer:
    count: int = field(metadata={"minimum": 1, "maximum": 9})
    inner: Inner
    share: float | None = field(default=None, metadata={"exclusiveMinimum": 0, "exclusiveMaximum": 1})
    sizes: tuple[int, ...] | None = field(default=None, metadata={"minimum": 2})
    weights: tuple[float, ...] | None = field(default=None, metadata={"minItems": 0, "uniqueItems": False})
    named: Mapping[str, Inner] | None = field(default=None, metadata={"propertyNames": "[a-z]+", "minProperties": 1})
    anything: Mapping[str, Any] | None = None
    flag: bool = False


VALID = {"count": 1, "inner": {"name": "a"}}


@pytest.mark.parametrize(
    "more",
    [
        {},
        {"count": 9, "share": 0.5, "flag": True},
        {"sizes": [2, 3], "weights": [1, 1, 0.5]},
        {"weights": []},
        {"named": {"x": {"name": "b"}}, "anything": {"X y": [None, {"z": 1}]}},
    ],
)
def test_values_that_are_allowed(more):
    assert list(mistakes({**VALID, **more}, Key(Outer))) == []


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"count": True}, "count: True must be of type integer"),
        ({"count": 1.5}, "count: 1.5 must be of type integer"),
        ({"count": 0}, "count: 0 must be at least 1"),
        ({"count": 10}, "count: 10 must be at most 9"),
        ({"share": None}, "share: None must be of type number"),
        ({"share": 0}, "share: 0 must be more than 0"),
        ({"share": 1}, "share: 1 must be less than 1"),
        ({"share": float("nan")}, "share: nan must be a finite number"),
        ({"flag": 1}, "flag: 1 must be of type boolean"),
        ({"sizes": 2}, "sizes: 2 must be of type list"),
        ({"sizes": []}, "sizes: [] must hold at least 1 value"),
        ({"sizes": [2, 1]}, "sizes[1]: 1 must be at least 2"),
        ({"sizes": [2, 3, 2]}, "sizes[2]: 2 is given twice; each value is allowed only once"),
        ({"weights": [1, "x"]}, "weights[1]: 'x' must be of type number"),
        ({"inner": []}, "inner: [] must be of type dictionary"),
        ({"inner": {}}, "inner: the key 'name' is missing"),
        ({"inner": {"name": "c"}}, "inner.name: 'c' is not allowed; allowed: a, b"),
        ({"named": {}}, "named: {} must hold at least 1 key"),
        ({"named": {"A": {"name": "a"}}}, "named: 'A' is no valid name: it must match [a-z]+"),
        ({"named": {"x": {"nam": "a"}}}, "named.x: unknown key 'nam', did you mean 'name'?; allowed: name"),
        ({"cuont": 1}, "the top level: unknown key 'cuont', did you mean 'count'?; allowed: count, inner, "),
    ],
)
def test_the_first_mistake_is_one_line(more, message):
    found = next(mistakes({**VALID, **more}, Key(Outer)))
    assert found.startswith(message)
    assert "\n" not in found


def test_a_record_holds_lists_as_tuples():
    assert record(Outer, {"count": 1, "inner": None, "sizes": [2, 3]}).sizes == (2, 3)
    assert [name for name, key in keys_of(Outer).items() if key.required] == ["count", "inner"]
