"""Whether result files are what the configuration asks for, by what they say themselves: no date, no record of a run."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from .store import part_key, read_metadata


def is_outdated(path: str | Path, expected: Mapping[str, Any]) -> bool:
    """Whether a file that is there carries other metadata than expected, or none.

    Parameters
    ----------
    path
        Result file of `store` or `aggregate`; one that is not there is not outdated.
    expected
        What its metadata must say, among other things: digests of configuration and code.
    """
    found = _metadata(path)
    return found is not None and any(found.get(key) != value for key, value in expected.items())


def lacks_parts(path: str | Path, keys: Collection[str], code: str, target: str | None) -> bool:
    """Whether a job's file that is there lacks a part, or holds one that other code or another target led to.

    Parameters
    ----------
    path
        File of `store.write_parts`.
    keys
        The parts, by `store.part_key`.
    code
        Digest of the code that computes them.
    target
        Checksum of the target's file, if there is one.
    """
    found = _metadata(path)
    if found is None:
        return False
    held = {
        part_key(part["cell"], part["seeds"]) for part in found.get("parts") or () if part.get("target") == target
    }
    return found.get("code") != code or not held.issuperset(keys)


def _metadata(path: str | Path) -> dict[str, Any] | None:
    """Metadata of a file, {} if it carries none that can be read; None if there is no file."""
    try:
        return read_metadata(path)
    except FileNotFoundError:
        return None
    except ValueError:
        return {}
