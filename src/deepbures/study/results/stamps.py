"""Stamps: files that tell Snakemake by their date whether results are up to date, which the results' content decides.

A stamp is an input of the rule that makes some files. It is dated before them where they say that they were made from
what is wanted, else now: then an input is newer, whatever happened to dates, records and other runs.
"""

import os
import re
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from ..grid.target import checksum
from .atomic import digest_of, replacing

_SECOND = 10**9
#: The mark by which a file states its origin.
_MARK = re.compile(rb"made from [0-9a-f]{16}")
#: To be put into a file that `sign` is to complete.
UNSIGNED = "made from 0000000000000000"


def date(stamp: Path, wanted: str, files: Iterable[str | Path], as_wanted: Callable[[], bool]) -> None:
    """Date a stamp by whether files are what is wanted; files dated in the future are dated now.

    Parameters
    ----------
    stamp
        The stamp.
    wanted
        Digest of everything that decides what the files are.
    files
        Where one is missing, it is made anyway: then the stamp is only dated when another digest is wanted.
    as_wanted
        Whether the files, all of which exist, are what is wanted.
    """
    now = time.time_ns()
    dates = [_dated(Path(file), now) for file in files]
    said = stamp.read_text(encoding="utf-8") if stamp.exists() else ""
    missing = None in dates
    if not missing and not as_wanted():
        _write(stamp, f"{wanted} {now}")  # never the same: Snakemake takes an input of the same checksum for unchanged
        return
    if said.partition(" ")[0] != wanted:
        _write(stamp, wanted)
    if not missing:
        before = min(filter(None, dates)) - _SECOND
        os.utime(stamp, ns=(before, before))


def _dated(file: Path, now: int) -> int | None:
    """The date of a file in nanoseconds, at most now; None if there is none."""
    try:
        found = file.stat().st_mtime_ns
        if found > now:
            os.utime(file, ns=(now, now))
    except FileNotFoundError:
        return None
    return min(found, now)


def _write(stamp: Path, text: str) -> None:
    stamp.parent.mkdir(parents=True, exist_ok=True)
    stamp.write_text(text, encoding="utf-8")


def sign(file: str | Path, made_from: str, others: Sequence[str | Path]) -> None:
    """Replace `UNSIGNED` in a file by a digest of what it and others were made from, and of their contents."""
    content = Path(file).read_bytes()
    with replacing(file) as temporary:
        temporary.write_bytes(_MARK.sub(_mark(content, made_from, others), content))


def is_signed(file: str | Path, made_from: str, others: Sequence[str | Path]) -> bool:
    """Whether a file states that it and the others were made from `made_from`, and all are unchanged since then."""
    content = Path(file).read_bytes()
    return _mark(content, made_from, others) in content


def _mark(content: bytes, made_from: str, others: Sequence[str | Path]) -> bytes:
    own = _MARK.sub(UNSIGNED.encode(), content).decode(errors="replace")
    return f"made from {digest_of([made_from, own, *map(checksum, others)])}".encode()
