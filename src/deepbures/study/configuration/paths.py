"""Paths in a configuration, which go through Snakemake and a shell: neither may replace anything in them."""

import os
import re
from collections.abc import Iterator
from pathlib import Path

#: Characters allowed in the path of a folder that is created, and of a file that is read.
_FOLDER, _FILE = re.compile(r"[\w./@+=, -]"), re.compile(r"[\w./@+=,:%() -]")
#: Folders of a study that hold something else than its results and figures.
_OTHERS = ("benchmarks", "config", "docs", "logs", "profiles", "src", "tests", "workflow")
#: Largest number of bytes of a name on common file systems.
_LONGEST = 255


def mistakes(where: str, path: str, allowed: re.Pattern = _FILE) -> Iterator[str]:
    """What is wrong with the path of a file, one line each."""
    if not path or path != path.strip():
        yield f"{where}: {path!r} must be a path, without white space at its ends"
    elif path.startswith("~") or "$" in path:
        yield f"{where}: {path!r}: ~ and $ are not replaced; write the path itself"
    elif path.startswith("-"):
        yield f"{where}: {path!r} must not begin with -"
    elif strange := allowed.sub("", path):
        yield f"{where}: {path!r} holds {strange[0]!r}, which has a meaning for Snakemake or a shell; rename it"
    elif any(len(part.encode()) > _LONGEST for part in path.split("/")):
        yield f"{where}: '{path[:40]}…' holds a name of more than {_LONGEST} bytes"


def mistakes_of_folder(where: str, path: str) -> Iterator[str]:
    """What is wrong with the path of a folder that is written to, seen from that of the study."""
    yield from mistakes(where, path, _FOLDER)
    parts = Path(os.path.relpath(path)).parts
    if set(parts) <= {".."}:
        yield f"{where}: {path!r} holds the study itself; name a folder of its own, such as results/mine"
    elif parts[0] in _OTHERS or (parts[0].startswith(".") and parts[0] != ".."):
        yield f"{where}: {path!r} would write into {parts[0]}, which holds something else; such as results/mine is free"
    elif parts[0] == ".." and not os.path.isabs(path):
        yield f"{where}: {path!r} is outside of the study; if this is meant, write {os.path.abspath(path)!r}"
