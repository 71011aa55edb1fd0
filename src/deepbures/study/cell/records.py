"""Keys of dictionaries, declared by dataclasses, and one line for each mistake in a value read from YAML or JSON.

The fields of a dataclass name the keys. Their types give the types of the values: `int`, `float`, `bool`, `str`,
`tuple[T, ...]` for a list, `Mapping[str, T]` for a dictionary with names that the user chooses, another dataclass for
one with fixed keys, `T | None` for a key that may be left out. Their metadata restrict the values in the words of JSON
schema: `minimum`, `exclusiveMinimum`, `maximum`, `exclusiveMaximum`, `enum` (for a list: of its items), `minItems`
(default 1), `uniqueItems` (default true), `minProperties`, `propertyNames` (a regular expression); or allow null beside
the type: `nullable`.
"""

import functools
import math
import operator
import re
import types
import typing
from collections import abc
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import MISSING, fields, is_dataclass
from typing import Any, NamedTuple, TypeVar

from ..grid.axes import canonical

T = TypeVar("T")

#: Classes of the values of a type, and what users call the type.
_TYPES: dict[Any, tuple[Any, str]] = {
    int: (int, "integer"),
    float: (int | float, "number"),
    bool: (bool, "boolean"),
    str: (str, "string"),
    tuple: (list | tuple, "list"),
    dict: (Mapping, "dictionary"),
    Any: (object, "anything"),
}
_BOUNDS = {
    "minimum": (operator.ge, "at least"),
    "exclusiveMinimum": (operator.gt, "more than"),
    "maximum": (operator.le, "at most"),
    "exclusiveMaximum": (operator.lt, "less than"),
}


class Key(NamedTuple):
    """What is allowed as the value of a key.

    Attributes
    ----------
    type
        Type of the value, see the module; or the keys of a dictionary by name.
    required
        Whether the key must be given.
    values
        Restrictions, see the module.
    instead
        What may be given instead of a required key, as the end of the message that it is missing.
    """

    type: Any
    required: bool = True
    values: Mapping[str, Any] = types.MappingProxyType({})
    instead: str = ""


@functools.cache
def keys_of(type_: Any) -> dict[str, Key]:
    """The keys that a dataclass declares, by name."""
    hints = typing.get_type_hints(type_)
    return {
        field.name: Key(_given(hints[field.name]), field.default is MISSING, field.metadata) for field in fields(type_)
    }


def _given(hint: Any) -> Any:
    """T for `T | …`: what is beside it stands for a key that is left out."""
    return typing.get_args(hint)[0] if typing.get_origin(hint) in (types.UnionType, typing.Union) else hint


def record(type_: type[T], given: Mapping[str, Any]) -> T:
    """The dataclass with the given values, which have been checked; lists become tuples."""
    return type_(**{key: tuple(value) if isinstance(value, list) else value for key, value in given.items()})


def mistakes(value: Any, key: Key, where: str = "") -> Iterator[str]:
    """The mistakes in a value, each in one line: where it is, what it is, what is allowed.

    Later mistakes may follow from earlier ones.

    Parameters
    ----------
    value
        As read from YAML or JSON.
    key
        What is allowed.
    where
        Path of the value, such as `study.seed`; empty at the top level.
    """
    if value is None and key.values.get("nullable"):
        return
    form = _form(key.type)
    classes, name = _TYPES[form]
    if not isinstance(value, classes) or (isinstance(value, bool) and form in (int, float)):
        yield f"{where or 'the top level'}: {short(value)} must be of type {name}"
    elif form is dict:
        yield from _in_dictionary(value, key, where)
    elif form is tuple:
        yield from _in_list(value, key, where)
    else:
        yield from _outside(value, key.values, where)


def _form(hint: Any) -> Any:
    """The key of `_TYPES` for a type."""
    if isinstance(hint, dict) or is_dataclass(hint) or typing.get_origin(hint) is abc.Mapping:
        return dict
    return typing.get_origin(hint) or hint


def _in_dictionary(value: Mapping[str, Any], key: Key, where: str) -> Iterator[str]:
    place = where or "the top level"
    if len(value) < key.values.get("minProperties", 0):
        yield f"{place}: {short(value)} must hold at least {key.values['minProperties']} key"
    keys = keys_of(key.type) if is_dataclass(key.type) else key.type  # type: ignore[arg-type]
    if not isinstance(keys, dict):
        pattern = key.values.get("propertyNames", "(?s:.*)")
        for name in (name for name in value if not re.fullmatch(pattern, str(name))):
            yield f"{place}: {name!r} is no valid name: it must match {pattern}"
        keys = {name: Key(typing.get_args(key.type)[1]) for name in value}
    for name in (name for name in value if name not in keys):
        yield f"{place}: unknown key {name!r}{nearest(str(name), keys)}; allowed: {', '.join(keys)}"
    for name, one in keys.items():
        if name in value:
            yield from mistakes(value[name], one, f"{where}.{name}" if where else name)
        elif one.required:
            yield f"{place}: the key {name!r} is missing{one.instead}"


def _in_list(value: list[Any], key: Key, where: str) -> Iterator[str]:
    if len(value) < key.values.get("minItems", 1):
        yield f"{where}: {value} must hold at least {key.values.get('minItems', 1)} value"
    for i, item in enumerate(value):
        yield from mistakes(item, Key(typing.get_args(key.type)[0], values=key.values), f"{where}[{i}]")
    spelled = [canonical(item) if isinstance(item, int | float) else item for item in value]
    for i, item in enumerate(value) if key.values.get("uniqueItems", True) else ():
        if spelled[i] in spelled[:i]:
            digits = ", to 12 digits" if isinstance(item, float) else ""
            yield f"{where}[{i}]: {item!r} is given twice{digits}; each value is allowed only once"


def _outside(value: Any, allowed: Mapping[str, Any], where: str) -> Iterator[str]:
    """Mistakes in a number or word of the right type."""
    if isinstance(value, float) and not math.isfinite(value):
        yield f"{where}: {value} must be a finite number"
    for word, (holds, said) in _BOUNDS.items():
        if word in allowed and not holds(value, allowed[word]):
            yield f"{where}: {value!r} must be {said} {allowed[word]}"
    if value not in allowed.get("enum", [value]):
        close = nearest(value, allowed["enum"])
        yield f"{where}: {value!r} is not allowed{close}; allowed: {', '.join(allowed['enum'])}"


def short(value: Any) -> str:
    """A value in at most 60 characters of one line."""
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def nearest(word: str, candidates: Iterable[str]) -> str:
    """The candidate that a misspelt word is closest to, as part of a message; empty if none is close."""
    import difflib  # only when there is a mistake

    close = difflib.get_close_matches(word, candidates, n=1)
    return f", did you mean {close[0]!r}?" if close else ""
