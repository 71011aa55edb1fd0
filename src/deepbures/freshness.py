"""Whether result files are what the configuration asks for, by what they say themselves, not by dates or records."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

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
