"""Checks of a configuration: against its schema, and for sense. Every mistake is reported in one line."""

from __future__ import annotations

import dataclasses
import math
import os
import re
import types
import typing
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import jsonschema

from ...files.targets import read_covariances, target_rank
from ...model.starts import NEAR_A_POINT
from ...model.targets import SPECTRA
from ..cell.settings import Initialization
from ..grid.axes import AXES, STEP_AXES, value_of
from ..grid.cells import canonical
from ..grid.target import FILE_KEYS, ONE, files_of, is_drawn
from ..grid.target import KINDS as TARGETS
from ..kinds import KINDS
from ..kinds import kind as kind_of
from . import strict_yaml
from .families import Family, nearest
from .families import mistakes as mistakes_of_families

_NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)[eE][+-]?[0-9]+")
#: How JSON schema calls the types of options.
_TYPES = {int: "integer", float: "number", bool: "boolean", str: "string"}
#: From here on, floats cannot distinguish one integer from the next.
_INTEGERS = 2**53
#: Characters allowed in the path of a folder that is created, and of a file that is read.
_FOLDER, _FILE = re.compile(r"[\w./@+=,-]"), re.compile(r"[\w./@+=,:%() -]")


class ConfigurationError(ValueError):
    """A mistake in a configuration; its message is one line that names key, value and what is allowed."""


def with_numbers(value: Any) -> Any:
    """Copy of a configuration with every number in one form.

    Strings like "1e-6", which YAML does not read as numbers, become numbers if double precision can hold them; 20.0
    becomes 20.
    """
    if isinstance(value, Mapping):
        return {key: with_numbers(item) for key, item in value.items()}
    if isinstance(value, list):
        return [with_numbers(item) for item in value]
    if isinstance(value, str) and _NUMBER.fullmatch(value) and not strict_yaml.lost(value, float(value)):
        value = float(value)
    if isinstance(value, float) and value.is_integer() and abs(value) < _INTEGERS:
        return int(value)
    return value


def of_command_line(value: Any) -> Any:
    """What follows Snakemake's `--config`: there every number is a string, which is read as it would be in a file.

    Raises
    ------
    ConfigurationError
        In one line, if YAML would read it as something other than it shows (see `strict_yaml`).
    """
    if isinstance(value, Mapping):
        return {key: of_command_line(item) for key, item in value.items()}
    if isinstance(value, list):
        return [of_command_line(item) for item in value]
    if not isinstance(value, str):
        return value
    try:
        read_ = strict_yaml.loads(value)
    except ValueError as error:
        raise ConfigurationError(f"--config: {str(error).removeprefix('line 1: ')}") from None
    return value if isinstance(read_, (dict, list)) else read_


def read(path: str | Path) -> dict[str, Any]:
    """The dictionary in a YAML file.

    Raises
    ------
    ConfigurationError
        In one line, if there is none, or if it would be read as something other than it shows (see `strict_yaml`).
    """
    try:
        value = strict_yaml.loads(Path(path).read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise ConfigurationError(f"{path}: {error.strerror or error}") from None
    except UnicodeDecodeError:
        raise ConfigurationError(f"{path}: not YAML: it must be text in UTF-8") from None
    except ValueError as error:
        raise ConfigurationError(f"{path}: {error}") from None
    if value is None:
        raise ConfigurationError(f"{path}: it is empty; it must be a dictionary")
    if not isinstance(value, dict):
        raise ConfigurationError(f"{path}: the top level must be a dictionary, not {_short(value)}")
    return value


def merged(paths: Iterable[str | Path]) -> dict[str, Any]:
    """Configurations laid over each other, as Snakemake does: dictionaries are merged, all else is replaced."""
    result: dict[str, Any] = {}
    for path in paths:
        lay_over(result, read(path))
    return result


def lay_over(below: dict[str, Any], above: Mapping[str, Any]) -> None:
    """Lay a configuration over another one, which changes: dictionaries are merged, all else is replaced."""
    for key, value in above.items():
        if isinstance(value, Mapping) and isinstance(below.get(key), dict):
            lay_over(below[key], value)
        else:
            below[key] = value


def check(
    config: Mapping[str, Any], schema: Mapping[str, Any], families: Mapping[str, Family] | None = None
) -> dict[str, Any]:
    """Check a merged configuration and return it with its numbers read.

    Parameters
    ----------
    config
        As loaded from YAML, overlays merged.
    schema
        JSON schema of the configuration, closed at every level.
    families
        Families of figures by name, see `check_families`; without them, whether figures can be drawn is not checked.

    Raises
    ------
    ConfigurationError
        On the first mistake: one line.
    """
    checked: dict[str, Any] = with_numbers(config)
    for mistake in _not_finite(checked, ""):
        raise ConfigurationError(mistake)
    errors = list(jsonschema.Draft202012Validator(_with_axes(schema)).iter_errors(checked))
    if errors:
        names = [error for error in errors if error.validator == "pattern"]
        raise ConfigurationError(_one_line(names[0] if names else jsonschema.exceptions.best_match(errors)))
    checked = _limited(checked)
    for mistake in _senseless(checked):
        raise ConfigurationError(mistake)
    for mistake in mistakes_of_families(checked, families) if families is not None else ():
        raise ConfigurationError(mistake)
    return _with_plain_paths(checked)


def _limited(checked: dict[str, Any]) -> dict[str, Any]:
    """The experiments that `study.only` names, with their figures; all if it is not set."""
    only, experiments = checked["study"].get("only", checked["experiments"]), checked["experiments"]
    for name in only:
        if name not in experiments:
            raise ConfigurationError(
                f"study.only: there is no experiment {_short(name)}; there are {', '.join(experiments)}"
            )
    figures = checked["figures"]
    return {
        **checked,
        "experiments": {name: block for name, block in experiments.items() if name in only},
        # a figure of an experiment that does not exist is a mistake, and is kept so that it is reported
        "figures": {
            name: family
            for name, family in figures.items()
            if family["experiment"] in only or family["experiment"] not in experiments
        },
    }


def _with_plain_paths(checked: dict[str, Any]) -> dict[str, Any]:
    """The configuration with one spelling for each path: ./results//x/ is results/x."""
    for key in ("results", "figures"):
        checked["study"][key] = os.path.normpath(checked["study"][key])
    for block in checked["experiments"].values():
        for given in (block["target"], block["target"].get("barycenter", {})):
            for key in (key for key in FILE_KEYS if key in given):
                found = given[key]
                given[key] = os.path.normpath(found) if isinstance(found, str) else [*map(os.path.normpath, found)]
    return checked


def check_families(given: Mapping[str, Any], schema: Mapping[str, Any]) -> Mapping[str, Family]:
    """Check the families of figures against their schema, and return them.

    Raises
    ------
    ConfigurationError
        On a mistake: one line.
    """
    errors = list(jsonschema.Draft202012Validator(schema).iter_errors(given))
    if errors:
        raise ConfigurationError(f"families of figures: {_one_line(jsonschema.exceptions.best_match(errors))}")
    for name, family in given.items():
        for unknown in (known for known in family["kinds"] if known not in KINDS):
            raise ConfigurationError(f"families of figures: {name}.kinds: there is no kind {unknown!r}")
        for key in ("axes", "values", "several", "several_in_grid"):
            for unknown in (axis for axis in family.get(key, ()) if axis not in AXES):
                raise ConfigurationError(f"families of figures: {name}.{key}: there is no axis {unknown!r}")
    return given


def _with_axes(schema: Mapping[str, Any]) -> dict[str, Any]:
    """The schema, with the axes that replace a key added to those of the grid, and checked like that key.

    Those that replace a key of a kind's own are checked with it (`_sections`).
    """
    experiment = schema["$defs"]["experiment"]
    keys = experiment["properties"]
    axes = {axis.name: {"$ref": "#/$defs/axis", "items": keys.get(axis.of, {})} for axis in AXES.values() if axis.of}
    grid = {**keys["grid"], "properties": {**keys["grid"]["properties"], **axes}}
    experiment = {**experiment, "properties": {**keys, "grid": grid}}
    return {**schema, "$defs": {**schema["$defs"], "experiment": experiment}}


def _one_line(error: jsonschema.ValidationError) -> str:
    where = _join(error.absolute_path) or "the top level"
    value = error.instance
    match error.validator:
        case "additionalProperties":
            allowed = list(error.schema.get("properties", ()))
            unknown = next(key for key in value if key not in allowed)
            return f"{where}: unknown key {unknown!r}{nearest(str(unknown), allowed)}; allowed: {', '.join(allowed)}"
        case "pattern":
            return f"{where}: {value!r} is no valid name: lower-case letters, digits and _ only"
        case "required":
            missing = next(key for key in error.validator_value if key not in value)
            return f"{where}: the key {missing!r} is missing{nearest(missing, list(value), 'is {} meant for it?')}"
        case "enum":
            allowed = [str(item) for item in error.validator_value]
            return f"{where}: {value!r} is not allowed{nearest(str(value), allowed)}; allowed: {', '.join(allowed)}"
        case "type":
            return f"{where}: {_short(value)} must be of type {error.validator_value}"
        case "minimum" | "exclusiveMinimum" | "exclusiveMaximum":
            bound = {"minimum": "at least", "exclusiveMinimum": "more than"}.get(error.validator, "less than")
            return f"{where}: {value!r} must be {bound} {error.validator_value}"
        case "minItems" | "minProperties":
            return f"{where}: {_short(value)} must hold at least {error.validator_value} value"
        case "uniqueItems":
            twice = next(item for item in value if value.count(item) > 1)
            return f"{where}: {twice!r} is given twice; each value is allowed only once"
        case _:
            return f"{where}: {' '.join(error.message.split())}"


def _senseless(config: Mapping[str, Any]) -> Iterator[str]:
    """Mistakes that a schema cannot see."""
    study = config["study"]
    for key in ("results", "figures"):
        yield from _path(f"study.{key}", study[key], _FOLDER)
    results, figures = (Path(os.path.abspath(study[key])) for key in ("results", "figures"))
    if results == figures:
        yield f"study.figures: {study['figures']!r} must differ from study.results"
    elif results in figures.parents or figures in results.parents:
        yield f"study.figures: {study['figures']!r} must not be in study.results, {study['results']!r}, or contain it"
    for name, block in config["experiments"].items():
        where, n = f"experiments.{name}", block["dimension"]
        if block["kind"] not in KINDS:
            kinds = nearest(block["kind"], KINDS)
            yield f"{where}.kind: {block['kind']!r} is not allowed{kinds}; allowed: {', '.join(KINDS)}"
            return
        for i, rank in enumerate(block["grid"]["rank"]):
            if rank > n:
                yield f"{where}.grid.rank[{i}]: {rank} must be at most the dimension, {n}"
        for axis, values in block["grid"].items():
            spellings = [canonical(value) for value in values]
            for i, spelling in enumerate(spellings):
                if spelling in spellings[:i]:
                    where_ = f"{where}.grid.{axis}[{i}]"
                    yield f"{where_}: {values[i]!r} is given twice, to 12 digits; each value is allowed only once"
        yield from (f"{where}.{mistake}" for mistake in _target(block))
        seeds, block_size = block["seeds"], block["seeds_per_job"]
        if seeds % block_size:  # else adding seeds would recompute the last block
            yield f"{where}.seeds: {seeds} must be a multiple of seeds_per_job, {block_size}"
        mistakes = _landscape(block) if "landscape" in kind_of(block["kind"]).OPTIONS else _training(block)
        yield from (f"{where}.{mistake}" for mistake in mistakes)
    for name, figure in config["figures"].items():
        experiment = config["experiments"].get(figure["experiment"])
        if experiment is None:
            known = list(config["experiments"])
            yield (
                f"figures.{name}.experiment: there is no experiment {figure['experiment']!r}"
                f"{nearest(figure['experiment'], known)}; allowed: {', '.join(known)}"
            )
            continue
        for axis, values in figure.get("show", {}).items():
            if axis not in experiment["grid"]:
                close = nearest(axis, experiment["grid"])
                yield f"figures.{name}.show.{axis}: the grid of {figure['experiment']} has no such axis{close}"
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
    wanted = getattr(kind_of(block["kind"]), "SPECTRUM", None)  # for a kind that draws its own targets
    of_several = block["kind"] == "barycenter"
    if wanted is not None and target.get("spectrum") != wanted and not (of_several and "barycenter" in target):
        yield f"target.spectrum: kind {block['kind']!r} needs {wanted}, not {target.get('spectrum', 'a file')!r}"
        return
    if "barycenter" in target and not of_several:
        yield f"target.barycenter: kind {block['kind']!r} needs one target, such as {', '.join(ONE)}"
        return
    if is_drawn(target):
        for key in (key for key in ("spectrum", "mode") if key not in target):
            yield f"target.{key}: the key is missing (or one of {', '.join(TARGETS)})"
            return
        if wanted is None and target["spectrum"] not in SPECTRA:
            known = ", ".join(SPECTRA)
            yield f"target.spectrum: kind {block['kind']!r} needs one of {known}, not {target['spectrum']!r}"
        return
    if drawn or len(target) > 1:
        yield f"target: one of the keys {', '.join(TARGETS)} describes a target completely; leave the other keys out"
    elif block["grid"]["smin"] != [-1]:
        yield "grid.smin: a target that is not drawn is taken as it is: smin must be [-1]"
    elif mistake := next((mistake for file in files_of(target) for mistake in _path("target", file, _FILE)), None):
        yield mistake
    elif of_several:
        try:
            read_covariances(target, block["dimension"])
        except ValueError as error:
            yield f"target: {error}"
    else:
        try:
            rank = target_rank(target, block["dimension"], max(block["grid"]["rank"]) + 1)
        except ValueError as error:
            yield f"target: {error}"
        else:
            yield from _target_rank(block, rank)


def _path(where: str, path: str, allowed: re.Pattern) -> Iterator[str]:
    """Mistakes in a path, which goes through Snakemake and a shell: neither may replace anything in it."""
    if path.startswith("~") or "$" in path:
        yield f"{where}: {path!r}: ~ and $ are not replaced; write the path itself"
    elif path.startswith("-"):
        yield f"{where}: {path!r} must not begin with -"
    elif strange := allowed.sub("", path):
        yield f"{where}: {path!r} holds {strange[0]!r}, which has a meaning for Snakemake or a shell; rename it"


def _target_rank(block: Mapping[str, Any], target_rank: int) -> Iterator[str]:
    """Mistakes in what is asked of a target of a certain rank, such as one from fewer samples than dimensions."""
    if target_rank == 0:
        yield "target: its covariance is zero: there is nothing to learn"
        return
    smoothed = [*block["grid"].get("loss_name", ()), block.get("loss")]
    for i, rank in enumerate(block["grid"]["rank"]):  # ε is limited to λ_k, which is 0 there
        if rank > target_rank and "bures-wasserstein" in smoothed:
            yield f"grid.rank[{i}]: rank {rank} exceeds the rank {target_rank} of the target"
        if block["kind"] == "paths" and rank >= target_rank:
            yield f"grid.rank[{i}]: {rank} must be less than the rank of the target, {target_rank}, for two points"


def _training(block: Mapping[str, Any]) -> Iterator[str]:
    """Mistakes in how the networks of an experiment start and are trained."""
    kind, grid = block["kind"], block["grid"]
    yield from _sections(block, {"initialization": Initialization, **kind_of(kind).OPTIONS})
    start = block["initialization"]
    given = {name: _given(block, name) for name in ("loss_name", "initialization", "balance", "initial_scale")}
    if not given["loss_name"]:
        yield "loss: the key is missing (or an axis 'loss_name' of the grid)"
        return
    if "loss" in block and "loss_name" in grid:
        yield "grid.loss_name: loss is given too; keep one of the two"
    losses, kinds, balances, scales = given.values()
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
    allowed = getattr(kind_of(kind), "STEPS", ())  # for a kind that has step sizes
    if strange := [axis for axis in steps if axis not in allowed]:
        yield f"grid.{strange[0]}: kind {kind!r} has no such axis"
    elif not allowed and "none" in balances:
        yield "initialization.balance: a flow needs a balanced start, not 'none'"
    elif allowed and len(steps) != 1:
        yield f"grid: kind {kind!r} needs one of the axes {', '.join(allowed)}"
    elif kind == "descent":
        if "theorem_step" in grid and "frobenius" in losses:
            yield "grid.theorem_step: the theorem needs loss: bures-wasserstein, not 'frobenius'"
        yield from _descent(block["descent"], grid.get("step_size"), balances)


def _sections(block: Mapping[str, Any], declared: Mapping[str, type]) -> Iterator[str]:
    """Mistakes in the sections of a block that dataclasses declare, and in the axes that take the place of a key."""
    kind, grid = block["kind"], block["grid"]
    for section, value in block.items():
        if isinstance(value, Mapping) and section not in ("target", "grid", *declared):
            yield f"{section}: kind {kind!r} has no such key; allowed: {', '.join(kind_of(kind).OPTIONS)}"
    for section in (section for section in declared if section not in block):
        yield f"{section}: the key is missing: kind {kind!r} needs it"
        return
    keys = {section: _keys(options) for section, options in declared.items()}
    axes = [AXES[name] for name in grid if "." in AXES[name].of]
    for axis in axes:
        if value_of(keys, axis.of) is None:
            yield f"grid.{axis.name}: kind {kind!r} has no such axis"
        if value_of(block, axis.of) is not None:
            yield f"grid.{axis.name}: {axis.of} is given too; keep one of the two"
    for section, options in declared.items():
        yield from _section(block, section, options)
    schemas = {section: {"properties": known} for section, known in keys.items()}
    schemas["grid"] = {"properties": {axis.name: {"items": value_of(keys, axis.of)} for axis in axes}}
    yield from map(_one_line, jsonschema.Draft202012Validator({"properties": schemas}).iter_errors(block))


def _section(block: Mapping[str, Any], section: str, options: type) -> Iterator[str]:
    """The keys of a section that its kind does not know, and those that it lacks."""
    kind, fields = block["kind"], dataclasses.fields(options)
    known = [field.name for field in fields]
    for key in (key for key in block[section] if key not in known):
        allowed = f"{nearest(str(key), known)}; allowed: {', '.join(known)}"
        yield f"{section}.{key}: kind {kind!r} has no such key{allowed}"
    axes = {axis.of: axis.name for axis in AXES.values()}
    for field in (field for field in fields if field.default is dataclasses.MISSING):
        axis = axes.get(f"{section}.{field.name}")
        if field.name not in block[section] and axis not in block["grid"]:
            needed = f" (or an axis {axis!r} of the grid)" if axis else f": kind {kind!r} needs it"
            yield f"{section}.{field.name}: the key is missing{needed}"


def _keys(options: type) -> dict[str, dict[str, Any]]:
    """JSON schema of each key that a dataclass declares: its type, and what the field's metadata says of its values."""
    hints = typing.get_type_hints(options)
    return {field.name: _key(hints[field.name], field.metadata) for field in dataclasses.fields(options)}


def _key(hint: Any, values: Mapping[str, Any]) -> dict[str, Any]:
    if isinstance(hint, types.UnionType):  # with None: it may be left out
        hint = typing.get_args(hint)[0]
    if typing.get_origin(hint) is tuple:
        items = _key(typing.get_args(hint)[0], values)
        return {"type": "array", "minItems": 1, "uniqueItems": True, "items": items}
    return {"type": _TYPES[hint], **values}


def _given(block: Mapping[str, Any], axis: str) -> list[Any]:
    """The values of an axis, or the value of the key that it would replace; none if there is neither."""
    value = value_of(block, AXES[axis].of)
    found: list[Any] = block["grid"].get(axis, [] if value is None else [value])
    return found


def _landscape(block: Mapping[str, Any]) -> Iterator[str]:
    """Mistakes in a landscape experiment, where nothing is trained."""
    kind, grid, options = block["kind"], block["grid"], block.get("landscape", {})
    yield from _sections(block, kind_of(kind).OPTIONS)
    for axis in (axis for axis in STEP_AXES if axis in grid):
        yield f"grid.{axis}: kind {kind!r} has no such axis"
    if ("loss_name" in grid) == ("loss" in block):
        yield "loss: exactly one of the key 'loss' and the axis 'loss_name' is needed"
    if hasattr(kind_of(kind), "SPECTRUM"):
        yield from _neighbour(block)
    if kind == "surface" and (block["dimension"] != 2 or grid["rank"] != [1]):
        yield "dimension: a surface needs dimension 2 and rank 1"
    for i, vanishing in enumerate(options.get("vanishing", ())):
        if vanishing > min(grid["rank"]):
            yield f"landscape.vanishing[{i}]: {vanishing} must be at most the rank, {min(grid['rank'])}"


def _neighbour(block: Mapping[str, Any]) -> Iterator[str]:
    """Mistakes in an experiment whose kind draws its own targets: what cannot vary there must have one value."""
    kind, grid, options = block["kind"], block["grid"], block.get("landscape", {})
    for axis, value in (("epsilon", 0), ("smin", -1)):
        if grid[axis] != [value]:
            yield f"grid.{axis}: kind {kind!r} needs [{value}], not {grid[axis]}"
    if kind != "scaled":
        if block.get("loss") != "bures-wasserstein":
            yield f"loss: kind {kind!r} needs bures-wasserstein"
        if kind != "barycenter" and grid["depth"] != [1]:
            yield f"grid.depth: kind {kind!r} needs [1], not {grid['depth']}"
    if kind == "barycenter":
        for key in ("spreads", "covariances"):  # for sets that are drawn
            if is_drawn(block["target"]) and key not in options:
                yield f"landscape.{key}: the key is missing: sets that are drawn need it"
            if not is_drawn(block["target"]) and key in options:
                yield f"landscape.{key}: the covariances are read from files; leave the key out"
    for i, rank in enumerate(options.get("target_ranks", ())):
        if rank > block["dimension"]:
            yield f"landscape.target_ranks[{i}]: {rank} must be at most the dimension, {block['dimension']}"


def _starts(
    losses: list[str], kinds: list[str], balances: list[str], scales: list[float], axis: str | None
) -> Iterator[str]:
    """Mistakes in kinds of starts; `axis` names the axis that the scales come from, if they come from one."""
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
            yield f"descent: exactly one of the keys {one!r} and {other!r} is needed"
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


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
