"""Checks of an experiment's block: its keys and axes, and what every kind of experiment needs of them."""

import math
from collections.abc import Iterator, Mapping
from types import GenericAlias, ModuleType
from typing import Any

from ...files.targets import options_of, read_covariances, target_rank
from ...losses.registry import LOSSES
from ...model.targets import SPECTRA
from ..cell import checks
from ..cell.records import Key, keys_of, mistakes
from ..cell.settings import KEYS
from ..grid.axes import AXES, STEP_AXES, value_of
from ..grid.target import ONE, SOURCES, dimension_of, files_of, is_drawn
from ..kinds import KINDS
from ..kinds import kind as kind_of
from . import paths
from .read import ConfigurationError, refuse

_KIND = Key(str, values={"enum": KINDS})
_NUMBER = Key(int, values={"minimum": 1, "maximum": 10**6})
#: Largest number of parts of an experiment: Snakemake needs minutes to plan as many.
_MOST_PARTS = 100_000
#: Keys of every block besides the sections of its kind.
_FRAME = {
    **{
        "kind": _KIND,
        "loss": KEYS["loss"],
        "loss_options": KEYS["loss_options"],
        "dimension": KEYS["dimension"],
        "target": KEYS["target"],
    },
    **{"seeds": _NUMBER, "seeds_per_job": _NUMBER, "grid": Key(Mapping[str, Any])},
}


def complete(block: dict[str, Any], name: str) -> bool:
    """Add the dimension of a target from a file, and s_min = −1, which has no meaning for it, where they are missing.

    Returns
    -------
    bool
        Whether the target is one that is not drawn, of the right type.

    Raises
    ------
    ConfigurationError
        If the file cannot be read.
    """
    target, where = block.get("target", {}), f"experiments.{name}.target"
    if next(mistakes(target, KEYS["target"]), None) or is_drawn(target):
        return False
    if isinstance(block.get("grid"), dict):
        block["grid"].setdefault("smin", [-1])
    if files_of(target) and "dimension" not in block:
        for file in files_of(target):
            refuse(paths.mistakes(where, file))
        try:
            block["dimension"] = dimension_of(target)
        except ValueError as error:
            raise ConfigurationError(f"{where}: {error}") from None
    return True


def mistakes_of_types(block: Mapping[str, Any], where: str) -> Iterator[str]:
    """Unknown and missing keys and axes, and values that are not allowed whatever the others are."""
    yield from mistakes({key: block[key] for key in block if key == "kind"}, Key({"kind": _KIND}), where)
    kind = kind_of(block["kind"])
    keys = _FRAME | {section: Key(keys_of(options)) for section, options in kind.OPTIONS.items()}
    grid = block["grid"] if isinstance(block.get("grid"), Mapping) else {}
    for axis in (axis for axis in AXES.values() if axis.of):
        keys = _optional(keys, axis.of, axis.name, axis.name in grid)
    yield from mistakes(block, Key(keys), where)
    yield from mistakes(grid, Key(_axes(kind, keys)), f"{where}.grid")
    for name in grid:
        if value_of(block, AXES[name].of) is not None:
            yield f"{where}.grid.{name}: {AXES[name].of} is given too; keep one of the two"


def _optional(keys: dict[str, Key], path: str, axis: str, given: bool) -> dict[str, Key]:
    """The keys of a block with the one at a path such as `initialization.kind`, which an axis may replace, optional."""
    first, _, rest = path.partition(".")
    if first not in keys:
        return keys
    key = keys[first]
    if rest:
        key = key._replace(type=_optional(key.type, rest, axis, given))
    else:
        key = key._replace(required=key.required and not given, instead=f" (or an axis {axis!r} of the grid)")
    return keys | {first: key}


def _axes(kind: ModuleType, keys: dict[str, Key]) -> dict[str, Key]:
    """The axes that the grid of a kind may have: lists of what is allowed at the key that an axis replaces."""
    flat = KEYS | keys
    sections = (*kind.OPTIONS, "loss_options")
    flat |= {f"{section}.{name}": key for section in sections for name, key in keys[section].type.items()}
    no_steps = [axis for axis in STEP_AXES if axis not in getattr(kind, "STEPS", ())]
    found = {name: flat.get(axis.of or name) for name, axis in AXES.items() if name not in no_steps}
    required = [name for name, axis in AXES.items() if not axis.of and name not in STEP_AXES]
    return {
        name: key._replace(type=GenericAlias(tuple, (key.type, ...)), required=name in required)
        for name, key in found.items()
        if key
    }


def mistakes_of_content(block: Mapping[str, Any]) -> Iterator[str]:
    """Mistakes in a block of the right types, each with its key below the block; files of targets are read."""
    kind, grid = kind_of(block["kind"]), block["grid"]
    yield from checks.at_most("grid.rank", grid["rank"], block["dimension"], "dimension")
    steps = getattr(kind, "STEPS", ())
    if steps and len([axis for axis in steps if axis in grid]) != 1:
        yield f"grid: kind {block['kind']!r} needs one of the axes {', '.join(steps)}"
    if block["seeds"] % block["seeds_per_job"]:  # else adding seeds would recompute the last block
        yield f"seeds: {block['seeds']} must be a multiple of seeds_per_job, {block['seeds_per_job']}"
    parts = math.prod(map(len, grid.values())) * block["seeds"] // block["seeds_per_job"]
    if parts > _MOST_PARTS:
        yield f"grid: {parts:,} parts, cells times blocks of seeds, are more than {_MOST_PARTS:,}; raise seeds_per_job"
    yield from checks.options_of_losses(block)
    if "initialization" in kind.OPTIONS:
        yield from checks.starts(block)
    yield from _target(block, kind)
    yield from kind.check(block) if hasattr(kind, "check") else ()


def _target(block: Mapping[str, Any], kind: ModuleType) -> Iterator[str]:
    """Mistakes in the target of an experiment; files are read."""
    target, name = block["target"], block["kind"]
    own = getattr(kind, "SPECTRUM", None)  # of a kind that draws its own targets
    sources = getattr(kind, "SOURCES", () if own else ONE)
    for source in (source for source in SOURCES if source in target and source not in sources):
        yield f"target.{source}: kind {name!r} has no such target; allowed: {', '.join([*sources, 'drawn ones'])}"
    options = options_of(target)
    for key in options if not target.keys() & {"covariance", "samples"} else ():
        yield f"target.{key}: it says how a file is read; it must stand beside its key, covariance or samples"
    if is_drawn(target):
        for key in (key for key in ("spectrum", "mode") if key not in target):
            others = f" (or one of {', '.join(sources)})" if sources else ""
            yield f"target: the key {key!r} is missing{others}"
        spectra = (own,) if own else SPECTRA
        if target["spectrum"] not in spectra:
            yield f"target.spectrum: kind {name!r} needs {' or '.join(spectra)}, not {target['spectrum']!r}"
        return
    if len(target) > 1 + len(options):
        yield f"target: one of the keys {', '.join(SOURCES)} describes a target completely; leave the other keys out"
    if block["grid"]["smin"] != [-1]:
        yield "grid.smin: a target that is not drawn is taken as it is: smin must be [-1]"
    for file in files_of(target):
        yield from paths.mistakes("target", file)
    try:
        if "barycenter" in target:
            read_covariances(target, block["dimension"])
        else:
            yield from _rank_of_target(block, kind)
    except (ValueError, OSError) as error:
        yield f"target: {error}"


def _rank_of_target(block: Mapping[str, Any], kind: ModuleType) -> Iterator[str]:
    """Ranks that exceed what a target of low rank allows, such as one from fewer samples than dimensions."""
    ranks = block["grid"]["rank"]
    found = target_rank(block["target"], block["dimension"], max(ranks) + 1)
    if found == 0:
        yield "target: its covariance is zero: there is nothing to learn"
    yield from kind.check_rank_of_target(block, found) if hasattr(kind, "check_rank_of_target") else ()
    if any(LOSSES[name].has_epsilon for name in checks.values(block, "loss_name")):
        yield from checks.at_most("grid.rank", ranks, found, "rank of the target")  # else ε is limited to λ_k = 0
