"""The target that a block of the configuration describes, and the files that it is read from."""

import functools
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ...files.datasets import DATASETS
from ...files.matrix_files import read_matrix
from ...files.sample_files import streamed_file
from ...files.targets import options_of
from ...files.text_tables import TextOptions
from ...linalg.psd import Array, soft_threshold
from ...model.targets import MODES

#: Keys of a single target that is not drawn: file of a covariance (n, n), or samples (m, n), one per row; data set.
ONE = ("covariance", "samples", "dataset")
#: All keys of targets that are not drawn; `barycenter`: several covariances, whose barycenter is the target.
SOURCES = (*ONE, "barycenter")
#: Keys of a target, or of its `barycenter`, that name one or more files.
FILE_KEYS = ("covariance", "covariances", "samples", "groups")


@dataclass(frozen=True)
class Covariances(TextOptions):
    """Keys of `target.barycenter`, see `files.targets.read_covariances`, and how its files are read."""

    covariances: tuple[str, ...] | None = None
    samples: tuple[str, ...] | None = None
    groups: str | None = None
    weights: tuple[float, ...] | None = field(default=None, metadata={"exclusiveMinimum": 0, "uniqueItems": False})


@dataclass(frozen=True)
class Target(TextOptions):
    """Keys of `target`: `spectrum` and `mode` of targets that are drawn, or one of `SOURCES`, and how text is read."""

    covariance: str | None = None
    samples: str | None = None
    dataset: str | None = field(default=None, metadata={"enum": DATASETS})
    barycenter: Covariances | None = None
    spectrum: str | None = None
    mode: str | None = field(default=None, metadata={"enum": MODES})


def is_drawn(target: Mapping[str, Any]) -> bool:
    """Whether targets are drawn, one for each seed."""
    return not any(source in target for source in SOURCES)


def source_of(target: Mapping[str, Any]) -> str:
    """Where a target comes from: the first of `SOURCES` among its keys, or "drawn"."""
    return next((source for source in SOURCES if source in target), "drawn")


def files_of(target: Mapping[str, Any]) -> list[str]:
    """Paths of the files that a target is read from; none for one that is drawn or comes from a data set."""
    several = target.get("barycenter", target)
    files: list[str] = []
    for key in FILE_KEYS:
        found = several.get(key, [])
        files += [found] if isinstance(found, str) else found
    return files


def with_files(target: Mapping[str, Any], places: Mapping[str, str]) -> dict[str, Any]:
    """The target with other paths of its files; paths that `places` does not hold stay."""

    def moved(value: Any) -> Any:
        return places.get(value, value) if isinstance(value, str) else [moved(item) for item in value]

    return {
        key: with_files(value, places) if isinstance(value, Mapping) else moved(value) if key in FILE_KEYS else value
        for key, value in target.items()
    }


def checksums_of(target: Mapping[str, Any]) -> list[str]:
    """SHA-256 of each existing file that a target is read from."""
    return [checksum(file) for file in files_of(target) if Path(file).exists()]


def checksum(path: str | Path) -> str:
    """SHA-256 of a file, in hexadecimal; a process reads a file once, and again if it has changed."""
    status = Path(path).stat()
    return _checksum(Path(path), (status.st_ctime_ns, status.st_size))


@functools.cache
def _checksum(path: Path, _status: tuple[int, int]) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def dimension_of(target: Mapping[str, Any]) -> int:
    """n, the number of columns of the first file that a target is read from.

    Raises
    ------
    ValueError
        In one line, if it cannot be read.
    """
    path = files_of(target)[0]
    of_samples = "samples" in target or "samples" in target.get("barycenter", {})
    options = tuple(options_of(target.get("barycenter", target)).items())
    return _dimension(path, not of_samples, options, tuple(checksums_of(target)))


@functools.cache
def _dimension(path: str, square: bool, options: tuple[tuple[str, Any], ...], _checksums: tuple[str, ...]) -> int:
    moments = None if square else streamed_file(path)
    return len(moments.covariance) if moments else read_matrix(path, square=square, **dict(options)).values.shape[1]


def stream_of(dimension: int, target: Mapping[str, Any]) -> dict[str, Any]:
    """A name that experiments with the same targets share, and whether each seed has a target of its own (`drawn`)."""
    if is_drawn(target):
        return {"target": f"{dimension} {target['spectrum']}", "drawn": True}
    options = options_of(target.get("barycenter", target)).items()
    names = [*files_of(target), *(f"{key}: {value!r}" for key, value in options)]
    return {"target": ", ".join(names) or target["dataset"], "drawn": False}


def limited_epsilon(epsilon: float, eigenvalues: Array, rank: int) -> float:
    """min(ε, λ_k), the ε of the loss on a target (docs/paper.md, section 6).

    It is λ_k exactly where the two agree to rounding, as in `psd.soft_threshold`. Directions that a model of rank k
    leaves empty need no limit (docs/paper.md, section 3).

    Parameters
    ----------
    epsilon
        As configured.
    eigenvalues : (n,)
        λ_1 ≥ … ≥ λ_n of the target.
    rank
        k. For k > n, which is refused elsewhere, λ_n is the limit.
    """
    last = min(rank, len(eigenvalues)) - 1
    return epsilon if soft_threshold(eigenvalues, epsilon)[last] > 0 else float(np.asarray(eigenvalues)[last])
