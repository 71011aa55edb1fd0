"""Where results come from: code and versions of a cell; configuration and tables of a study."""

import platform
from collections.abc import Mapping
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

from ..grid.target import checksum
from .atomic import digest_of
from .code_digest import code_digest
from .parquet import Table

_PACKAGES = ("deepbures", "numpy", "scipy", "pyarrow")
#: Keys of what `of_code` returns.
NAMES = ("code", "python", *_PACKAGES)


def of_code(*roots: str) -> dict[str, str]:
    """Digest of the code and versions that a result depends on; `roots` are the modules that computed it."""
    return {"code": code_digest(*roots), "python": platform.python_version(), **_versions()}


def check_code(planned: str, *roots: str) -> None:
    """Check that the code is that with which the study was planned: else results would be recorded as made by it.

    Raises
    ------
    ValueError
        If it was changed since then.
    """
    if code_digest(*roots) != planned:
        raise ValueError("the code was changed after this run was planned: run again")


@cache  # reading them from the disk takes as long as a flow, and they do not change within a process
def _versions() -> dict[str, str]:
    return {name: version(name) for name in _PACKAGES}


def of_study(configuration: Mapping[str, Any], aggregates: Mapping[str, str | Path]) -> dict[str, Any]:
    """Configuration with its digest, and for each aggregate its checksum and metadata.

    Parameters
    ----------
    configuration
        The checked configuration, as the study ran with it.
    aggregates
        Files that `aggregate.collect` wrote, by the path under which they are listed.

    Returns
    -------
    dict
        `configuration`, `configuration_digest`, and `aggregates`: by that path, `sha256` and the metadata (experiment,
        digests of its configuration and code, seeds, versions). The same study gives the same content: no
        times, hosts or absolute paths.
    """
    return {
        "configuration": dict(configuration),
        "configuration_digest": digest_of(configuration),
        "aggregates": {
            name: {"sha256": checksum(path), **Table(path).metadata} for name, path in sorted(aggregates.items())
        },
    }


#: Columns of `table`; the last one holds the rest, the versions.
_COLUMNS = ("experiment", "parts", "seeds", "study_seed", "configuration", "code", "collected_by", "sha256")


def table(provenance: Mapping[str, Any]) -> list[dict[str, Any]]:
    """One row for each aggregate in the result of `of_study`: checksum, digests, seeds, versions."""
    rows = []
    for path, entry in provenance["aggregates"].items():
        versions = ", ".join(f"{name} {value}" for name, value in entry.items() if name not in _COLUMNS)
        rows.append({"aggregate": path, **{name: entry.get(name, "") for name in _COLUMNS}, "versions": versions})
    return rows
