"""Checks of blocks of the configuration that several kinds of experiment share, beyond the types of the keys.

Checks yield a line for each mistake: the key below the block, what it is, what is allowed.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from ...losses.registry import LOSSES
from ...model.starts import NEAR_A_POINT
from ..grid.axes import AXES, value_of


def values(block: Mapping[str, Any], axis: str) -> list[Any]:
    """The values of an axis in the grid, or of the key that the axis replaces; none if neither is given."""
    if axis in block["grid"]:
        return list(block["grid"][axis])
    value = value_of(block, AXES[axis].of)
    return [] if value is None else [value]


def place(block: Mapping[str, Any], axis: str) -> str:
    """Path of what `values` returns: the axis, or the key that it replaces."""
    return f"grid.{axis}" if axis in block["grid"] else AXES[axis].of or f"grid.{axis}"


def only(block: Mapping[str, Any], **needed: float) -> Iterator[str]:
    """Axes of the grid for which the kind needs one certain value."""
    for axis, value in needed.items():
        for other in (other for other in values(block, axis) if other != value):
            yield f"grid.{axis}: kind {block['kind']!r} needs {value}, not {other}"


def bures_distance(block: Mapping[str, Any], who: str = "") -> Iterator[str]:
    """Losses that are not a squared Bures distance, which the kind or `who` needs."""
    known = " or ".join(name for name, loss in LOSSES.items() if loss.is_bures_distance)
    for name in (name for name in values(block, "loss_name") if not LOSSES[name].is_bures_distance):
        where, who = place(block, "loss_name"), who or f"kind {block['kind']!r}"
        yield f"{where}: {who} needs {known}, not {name!r}"


def one_layer(block: Mapping[str, Any]) -> Iterator[str]:
    """The Bures-Wasserstein loss, one layer, and targets and ε that the kind sets itself."""
    yield from bures_distance(block)
    yield from only(block, epsilon=0, smin=-1, depth=1)


def options_of_losses(block: Mapping[str, Any]) -> Iterator[str]:
    """Options that a loss needs and that are not given."""
    given = {*block.get("loss_options", {}), *(AXES[axis].of.removeprefix("loss_options.") for axis in block["grid"])}
    for name in values(block, "loss_name"):
        for option in (option for option in LOSSES[name].options if option not in given):
            yield f"loss_options: the key {option!r} is missing: the loss {name!r} needs it"


def at_most(where: str, numbers: list[int], largest: int, what: str) -> Iterator[str]:
    """The numbers of a list that exceed the largest one allowed, in one line."""
    if excess := [str(number) for number in numbers if number > largest]:
        yield f"{where}: {', '.join(excess)} must be at most the {what}, {largest}"


def balanced(block: Mapping[str, Any]) -> Iterator[str]:
    """A flow starts from balanced layers, whose hidden width does not matter."""
    if "none" in values(block, "balance"):
        yield f"{place(block, 'balance')}: a flow needs a balanced start, not 'none'"
    if any(values(block, "imbalance")):
        yield f"{place(block, 'imbalance')}: a flow needs balanced layers; use the kind 'layers' or 'descent'"
    if values(block, "width"):
        yield f"{place(block, 'width')}: a flow from balanced layers does not depend on their width; leave it out"


def widths(block: Mapping[str, Any]) -> Iterator[str]:
    """Hidden widths below the rank, and networks without a hidden layer that could be wider than the bottleneck."""
    given, ranks = values(block, "width"), block["grid"]["rank"]
    for width in (width for width in given if width < max(ranks)):
        yield f"{place(block, 'width')}: {width} must be at least the rank, {max(ranks)}"
    needed = 2 if min(ranks) == block["dimension"] else 3
    for depth in (depth for depth in block["grid"]["depth"] if given and depth < needed):
        yield f"grid.depth: a width needs N ≥ {needed} ({'k = n' if needed == 2 else 'k < n'}), not {depth}"


def starts(block: Mapping[str, Any]) -> Iterator[str]:
    """Kinds of starts that do not fit the other keys of `initialization`, the loss or the ranks."""
    kinds, scales = values(block, "initialization"), values(block, "initial_scale")
    drawn = [kind for kind in kinds if kind not in NEAR_A_POINT]
    where = place(block, "initial_scale")
    for kind in (kind for kind in NEAR_A_POINT if kind in kinds and kind != "close"):
        if not scales:
            yield f"initialization: the key 'scale' is missing: the kind {kind!r} needs it"
        for scale in (scale for scale in scales if scale <= 0):
            yield f"{where}: {scale} must be more than 0 for the kind {kind!r}"
    for scale in (scale for scale in scales if scale == 0 or scale <= -1):
        yield f"{where}: {scale} must be more than -1 and not 0"
    if scales and drawn:
        yield f"{where}: the kind {drawn[0]!r} has no scale"
    if "close" in kinds:
        yield from bures_distance(block, "a start of the kind 'close'")
    balances = values(block, "balance")
    if drawn and not balances:
        yield f"initialization: the key 'balance' is missing: the kind {drawn[0]!r} needs it"
    if balances and len(drawn) < len(kinds):
        yield f"{place(block, 'balance')}: the kinds {', '.join(map(repr, NEAR_A_POINT))} are always balanced"
    yield from widths(block)
    end_rank, least = block["initialization"].get("end_rank", 0), min(block["grid"]["rank"])
    if end_rank > least:
        yield f"initialization.end_rank: {end_rank} must be at most the rank, {least}"
