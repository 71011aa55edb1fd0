"""The settings of a cell: everything that its numbers depend on besides the seeds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, TypeVar

from ...losses.registry import LOSSES, OPTIONS
from ...model.starts import BALANCES, DISTRIBUTIONS, NEAR_A_POINT
from ..grid.target import Target, is_drawn
from .records import Key, keys_of, mistakes, record

T = TypeVar("T")


@dataclass(frozen=True)
class Initialization:
    """How the initial layers are drawn; see `initialization` in config/README.md."""

    kind: str = field(metadata={"enum": (*NEAR_A_POINT, *DISTRIBUTIONS)})
    balance: str | None = field(default=None, metadata={"enum": BALANCES})
    scale: float | None = field(default=None, metadata={"exclusiveMinimum": -1})
    end_rank: int | None = field(default=None, metadata={"minimum": 1})
    imbalance: float = field(default=0.0, metadata={"minimum": 0})
    width: int | None = field(default=None, metadata={"minimum": 1})

    def needed_scale(self) -> float:
        """The scale, for a kind of start that needs one."""
        return needed(self.scale, "initialization.scale", f"the kind {self.kind!r} of initialization")


@dataclass(frozen=True)
class Integration:
    """How a gradient flow is integrated, and when it ends; see `integration` in config/README.md."""

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
        How the target is drawn, or where it is read from: the keys of `grid.target.Target`.
    epsilon, smin
        ε as configured, and the lower end of the target's spectrum.
    options
        The sections of the configuration that the kind declares in `OPTIONS`, by name.
    step_size, relative_step, theorem_step, proved_step
        For descent, one of them.
    loss_options
        Options of the loss, such as the blur of the Sinkhorn loss.
    """

    study_seed: int
    kind: str
    loss: str = field(metadata={"enum": tuple(LOSSES)})
    dimension: int = field(metadata={"minimum": 1})
    target: Mapping[str, Any]
    epsilon: float = field(metadata={"minimum": 0})
    smin: float
    rank: int = field(metadata={"minimum": 1})
    depth: int = field(metadata={"minimum": 1})
    options: Mapping[str, Any]
    step_size: float | None = field(default=None, metadata={"exclusiveMinimum": 0})
    relative_step: float | None = field(default=None, metadata={"exclusiveMinimum": 0})
    theorem_step: float | None = field(default=None, metadata={"exclusiveMinimum": 0})
    proved_step: float | None = field(default=None, metadata={"exclusiveMinimum": 0})
    loss_options: Mapping[str, float] | None = None

    @classmethod
    def of(cls, given: Mapping[str, Any], options: Mapping[str, type]) -> Settings:
        """Settings from JSON data.

        Parameters
        ----------
        given
            `grid.cells.Cell.settings`; sections that the kind does not declare are ignored.
        options
            The `OPTIONS` of the kind: a dataclass for each section.

        Raises
        ------
        ValueError
            In one line, if a key is missing or unknown, or a value is not allowed.
        """
        keys = {**KEYS, **{section: Key(declared) for section, declared in options.items()}}
        known = {key: value for key, value in given.items() if key in keys or not isinstance(value, Mapping)}
        for mistake in mistakes(known, Key(keys), "cell"):
            raise ValueError(mistake)
        for key in ("spectrum", "mode") if is_drawn(given["target"]) else ():
            if key not in given["target"]:
                raise ValueError(f"cell.target: the key {key!r} is missing")
        sections: dict[str, Any] = {section: record(declared, given[section]) for section, declared in options.items()}
        return cls(**{key: value for key, value in known.items() if key not in options}, options=sections)

    def start(self) -> Initialization:
        """How the initial layers are drawn, for a kind with the section `initialization`."""
        return needed(self.options.get("initialization"), "initialization", f"kind {self.kind!r}")


#: The keys of a cell besides the sections of its kind.
KEYS = {name: key for name, key in keys_of(Settings).items() if name != "options"} | {
    "target": Key(Target),
    "loss_options": Key({name: Key(float, False, bounds) for name, bounds in OPTIONS.items()}, required=False),
}


def needed(value: T | None, key: str, what: str) -> T:
    """The value of a key that is optional in general, but not here."""
    if value is None:
        raise ValueError(f"{what} needs {key}")
    return value
