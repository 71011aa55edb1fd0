"""The settings of a cell: everything its numbers depend on besides the seeds, typed, and checked once."""

from __future__ import annotations

import types
import typing
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, field, fields
from typing import Any, TypeVar

from ...model.starts import BALANCES, DISTRIBUTIONS, NEAR_A_POINT
from ..grid.target import is_drawn

T = TypeVar("T")


@dataclass(frozen=True)
class Initialization:
    """How the initial layers are drawn; see `initialization` in config/README.md."""

    kind: str = field(metadata={"enum": (*NEAR_A_POINT, *DISTRIBUTIONS)})
    balance: str | None = field(default=None, metadata={"enum": BALANCES})
    scale: float | None = field(default=None, metadata={"exclusiveMinimum": -1})
    end_rank: int | None = field(default=None, metadata={"minimum": 1})

    def needed_scale(self) -> float:
        """The scale, for a kind that needs one."""
        return needed(self.scale, "initialization.scale", f"the kind {self.kind!r} of initialization")


@dataclass(frozen=True)
class Integration:
    """How a gradient flow is followed, and when it ends; see `integration` in config/README.md."""

    rtol: float = field(metadata={"exclusiveMinimum": 0, "exclusiveMaximum": 1})
    excess_tolerance: float = field(metadata={"minimum": 0})
    max_time: float = field(metadata={"exclusiveMinimum": 0})
    max_steps: int = field(metadata={"minimum": 1})
    samples: int = field(metadata={"minimum": 2})
    keep_factors: bool = False

    def of_flow(self) -> dict[str, Any]:
        """Keywords of `gradient_flow`."""
        return {field.name: getattr(self, field.name) for field in fields(self) if field.name != "keep_factors"}


@dataclass(frozen=True)
class Settings:
    """Settings of a cell.

    Attributes
    ----------
    study_seed
        Root of every random stream.
    kind, loss
        Names of the kind of experiment and of the loss.
    dimension, rank, depth
        n, k, N.
    target
        How the target is drawn, or where it is read from.
    epsilon, smin
        Smoothing ε, and the lower end of the target's spectrum.
    initialization
        For kinds that train.
    step_size, relative_step, theorem_step
        For descent, one of them.
    options
        What the kind declares in `OPTIONS`, by section of the configuration.
    """

    study_seed: int
    kind: str
    loss: str
    dimension: int
    target: Mapping[str, Any]
    epsilon: float
    smin: float
    rank: int
    depth: int
    options: Mapping[str, Any]
    initialization: Initialization | None = None
    step_size: float | None = None
    relative_step: float | None = None
    theorem_step: float | None = None

    @classmethod
    def of(cls, given: Mapping[str, Any], options: Mapping[str, type]) -> Settings:
        """Settings from JSON data.

        Parameters
        ----------
        given
            `grid.Cell.settings`.
        options
            The `OPTIONS` of the kind: a dataclass by section.

        Raises
        ------
        ValueError
            In one line, if a key is missing or unknown, or a value of another type.
        """
        where = f"the settings of a cell of kind {given['kind']!r}"
        own = {"initialization", *options}
        values = {  # without sections: a cell may have sections that its kind does not need
            key: value
            for key, value in given.items()
            if key == "target" or not (key in own or isinstance(value, Mapping))
        }
        sections: dict[str, Any] = {}
        trains = "landscape" not in options
        for section, type_ in {**options, **({"initialization": Initialization} if trains else {})}.items():
            if section not in given:
                raise ValueError(f"{where} lack {section!r}")
            if not isinstance(given[section], Mapping):
                raise ValueError(f"{section} must be of type dict, not {given[section]!r}")
            sections[section] = _record(type_, given[section], where)
        start = sections.pop("initialization", None)
        settings = _record(cls, {**values, "initialization": start, "options": sections}, where)
        for key in ("spectrum", "mode") if is_drawn(settings.target) else ():
            if key not in settings.target:
                raise ValueError(f"{where} lack {key!r}")
        return settings

    def start(self) -> Initialization:
        """How the initial layers are drawn, for a kind that trains."""
        return needed(self.initialization, "initialization", f"kind {self.kind!r}")


def needed(value: T | None, key: str, what: str) -> T:
    """The value of a key that is optional in general, but not here."""
    if value is None:
        raise ValueError(f"{what} needs {key}")
    return value


def _record(type_: type[T], given: Mapping[str, Any], where: str) -> T:
    """A dataclass from a mapping: every key known, none missing, every value of its type."""
    known = {one.name: one.default for one in fields(type_)}  # type: ignore[arg-type]
    for key in (key for key in given if key not in known):
        raise ValueError(f"{where} hold an unknown key {key!r}; allowed: {', '.join(known)}")
    for name, default in known.items():
        if name not in given and default is MISSING:
            raise ValueError(f"{where} lack {name!r}")
    hints = typing.get_type_hints(type_)
    return type_(**{key: _typed(key, value, hints[key]) for key, value in given.items()})


def _typed(name: str, value: Any, hint: Any) -> Any:
    """The value, if it has the type of its field; a list as a tuple."""
    if not _fits(value, hint):
        raise ValueError(f"{name} must be of type {_spelled(hint)}, not {value!r}")
    return tuple(value) if isinstance(value, list) else value


def _fits(value: Any, hint: Any) -> bool:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is types.UnionType:
        return any(_fits(value, one) for one in arguments)
    if origin is tuple:
        return isinstance(value, list | tuple) and all(_fits(item, arguments[0]) for item in value)
    if isinstance(value, bool):
        return hint is bool
    return isinstance(value, int | float if hint is float else origin or hint)


def _spelled(hint: Any) -> str:
    if typing.get_origin(hint) is tuple:
        return f"list of {_spelled(typing.get_args(hint)[0])}"
    if typing.get_origin(hint) is types.UnionType:
        return " | ".join(_spelled(one) for one in typing.get_args(hint) if one is not type(None))
    if typing.get_origin(hint) is Mapping:
        return "dict"
    return "int | float" if hint is float else getattr(hint, "__name__", str(hint))
