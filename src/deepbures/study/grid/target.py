"""Which target a block of the configuration names, and the files that it is read from."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

#: Keys of a single target that is not drawn: file of a covariance (n, n), or samples (m, n), one per row; data set.
ONE = ("covariance", "samples", "dataset")
#: Also that of several, whose barycenter is sought.
KINDS = (*ONE, "barycenter")
#: Keys of a target, or of its `barycenter`, that name one or more files.
FILE_KEYS = ("covariance", "covariances", "samples", "groups")


def is_drawn(target: Mapping[str, Any]) -> bool:
    """Whether the targets of a configuration are drawn, one for each seed."""
    return not any(kind in target for kind in KINDS)


def files_of(target: Mapping[str, Any]) -> list[str]:
    """The files that a target of a configuration comes from: none where it is drawn, or comes from a data set."""
    several = target.get("barycenter", target)
    files: list[str] = []
    for key in FILE_KEYS:
        found = several.get(key, [])
        files += [found] if isinstance(found, str) else found
    return files


def stream_of(dimension: int, target: Mapping[str, Any]) -> dict[str, Any]:
    """A name, the same for experiments whose `target`s are the same draws, and whether each seed has one (`drawn`)."""
    if is_drawn(target):
        return {"target": f"{dimension} {target['spectrum']}", "drawn": True}
    return {"target": ", ".join(files_of(target)) or target["dataset"], "drawn": False}
