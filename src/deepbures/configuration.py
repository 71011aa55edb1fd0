"""Checks of a configuration: against its schema, and for sense. Every mistake gives one line."""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import jsonschema
import yaml

from .grid import MOST_PARTS, STEP_AXES, canonical, count_parts, shared_jobs
from .initialization import NEAR_A_POINT
from .psd import spectrum
from .target_files import KINDS, is_drawn, read_target

#: The keys that training needs besides `initialization`, by its kind; and what each experiment on the landscape needs
#: under `landscape`.
_TRAINING = {
    "flow": ("integration",),
    "descent": ("descent",),
    "finite_sample": ("integration", "sampling"),
}
_SECTIONS = ("initialization", "integration", "descent", "sampling", "landscape")
_LANDSCAPE = {
    "hessian": ("points",),
    "blow_up": ("singular_values", "vanishing"),
    "paths": ("points", "samples"),
    "expansion": ("samples", "reach"),
    "escape": ("points", "perturbation"),
    "surface": ("starts", "samples"),
    "critical_search": ("starts",),
}
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)[eE][+-]?\d+")


class ConfigurationError(ValueError):
    """A mistake in a configuration; its message is one line that names key, value and what is allowed."""


def with_numbers(value: Any) -> Any:
    """Copy of a configuration with numbers in one form.

    Strings like "1e-6", which YAML does not read as numbers, become numbers; 20.0 becomes 20.
    """
    if isinstance(value, Mapping):
        return {key: with_numbers(item) for key, item in value.items()}
    if isinstance(value, list):
        return [with_numbers(item) for item in value]
    if isinstance(value, str) and _NUMBER.fullmatch(value):
        value = float(value)
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value


def read(path: str | Path) -> dict[str, Any]:
    """The dictionary in a YAML file.

    Raises
    ------
    ConfigurationError
        In one line, if there is none.
    """
    try:
        value = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigurationError(f"{path}: {error.strerror or error}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"{path}: not YAML: {' '.join(str(error).split())}") from None
    if not isinstance(value, dict):
        raise ConfigurationError(f"{path}: the top level must be a dictionary, not {_short(value)}")
    return value


def merged(paths: Iterable[str | Path]) -> dict[str, Any]:
    """Configurations laid over each other, as Snakemake does: dictionaries are merged, all else is replaced."""
    result: dict[str, Any] = {}
    for path in paths:
        _lay_over(result, read(path))
    return result


def _lay_over(below: dict[str, Any], above: Mapping[str, Any]) -> None:
    for key, value in above.items():
        if isinstance(value, Mapping) and isinstance(below.get(key), dict):
            _lay_over(below[key], value)
        else:
            below[key] = value


def check(config: Mapping[str, Any], schema: Mapping[str, Any]) -> dict[str, Any]:
    """Check a merged configuration and return it with its numbers read.

    Parameters
    ----------
    config
        As loaded from YAML, overlays merged.
    schema
        JSON schema of the configuration, closed at every level.

    Raises
    ------
    ConfigurationError
        On the first mistake: one line.
    """
    checked: dict[str, Any] = with_numbers(config)
    for mistake in _not_finite(checked, ""):
        raise ConfigurationError(mistake)
    errors = list(jsonschema.Draft202012Validator(schema).iter_errors(checked))
    if errors:
        names = [error for error in errors if error.validator == "pattern"]
        raise ConfigurationError(_one_line(names[0] if names else jsonschema.exceptions.best_match(errors)))
    for mistake in _senseless(checked):
        raise ConfigurationError(mistake)
    return checked


def _one_line(error: jsonschema.ValidationError) -> str:
    where = _join(error.absolute_path) or "the top level"
    value = error.instance
    match error.validator:
        case "additionalProperties":
            allowed = list(error.schema.get("properties", ()))
            unknown = next(key for key in value if key not in allowed)
            return f"{where}: unknown key {unknown!r}{_nearest(str(unknown), allowed)}; allowed: {', '.join(allowed)}"
        case "pattern":
            return f"{where}: {value!r} is no valid name: lower-case letters, digits and _ only"
        case "required":
            missing = next(key for key in error.validator_value if key not in value)
            return f"{where}: the key {missing!r} is missing{_nearest(missing, list(value), 'is {} meant for it?')}"
        case "enum":
            allowed = [str(item) for item in error.validator_value]
            return f"{where}: {value!r} is not allowed{_nearest(str(value), allowed)}; allowed: {', '.join(allowed)}"
        case "type":
            return f"{where}: {_short(value)} must be of type {error.validator_value}"
        case "minimum" | "exclusiveMinimum":
            bound = "at least" if error.validator == "minimum" else "more than"
            return f"{where}: {value!r} must be {bound} {error.validator_value}"
        case "minItems" | "minProperties":
            return f"{where}: {_short(value)} must hold at least {error.validator_value} value"
        case "uniqueItems":
            twice = next(item for item in value if value.count(item) > 1)
            return f"{where}: {twice!r} stands there twice; every value is allowed once"
        case _:
            return f"{where}: {' '.join(error.message.split())}"


def _senseless(config: Mapping[str, Any]) -> Iterator[str]:
    """Mistakes that a schema cannot see."""
    study = config["study"]
    if study["results"] == study["figures"]:
        yield f"study.figures: {study['figures']!r} must differ from study.results"
    for name, block in config["experiments"].items():
        where, n = f"experiments.{name}", block["dimension"]
        for i, rank in enumerate(block["grid"]["rank"]):
            if rank > n:
                yield f"{where}.grid.rank[{i}]: {rank} must be at most the dimension, {n}"
        for axis, values in block["grid"].items():
            spellings = [canonical(value) for value in values]
            for i, spelling in enumerate(spellings):
                if spelling in spellings[:i]:
                    where_ = f"{where}.grid.{axis}[{i}]"
                    yield f"{where_}: {values[i]!r} stands there twice, to 12 digits; every value is allowed once"
        yield from (f"{where}.{mistake}" for mistake in _target(block))
        seeds, block_size = block["seeds"], block["seeds_per_job"]
        if seeds % block_size:  # else adding seeds would recompute the last block
            yield f"{where}.seeds: {seeds} must be a multiple of seeds_per_job, {block_size}"
        number, n_parts = shared_jobs(config, name), count_parts(config, name)
        if number and n_parts > MOST_PARTS * number:
            least = -(-n_parts // MOST_PARTS)
            yield f"study.shared_jobs: {number} must be at least {least} for the {n_parts} cells and blocks of {where}"
        mistakes = _training(block) if block["kind"] in _TRAINING else _landscape(block)
        yield from (f"{where}.{mistake}" for mistake in mistakes)
    for name, figure in config["figures"].items():
        experiment = config["experiments"].get(figure["experiment"])
        if experiment is None:
            known = list(config["experiments"])
            yield (
                f"figures.{name}.experiment: there is no experiment {figure['experiment']!r}"
                f"{_nearest(figure['experiment'], known)}; allowed: {', '.join(known)}"
            )
            continue
        for axis, values in figure.get("show", {}).items():
            if axis not in experiment["grid"]:
                yield f"figures.{name}.show.{axis}: the grid of {figure['experiment']} has no such axis"
                continue
            absent = [value for value in values if value not in experiment["grid"][axis]]
            if absent:
                yield (
                    f"figures.{name}.show.{axis}: {absent[0]!r} is not in the grid of {figure['experiment']}; "
                    f"allowed: {', '.join(map(str, experiment['grid'][axis]))}"
                )


def _target(block: Mapping[str, Any]) -> Iterator[str]:
    """Mistakes in where the targets of an experiment come from; a file is read."""
    target = block["target"]
    drawn = [key for key in ("spectrum", "mode") if key in target]
    if is_drawn(target):
        for key in (key for key in ("spectrum", "mode") if key not in target):
            yield f"target.{key}: the key is missing (or one of {', '.join(KINDS)})"
        return
    if drawn or len(target) > 1:
        yield f"target: one of the keys {', '.join(KINDS)} is all of a target; leave the other keys out"
    elif block["grid"]["smin"] != [-1]:
        yield "grid.smin: a target that is not drawn is taken as it is: smin must be [-1]"
    else:
        try:
            covariance = read_target(target, block["dimension"])
        except ValueError as error:
            yield f"target: {error}"
            return
        eigenvalues, _ = spectrum("target", covariance)
        target_rank = int((eigenvalues > 0).sum())
        smoothed = [*block["grid"].get("loss_name", ()), block.get("loss")]
        for i, rank in enumerate(block["grid"]["rank"]):  # ε is limited to λ_n, which is 0 here
            if rank > target_rank and "bures-wasserstein" in smoothed:
                yield f"grid.rank[{i}]: rank {rank} exceeds the rank {target_rank} of the target"


def _training(block: Mapping[str, Any]) -> Iterator[str]:
    """Mistakes in how the networks of an experiment start and are trained."""
    kind, grid = block["kind"], block["grid"]
    own = _TRAINING[kind]
    for other in (key for key in _SECTIONS[1:] if key not in own and key in block):
        yield f"{other}: kind {kind!r} has no such key; allowed: {', '.join(own)}"
    for key in ("initialization", *own):
        if key not in block:
            yield f"{key}: the key is missing: kind {kind!r} needs it"
            return
    start = block["initialization"]
    places = {
        "loss_name": (block, "loss"),
        "initialization": (start, "kind"),
        "balance": (start, "balance"),
        "initial_scale": (start, "scale"),
    }
    optional = ("balance", "initial_scale")
    for axis, (mapping, key) in places.items():
        name = key if mapping is block else f"initialization.{key}"
        if axis in grid and key in mapping:
            yield f"grid.{axis}: {name} is given too; keep one of the two"
        if axis not in grid and key not in mapping and axis not in optional:
            yield f"{name}: the key is missing (or an axis {axis!r} of the grid)"
            return
    losses, kinds, balances, scales = (
        grid.get(axis, [mapping[key]] if key in mapping else []) for axis, (mapping, key) in places.items()
    )
    yield from _starts(losses, kinds, balances, scales, "grid.initial_scale" if "initial_scale" in grid else None)
    if "end_rank" in start and start["end_rank"] > min(grid["rank"]):
        yield f"initialization.end_rank: {start['end_rank']} must be at most the rank, {min(grid['rank'])}"
    steps = [axis for axis in STEP_AXES if axis in grid]
    if kind == "finite_sample":
        if "frobenius" in losses:
            yield "loss: kind 'finite_sample' needs bures-wasserstein, not 'frobenius'"
        for i, size in enumerate(block["sampling"]["sizes"]):
            if size < max(grid["rank"]):
                yield f"sampling.sizes[{i}]: {size} must be at least the rank, {max(grid['rank'])}"
    if kind != "descent":
        if steps:
            yield f"grid.{steps[0]}: only descent has step sizes"
        if "none" in balances:
            yield "initialization.balance: a flow needs a balanced start, not 'none'"
    elif len(steps) != 1:
        yield "grid: descent needs one of the axes 'step_size', 'relative_step' and 'theorem_step'"
    else:
        if "theorem_step" in grid and "frobenius" in losses:
            yield "grid.theorem_step: the theorem needs loss: bures-wasserstein, not 'frobenius'"
        yield from _descent(block["descent"], grid.get("step_size"), balances)


def _landscape(block: Mapping[str, Any]) -> Iterator[str]:
    """Mistakes in an experiment on the landscape, where nothing is trained."""
    kind, grid, options = block["kind"], block["grid"], block.get("landscape", {})
    for key in (key for key in _SECTIONS[:-1] if key in block):
        yield f"{key}: kind {kind!r} has no such key; allowed: landscape"
    for axis in (a for a in ("initialization", "balance", "initial_scale", *STEP_AXES) if a in grid):
        yield f"grid.{axis}: kind {kind!r} has no such axis"
    if ("loss_name" in grid) == ("loss" in block):
        yield "loss: one of the key 'loss' and the axis 'loss_name' is needed, and not both"
    for key in (key for key in _LANDSCAPE[kind] if key not in options):
        yield f"landscape.{key}: the key is missing: kind {kind!r} needs it"
    for key in (key for key in options if key not in _LANDSCAPE[kind]):
        yield f"landscape.{key}: kind {kind!r} has no such key; allowed: {', '.join(_LANDSCAPE[kind])}"
    if kind == "surface" and (block["dimension"] != 2 or grid["rank"] != [1]):
        yield "dimension: a surface needs dimension 2 and rank 1"
    for i, vanishing in enumerate(options.get("vanishing", ())):
        if vanishing > min(grid["rank"]):
            yield f"landscape.vanishing[{i}]: {vanishing} must be at most the rank, {min(grid['rank'])}"


def _starts(
    losses: list[str], kinds: list[str], balances: list[str], scales: list[float], axis: str | None
) -> Iterator[str]:
    """Mistakes in kinds of starts; `axis` names the axis that the scales come from, if it is one."""
    drawn = [kind for kind in kinds if kind not in NEAR_A_POINT]
    for kind in (kind for kind in ("small", "aligned") if kind in kinds):
        if not scales:
            yield f"initialization: the key 'scale' is missing: the kind {kind!r} needs it"
        for scale in (scale for scale in scales if scale <= 0):
            yield f"{axis or 'initialization.scale'}: {scale} must be more than 0 for the kind {kind!r}"
    for scale in (scale for scale in scales if scale == 0 or scale <= -1):
        yield f"{axis or 'initialization.scale'}: {scale} must be more than -1 and not 0"
    if scales and drawn:
        yield f"{axis or 'initialization.scale'}: the kind {drawn[0]!r} has no scale"
    if "close" in kinds and "frobenius" in losses:
        yield "initialization.kind: 'close' needs loss: bures-wasserstein, not 'frobenius'"
    if drawn and not balances:
        yield f"initialization: the key 'balance' is missing: the kind {drawn[0]!r} needs it"
    if balances and len(drawn) < len(kinds):
        yield f"initialization.balance: the kinds {', '.join(map(repr, NEAR_A_POINT))} are always balanced"


def _descent(options: Mapping[str, Any], step_sizes: list[float] | None, balances: list[str]) -> Iterator[str]:
    for one, other in (("max_steps", "end_time"), ("samples", "record_every")):
        if (one in options) == (other in options):
            yield f"descent: one of the keys {one!r} and {other!r} is needed, and not both"
    if "end_time" in options:
        if step_sizes is None:
            yield "descent.end_time: needs the axis 'step_size' in the grid"
        for i, eta in enumerate(step_sizes or ()):
            steps = options["end_time"] / eta
            if abs(steps - round(steps)) > 1e-9 * steps or round(steps) < 1:
                yield f"grid.step_size[{i}]: {eta} must divide end_time, {options['end_time']}"
    if options.get("compare_with_flow"):
        if "end_time" not in options:
            yield "descent.compare_with_flow: needs end_time"
        if "none" in balances:
            yield "descent.compare_with_flow: needs balanced starts, not 'none'"


def _not_finite(value: Any, where: str) -> Iterator[str]:
    if isinstance(value, Mapping):
        for key, item in value.items():
            yield from _not_finite(item, f"{where}.{key}" if where else str(key))
    elif isinstance(value, list):
        for i, item in enumerate(value):
            yield from _not_finite(item, f"{where}[{i}]")
    elif isinstance(value, float) and not math.isfinite(value):
        yield f"{where}: {value} must be a finite number"


def _join(path: Iterable[str | int]) -> str:
    return "".join(f"[{key}]" if isinstance(key, int) else f".{key}" for key in path).lstrip(".")


def _nearest(word: str, candidates: list[str], question: str = "did you mean {}?") -> str:
    close = difflib.get_close_matches(word, candidates, n=1)
    return f", {question.format(repr(close[0]))}" if close else ""


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
