"""Paths in a configuration, which go through Snakemake and a shell: neither may replace anything in them."""

import re
from collections.abc import Iterator

#: Characters allowed in the path of a folder that is created, and of a file that is read.
FOLDER, FILE = re.compile(r"[\w./@+=,-]"), re.compile(r"[\w./@+=,:%() -]")


def mistakes(where: str, path: str, allowed: re.Pattern) -> Iterator[str]:
    """What is wrong with the path of a folder or file, one line each."""
    if not path:
        yield f"{where}: '' must be a path"
    elif path.startswith("~") or "$" in path:
        yield f"{where}: {path!r}: ~ and $ are not replaced; write the path itself"
    elif path.startswith("-"):
        yield f"{where}: {path!r} must not begin with -"
    elif strange := allowed.sub("", path):
        yield f"{where}: {path!r} holds {strange[0]!r}, which has a meaning for Snakemake or a shell; rename it"
