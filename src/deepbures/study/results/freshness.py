"""Whether result files are what the configuration asks for, judged by their own content, not by dates or records."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

from .atomic import checksum, replacing
from .parquet import read_metadata


def differs(path: str | Path, expected: Mapping[str, Any]) -> bool:
    """Whether an existing aggregate says that it came from something else.

    Parameters
    ----------
    path
        File of `aggregate.collect`; a missing one does not differ.
    expected
        What its metadata must contain (it may contain more): digests of configuration and code.
    """
    try:
        found = read_metadata(path)
    except FileNotFoundError:
        return False
    except ValueError:  # broken, or of another program
        return True
    return any(found.get(key) != value for key, value in expected.items())


def lists_other_cells(path: str | Path, keys: Collection[str]) -> bool:
    """Whether there is a list of a job's cells, and it is not that of these keys (`store.key_of`)."""
    try:
        listed = json.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return False
    except ValueError:
        return True
    return not isinstance(listed, dict) or set(listed) != set(keys)


def record(path: str | Path, made_from: str, files: Iterable[str | Path]) -> None:
    """Record what files that cannot say so themselves were made from, with their checksums.

    Parameters
    ----------
    path
        The record, a JSON file.
    made_from
        Digest of everything that decides their content.
    files
        Figures, tables, pages.
    """
    content = {"made_from": made_from, "files": {Path(file).name: checksum(file) for file in files}}
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(content, indent=1, sort_keys=True) + "\n", encoding="utf-8")


def is_as_recorded(path: str | Path, made_from: str, files: Iterable[str | Path]) -> bool:
    """Whether the files exist, were made from this, and are unchanged since (see `record`)."""
    try:
        recorded = json.loads(Path(path).read_text(encoding="utf-8"))
        found = {"made_from": made_from, "files": {Path(file).name: checksum(file) for file in files}}
    except (OSError, ValueError):  # one of them is missing, or the record is broken
        return False
    return recorded == found
