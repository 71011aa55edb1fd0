"""Whether result files are what the configuration asks for, by what they say themselves, not by dates or records."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

from .files import checksum, replacing
from .parquet import read_metadata


def differs(path: str | Path, expected: Mapping[str, Any]) -> bool:
    """Whether an aggregate that is there says that it came from something else.

    Parameters
    ----------
    path
        File of `aggregate.collect`; one that is not there does not differ.
    expected
        What its metadata must say, among other things: digests of configuration and code.
    """
    try:
        found = read_metadata(path)
    except FileNotFoundError:
        return False
    except ValueError:  # broken, or of another program
        return True
    return any(found.get(key) != value for key, value in expected.items())


def lists_other_cells(path: str | Path, keys: Collection[str]) -> bool:
    """Whether the list of a job's cells that is there is not that of these keys (`store.key_of`)."""
    try:
        listed = json.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return False
    except ValueError:
        return True
    return not isinstance(listed, dict) or set(listed) != set(keys)


def record(path: str | Path, made_from: str, files: Iterable[str | Path]) -> None:
    """Write what files were made from, which cannot say it themselves, with their checksums.

    Parameters
    ----------
    path
        The record, a JSON file.
    made_from
        Digest of all that decides their content.
    files
        Figures, tables, pages.
    """
    content = {"made_from": made_from, "files": {Path(file).name: checksum(file) for file in files}}
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(content, indent=1, sort_keys=True) + "\n", encoding="utf-8")


def is_as_recorded(path: str | Path, made_from: str, files: Iterable[str | Path]) -> bool:
    """Whether files are there that were made from this, and are as they were written (see `record`)."""
    try:
        recorded = json.loads(Path(path).read_text(encoding="utf-8"))
        found = {"made_from": made_from, "files": {Path(file).name: checksum(file) for file in files}}
    except (OSError, ValueError):  # one of them is missing, or the record is broken
        return False
    return recorded == found
