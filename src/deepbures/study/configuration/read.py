"""Configurations from YAML: strict, merged as Snakemake merges them, with numbers in one form."""

import copy
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml
from ruamel.yaml import YAML

from ..cell.records import short
from ..grid.target import source_of

_NUMBER = re.compile(r"[+-]?([0-9]+(\.[0-9]*)?|\.[0-9]+)[eE][+-]?[0-9]+")
#: From here on, floats cannot distinguish one integer from the next.
_INTEGERS = 2**53
#: Largest number of values in a configuration, counted wherever an alias repeats them.
_MOST_VALUES = 100_000


class ConfigurationError(ValueError):
    """A mistake in a configuration; its message is one line that names key, value and what is allowed."""

    def __init__(self, message: str) -> None:
        super().__init__(" ".join(message.split()))


def refuse(mistakes: Iterable[str]) -> None:
    """Raise ConfigurationError on the first mistake."""
    for mistake in mistakes:
        raise ConfigurationError(mistake)


def read(path: str | Path) -> dict[str, Any]:
    """The dictionary in a file, which YAML 1.2 and Snakemake, which reads YAML 1.1, must read as the same.

    Raises
    ------
    ConfigurationError
        In one line: if there is no such file, it is not YAML or no dictionary, a key is repeated, or the readings
        differ, as for 010 (10 or 8), 1:30 (a word or 90) and yes (a word or true).
    """
    try:
        value = _loads(Path(path).read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise ConfigurationError(f"{path}: {error.strerror or error}") from None
    except UnicodeDecodeError:
        raise ConfigurationError(f"{path}: not YAML: it must be text in UTF-8") from None
    except ValueError as error:
        raise ConfigurationError(f"{path}: {error}") from None
    if not isinstance(value, dict):
        found = "empty" if value is None else short(value)
        raise ConfigurationError(f"{path}: the top level must be a dictionary, not {found}")
    return value


def of_command_line(value: Any) -> Any:
    """The values that follow Snakemake's `--config`, where every number is a string, read as they are in a file.

    Raises
    ------
    ConfigurationError
        In one line, as `read`.
    """
    return _with(_of_word, value)


def merged(paths: Iterable[str | Path]) -> dict[str, Any]:
    """The configurations in files, each laid over the one before."""
    result: dict[str, Any] = {}
    for path in paths:
        lay_over(result, read(path))
    return result


def lay_over(below: dict[str, Any], above: Mapping[str, Any]) -> None:
    """Change a configuration as Snakemake does with a second file: dictionaries are merged, other values replaced.

    A target from another source replaces the whole target below, and with it the keys of the experiment that only the
    target below needed or fitted: `grid.smin`, and the dimension if the new target is read from a file.
    """
    old, new = below.get("target"), above.get("target")
    if isinstance(old, dict) and isinstance(new, Mapping) and not new.items() <= old.items():
        source = source_of(new)
        if source != source_of(old):
            del below["target"]
        if source not in ("drawn", "dataset"):
            below.pop("dimension", None)
        if source != "drawn" and isinstance(below.get("grid"), dict):
            below["grid"].pop("smin", None)
    for key, value in above.items():
        if isinstance(value, Mapping) and isinstance(below.get(key), dict):
            lay_over(below[key], value)
        else:
            below[key] = copy.deepcopy(value)


def with_numbers(value: Any) -> Any:
    """A copy with each number in one form: 1e-6, which YAML 1.1 reads as a string, is a number, and 20.0 is 20."""
    return _with(_number, value)


def _with(change: Callable[[Any], Any], value: Any) -> Any:
    """A copy with every value that is no dictionary or list changed."""
    if isinstance(value, Mapping):
        return {key: _with(change, item) for key, item in value.items()}
    if isinstance(value, list):
        return [_with(change, item) for item in value]
    return change(value)


def _number(value: Any) -> Any:
    if isinstance(value, str) and _NUMBER.fullmatch(value):
        value = float(value)
    if isinstance(value, float) and value.is_integer() and abs(value) < _INTEGERS:
        return int(value)
    return value


def _of_word(value: Any) -> Any:
    try:
        found = _loads(value) if isinstance(value, str) else value
    except ValueError as error:
        raise ConfigurationError(f"--config: {value[:60]}: {error}") from None
    return value if isinstance(found, (dict, list)) else found


def _loads(text: str) -> Any:
    """The value in a text of YAML or JSON; see `read`.

    Raises
    ------
    ValueError
        In one line.
    """
    try:
        by_snakemake = with_numbers(_read_by_snakemake(text))
        value = YAML(typ="safe", pure=True).load(text)
        for difference in _differences(by_snakemake, with_numbers(value), ""):
            raise ValueError(difference)
    except ValueError:
        raise
    except RecursionError:
        raise ValueError("not YAML: it is nested too deeply") from None
    except Exception as error:  # whatever the two parsers raise
        mark, problem = getattr(error, "problem_mark", None), getattr(error, "problem", None)
        line = f"line {mark.line + 1}: " if mark else ""
        raise ValueError(f"not YAML: {line}{problem or error}") from None
    return value


def _read_by_snakemake(text: str) -> Any:
    try:
        return json.loads(text.removeprefix("\ufeff"))
    except ValueError:
        loader = yaml.SafeLoader(text)
    node = loader.get_single_node()
    if any(number > _MOST_VALUES for number, _ in enumerate(_nodes(node))):
        raise ValueError(f"it holds more than {_MOST_VALUES} values, with those that aliases (*) repeat")
    return loader.construct_document(node) if node else None


def _nodes(value: Any) -> Iterator[yaml.Node]:
    """The nodes of YAML in a value, each as often as aliases repeat it."""
    if isinstance(value, yaml.Node):
        yield value
        yield from _nodes(value.value)
    for part in value if isinstance(value, list | tuple) else ():
        yield from _nodes(part)


def _differences(one: Any, other: Any, where: str) -> Iterator[str]:
    """Where Snakemake's reading (`one`) and that of YAML 1.2 differ, one line for each."""
    if isinstance(one, dict) and isinstance(other, dict) and [*map(repr, one)] == [*map(repr, other)]:
        for key, value in one.items():
            yield from _differences(value, other[key], f"{where}.{key}" if where else str(key))
    elif isinstance(one, list) and isinstance(other, list) and len(one) == len(other):
        for i, (value, another) in enumerate(zip(one, other, strict=True)):
            yield from _differences(value, another, f"{where}[{i}]")
    elif repr(one) != repr(other):  # NaN differs from itself, and True equals 1
        place = f"{where}: " if where else ""
        yield (
            f"{place}Snakemake reads {short(one)} (YAML 1.1), YAML 1.2 reads {short(other)}: "
            "write plain digits, true or false, or quotes around it"
        )
