"""YAML that means what it shows: no repeated key, and no plain word or number that is read as something else."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable
from typing import Any

import yaml

#: How a plain scalar of each type may look.
_PLAIN = {
    "int": re.compile(r"[+-]?(0|[1-9][0-9]*)"),
    "float": re.compile(r"[+-]?([0-9]+\.[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?|[+-]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)"),
    "bool": re.compile(r"true|True|TRUE|false|False|FALSE"),
    "null": re.compile(r"~|null|Null|NULL|"),
}
_TYPES = (*_PLAIN, "timestamp", "value")
_TAG = "tag:yaml.org,2002:"


class _Loader(yaml.SafeLoader):  # type: ignore[misc]
    """Loader that knows line numbers, and refuses what would be silently lost or changed."""


def _mapping(loader: _Loader, node: yaml.MappingNode) -> dict[str, Any]:
    lines: dict[Any, int] = {}
    for key_node, _ in node.value:
        if key_node.tag == f"{_TAG}merge":
            continue
        key, line = loader.construct_object(key_node, deep=True), key_node.start_mark.line + 1
        if not isinstance(key, str):
            raise ValueError(f"line {line}: the key {_shown(key_node)} is read as {key!r}: put it in quotes")
        if key in lines:
            raise ValueError(f"line {line}: the key {key!r} is given twice, first in line {lines[key]}")
        lines[key] = line
    loader.flatten_mapping(node)
    return {loader.construct_object(k, deep=True): loader.construct_object(v, deep=True) for k, v in node.value}


def _scalar(kind: str) -> Callable[[_Loader, yaml.ScalarNode], Any]:
    usual = yaml.SafeLoader.yaml_constructors[f"{_TAG}{kind}"] if kind != "value" else None

    def construct(loader: _Loader, node: yaml.ScalarNode) -> Any:
        if node.style is None and kind in _PLAIN and _PLAIN[kind].fullmatch(node.value):
            value = usual(loader, node) if usual else node.value
            if not (kind == "float" and lost(node.value, value)):
                return value
        try:
            meaning = f"is read as {usual(loader, node)!s}" if usual else "has a meaning of its own in YAML"
        except ValueError:
            meaning = f"is read as a {kind}, and is none"
        advice = "true, false, or the word in quotes" if kind == "bool" else "plain digits, or quotes around it"
        raise ValueError(f"line {node.start_mark.line + 1}: {_shown(node)} {meaning}: write {advice}")

    return construct


def lost(text: str, value: float) -> bool:
    """Whether a float is 0 or infinite although what was written is not: 1e-400, 1e400."""
    mantissa = re.split("[eE]", text)[0]
    return (value == 0 and re.search("[1-9]", mantissa) is not None) or (
        math.isinf(value) and "inf" not in text.lower()
    )


def _shown(node: yaml.Node) -> str:
    return str(node.value)[:40] if isinstance(node, yaml.ScalarNode) else "of several values"


_Loader.add_constructor(f"{_TAG}map", _mapping)
for _kind in _TYPES:
    _Loader.add_constructor(f"{_TAG}{_kind}", _scalar(_kind))


def loads(text: str) -> Any:
    """The value in a text of YAML (or JSON).

    Raises
    ------
    ValueError
        In one line that gives the line in the text: if it is not YAML, a key is repeated, a key is not a string, or
        YAML 1.1 would read a plain scalar as something other than it shows (`010`, `1_000`, `1:30`, `yes`, dates).
    """
    try:
        return json.loads(text.removeprefix("\ufeff"), object_pairs_hook=_pairs, parse_float=_float)
    except json.JSONDecodeError:
        pass
    try:
        return yaml.load(text, Loader=_Loader)  # a SafeLoader
    except yaml.YAMLError as error:
        raise ValueError(_one_line(error, text)) from None


def _float(text: str) -> float:
    value = float(text)
    if lost(text, value):
        raise ValueError(f"{text} is read as {value}: double precision cannot represent it")
    return value


def _pairs(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    keys = [key for key, _ in pairs]
    twice = next((key for i, key in enumerate(keys) if key in keys[:i]), None)
    if twice is not None:
        raise ValueError(f"the key {twice!r} is given twice")
    return dict(pairs)


def _one_line(error: yaml.YAMLError, text: str) -> str:
    mark = getattr(error, "problem_mark", None)
    if mark is None:
        return f"not YAML: {' '.join(str(error).split())}"
    line = text.splitlines()[mark.line] if mark.line < len(text.splitlines()) else ""
    if "\t" in line[: len(line) - len(line.lstrip())] or "'\\t'" in str(error):
        return f"not YAML: line {mark.line + 1}: a tab, where YAML allows spaces only"
    return f"not YAML: line {mark.line + 1}: {' '.join(str(getattr(error, 'problem', error)).split())}"
