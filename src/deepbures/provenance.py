"""Provenance of a study: what its aggregates came from, and that they are still the same files."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from .store import checksum, digest_of, read_metadata


def of_study(configuration: Mapping[str, Any], aggregates: Iterable[str | Path]) -> dict[str, Any]:
    """Configuration with its digest, and for each aggregate its checksum and metadata.

    Parameters
    ----------
    configuration
        The checked configuration, as the study ran with it.
    aggregates
        Files that `aggregate.collect` wrote.

    Returns
    -------
    dict
        `configuration`, `configuration_digest`, and `aggregates`: by path, `sha256` and the metadata (experiment,
        digests of its configuration and code, seeds, versions). The same study gives the same content: no
        times, hosts or absolute paths.
    """
    return {
        "configuration": dict(configuration),
        "configuration_digest": digest_of(configuration),
        "aggregates": {
            str(path): {"sha256": checksum(path), **read_metadata(path)} for path in sorted(map(str, aggregates))
        },
    }
