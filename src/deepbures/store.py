"""Result files: Parquet with a fixed schema, written whole or not at all, carrying their provenance."""

from __future__ import annotations

import ast
import contextlib
import functools
import hashlib
import json
import os
import platform
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence, Sized
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

_PACKAGE = Path(__file__).parent


def _list_of(type_: pa.DataType) -> pa.ListType:
    """List type as Parquet gives it back: with its own default names a table that was read would be another one."""
    return pa.list_(pa.field("element", type_))


_VECTOR = _list_of(pa.float64())

#: One row a run. Symbols are those of `theory.Constants`; lists run over eigenvalues, largest first. Ours beside them:
#: σ_k(W(0)), the loss at the end from its definition alone (`value_final`), the rate of the global theorem (NaN where
#: it has none), and whether `bound_rate` is proved for the run.
RUNS = pa.schema(
    [
        ("seed", pa.int32()),
        ("epsilon_effective", pa.float64()),
        ("lambda_max", pa.float64()),
        ("lambda_min", pa.float64()),
        ("target_trace", pa.float64()),
        ("start_scale", pa.float64()),
        ("start_draws", pa.int32()),
        ("loss_initial", pa.float64()),
        ("loss_minimum", pa.float64()),
        ("value_final", pa.float64()),
        ("excess_initial", pa.float64()),
        ("margin", pa.float64()),
        ("C_0", pa.float64()),
        ("K", pa.float64()),
        ("M", pa.float64()),
        ("log10_Delta", pa.float64()),
        ("log10_eta_1", pa.float64()),
        ("log10_eta_2", pa.float64()),
        ("log10_eta_3", pa.float64()),
        ("bound_rate", pa.float64()),
        ("descent_rate", pa.float64()),
        ("sharp_rate", pa.float64()),
        ("least_singular_value_initial", pa.float64()),
        ("global_rate", pa.float64()),
        ("bound_is_proved", pa.int8()),
        ("stop_reason", pa.string()),
        ("time_final", pa.float64()),
        ("steps", pa.int32()),
        ("evaluations", pa.int32()),
        ("loss_final", pa.float64()),
        ("excess_final", pa.float64()),
        ("energy_levels", _VECTOR),
        ("eigenvalues_target", _VECTOR),
        ("eigenvalues_initial", _VECTOR),
        ("eigenvalues_final", _VECTOR),
        ("alignment", _VECTOR),
    ]
)

#: Of flows: factors F(0), F(T) of the covariance, n × k row by row, empty unless they are asked for; the share of the
#: excess loss that is left in its slowest directions at the end; and of aligned starts (else empty) the times at which
#: the eigenvalues of S reach half of their limits, measured and in closed form.
FLOW_RUNS = pa.unify_schemas(
    [
        RUNS,
        pa.schema(
            [
                ("factor_initial", _VECTOR),
                ("factor_final", _VECTOR),
                ("slowest_share", pa.float64()),
                ("half_times", _VECTOR),
                ("half_times_predicted", _VECTOR),
            ]
        ),
    ]
)

#: One row a run and sample time. `squared_bures_logged` is the authors' B²(S + εI, S*); `least_singular_value` is
#: σ_k(W), 0 where W has a lower rank than k.
TRAJECTORIES = pa.schema(
    [
        ("seed", pa.int32()),
        ("time", pa.float64()),
        ("loss", pa.float64()),
        ("excess", pa.float64()),
        ("gradient_norm", pa.float64()),
        ("covariance_distance", pa.float64()),
        ("squared_bures", pa.float64()),
        ("squared_bures_logged", pa.float64()),
        ("numerical_rank", pa.int16()),
        ("effective_rank", pa.float64()),
        ("least_singular_value", pa.float64()),
        ("eigenvalue_distances", _list_of(pa.float32())),
    ]
)

#: Of descent: η, 2/λ_max, the final contraction of L − L* a step by theory, the share of L that each step is proved to
#: take (one layer, else NaN), balancedness at the first and last
#: record, distance from the flow, and the covariances of the coordinates along Ω_1 and Ω_2.
DESCENT_RUNS = pa.unify_schemas(
    [
        RUNS,
        pa.schema(
            [
                ("eta", pa.float64()),
                ("eta_stable", pa.float64()),
                ("contraction", pa.float64()),
                ("descent_global_rate", pa.float64()),
                ("balancedness_initial", pa.float64()),
                ("balancedness_final", pa.float64()),
                ("flow_error", pa.float64()),
                ("plane_initial", _VECTOR),
                ("plane_final", _VECTOR),
            ]
        ),
    ]
)
DESCENT_TRAJECTORIES = pa.unify_schemas(
    [TRAJECTORIES, pa.schema([("step", pa.int64()), ("balancedness", pa.float64())])]
)


def _schema(**types: pa.DataType) -> pa.Schema:
    return pa.schema([("seed", pa.int32()), *types.items()])


_FLOAT, _COUNT, _NAME, _INDICES = pa.float64(), pa.int32(), pa.string(), _list_of(pa.int32())
#: Every critical point of the landscape's tables: J (from 0), its position by loss, and L(W_J).
_POINT = {"point": _COUNT, "kept": _INDICES, "order": _COUNT, "value": _FLOAT}

#: Hessian of the deep loss at a critical point (`value_error` in units of Σ_j λ_j^{d/2}, d the degree of the loss,
#: `gradient_norm` of W for Σ0/λ_1): its extreme eigenvalues, the numbers of negative, zero and positive
#: ones (−1 where only the extreme ones were found), and the closed form they are compared with (`rates`).
SPECTRA = _schema(
    **_POINT,
    value_error=_FLOAT,
    gradient_norm=_FLOAT,
    parameters=_COUNT,
    smallest=_FLOAT,
    largest=_FLOAT,
    negative=_COUNT,
    zero=_COUNT,
    positive=_COUNT,
    relative_condition=_FLOAT,
    absolute_condition=_FLOAT,
    escapes=_COUNT,
    escape_rate=_FLOAT,
    predicted_zero=_COUNT,
    rates=_VECTOR,
    spectrum_error=_FLOAT,
)
#: Extreme eigenvalues of the Hessian where `vanishing` singular values of W are `sigma`; `predicted`: the smallest by
#: the constant of the blow-up (ε = 0, N = 1, else NaN); `level`: the smallest at σ = 0 (ε > 0, N = 1, else NaN).
CURVATURES = _schema(
    dimension=_COUNT,
    vanishing=_COUNT,
    sigma=_FLOAT,
    smallest=_FLOAT,
    largest=_FLOAT,
    predicted=_FLOAT,
    level=_FLOAT,
    level_of_empty_columns=_FLOAT,
)
#: Loss between critical points `pair` and `pair` + 1.
PATHS = _schema(pair=_COUNT, t=_FLOAT, loss_between_matrices=_FLOAT, loss_between_layers=_FLOAT)
#: Loss along a line through all parameters, and its second-order models.
LINES = _schema(
    place=_NAME,
    line=_NAME,
    distance=_FLOAT,
    loss=_FLOAT,
    model=_FLOAT,
    numerical_model=_FLOAT,
    curvature=_FLOAT,
    numerical_curvature=_FLOAT,
)
#: A flow that starts next to a critical point: predicted and measured rate of the fastest escape, how long it stays.
ESCAPES = _schema(
    **_POINT,
    loss_minimum=_FLOAT,
    perturbation=_FLOAT,
    escapes=_COUNT,
    escape_rate=_FLOAT,
    measured_rate=_FLOAT,
    plateau_time=_FLOAT,
    rates=_VECTOR,
)
#: Where a search for critical points ended, and the enumerated one (`kept`) that is nearest. `gradient_norm` and
#: `distance` are those of Σ0/λ_1; `evaluations` is −1 at a kink; `negative` −1 where it is not counted: below rank k,
#: and where an eigenvalue is too small; `enumerated…` and `reached…` count the points of a seed, of all ranks and of
#: rank k.
SEARCHES = _schema(
    start=_COUNT,
    start_rank=_COUNT,
    evaluations=_COUNT,
    enumerated=_COUNT,
    enumerated_at_rank=_COUNT,
    reached=_COUNT,
    reached_at_rank=_COUNT,
    gradient_norm=_FLOAT,
    critical=pa.int8(),
    matched=pa.int8(),
    kept=_INDICES,
    distance=_FLOAT,
    loss=_FLOAT,
    loss_minimum=_FLOAT,
    value=_FLOAT,
    negative=_COUNT,
    escapes=_COUNT,
)
#: Losses of matrices of rank ≤ k that are not critical; `excess`: (L − L*) / Σ_j λ_j^{d/2}, d the degree of the loss.
TRIALS = _schema(family=_NAME, size=_FLOAT, loss=_FLOAT, loss_minimum=_FLOAT, excess=_FLOAT)
#: Loss on a plane, its critical points, and flows on it.
SURFACE = _schema(x=_FLOAT, y=_FLOAT, loss=_FLOAT)
POINTS = _schema(rank_of_point=_COUNT, x=_FLOAT, y=_FLOAT, loss=_FLOAT, escapes=_COUNT)
FLOWS = _schema(start=_COUNT, time=_FLOAT, x=_FLOAT, y=_FLOAT, loss=_FLOAT)

#: Covariances Σ̂ of m samples: B²(Σ̂, Σ0) of each draw, and its expectation to first order in 1/m.
SAMPLING = _schema(samples=_COUNT, draw=_COUNT, squared_bures=_FLOAT, expected=_FLOAT)
#: Training on one Σ̂: the loss that is trained, and the same loss against Σ0, which is not seen; their floors.
TRAINING = _schema(
    samples=_COUNT, time=_FLOAT, loss=_FLOAT, population_loss=_FLOAT, loss_minimum=_FLOAT, population_minimum=_FLOAT
)

#: Tables of an experiment, by its kind.
SCHEMAS: dict[str, dict[str, pa.Schema]] = {
    "flow": {"runs": FLOW_RUNS, "trajectories": TRAJECTORIES},
    "descent": {"runs": DESCENT_RUNS, "trajectories": DESCENT_TRAJECTORIES},
    "finite_sample": {"sampling": SAMPLING, "training": TRAINING},
    "hessian": {"spectra": SPECTRA},
    "blow_up": {"curvatures": CURVATURES},
    "paths": {"paths": PATHS},
    "expansion": {"lines": LINES},
    "escape": {"escapes": ESCAPES},
    "surface": {"surface": SURFACE, "points": POINTS, "flows": FLOWS},
    "critical_search": {"searches": SEARCHES, "trials": TRIALS},
}


@contextlib.contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Temporary file in the folder of `path` that takes its place when the block ends well, and goes away if not."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        with temporary.open("rb") as written:
            os.fsync(written.fileno())
        temporary.chmod(0o666 & ~_umask())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def part_key(settings: Mapping[str, Any], seeds: str) -> str:
    """What a part of a result file, one cell for one block of seeds, is known by."""
    return digest_of({"cell": settings, "seeds": seeds})


def write_parts(path: str | os.PathLike[str], tables: Sequence[pa.Table]) -> None:
    """Write tables of `table_of` as one Parquet file, atomically: a row group a part.

    Raises
    ------
    ValueError
        If the parts differ in their metadata besides `parts`: they were not computed by the same code.
    """
    *common, last = [_metadata_of(table.schema) for table in tables]
    if any({**metadata, "parts": []} != {**last, "parts": []} for metadata in common):
        raise ValueError(f"the parts of {path} were computed by different code")
    whole = {**last, "parts": [part for metadata in [*common, last] for part in metadata["parts"]]}
    schema = tables[0].schema.with_metadata(_encoded(whole))
    writing = {"compression": "zstd", "write_page_checksum": True}
    with replacing(path) as temporary, pq.ParquetWriter(temporary, schema, **writing) as writer:
        for table in tables:
            writer.write_table(table.replace_schema_metadata(schema.metadata), row_group_size=max(1, len(table)))


class PartsFile:
    """A result file of `write_parts`, read part by part.

    Attributes
    ----------
    metadata
        See `read_metadata`.
    keys
        Its parts, by `part_key`, with their position in the file.

    Raises
    ------
    ValueError
        If the file was not written by this package, or is broken.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = path
        with _readable(path):
            self._file = pq.ParquetFile(path, page_checksum_verification=True)
        self.metadata = _metadata_of(self._file.schema_arrow, path)
        held = self.metadata.get("parts")
        if not isinstance(held, list):
            raise ValueError(f"{path} holds no parts: it is no file of a job")
        self.keys = {part_key(part["cell"], part["seeds"]): i for i, part in enumerate(held)}
        if len(held) != self._file.num_row_groups:
            raise ValueError(f"{path} holds {self._file.num_row_groups} parts, and its metadata {len(held)}")

    def read(self, key: str) -> pa.Table:
        """Table of one part, its metadata naming that part alone."""
        if key not in self.keys:
            raise ValueError(f"{self.path} does not hold the cell that is asked for: it is of another configuration")
        position = self.keys[key]
        with _readable(self.path):
            table = self._file.read_row_group(position)
        metadata = {**self.metadata, "parts": [self.metadata["parts"][position]]}
        return table.replace_schema_metadata(_encoded(metadata))


@contextlib.contextmanager
def _readable(path: str | os.PathLike[str]) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError:
        raise
    except (pa.ArrowInvalid, OSError) as error:
        raise ValueError(f"{path} is no readable Parquet file: {str(error).splitlines()[0]}") from None


def _metadata_of(schema: pa.Schema, path: str | os.PathLike[str] = "the table") -> dict[str, Any]:
    metadata = schema.metadata or {}
    if b"deepbures" not in metadata:
        raise ValueError(f"{path} carries no deepbures metadata: it was not written by this package")
    try:
        return json.loads(metadata[b"deepbures"])
    except ValueError:
        raise ValueError(f"{path} carries damaged deepbures metadata") from None


def _encoded(metadata: Mapping[str, Any]) -> dict[str, str]:
    return {"deepbures": json.dumps(metadata, sort_keys=True)}


def table_of(columns: Mapping[str, Any], schema: pa.Schema, metadata: Mapping[str, Any]) -> pa.Table:
    """Table of the given columns (arrays or lists), with JSON metadata under the key `deepbures`.

    Raises
    ------
    KeyError
        If a column of the schema is missing.
    ValueError
        If a value cannot become the type of its column.
    """
    arrays = [_array(columns[field.name], field.type) for field in schema]
    return pa.Table.from_arrays(arrays, schema=schema.with_metadata(_encoded(metadata)))


def _array(values: Any, type_: pa.DataType) -> pa.Array:
    """Arrow array without nulls, made from buffers: `pyarrow.array` imports pandas, half a second a job."""
    if pa.types.is_string(type_):
        encoded = [str(value).encode() for value in values]
        buffers = [None, pa.py_buffer(_offsets(encoded)), pa.py_buffer(b"".join(encoded))]
        return pa.Array.from_buffers(type_, len(encoded), buffers)
    if pa.types.is_list(type_):
        offsets = _array(_offsets(values), pa.int32())
        items = np.concatenate([np.asarray(value) for value in values])
        return pa.ListArray.from_arrays(offsets, _array(items, type_.value_type), type=type_)
    given = np.asarray(values)
    with np.errstate(invalid="ignore"):
        array = np.ascontiguousarray(given.astype(type_.to_pandas_dtype()))
    if pa.types.is_integer(type_) and not np.array_equal(array, given):
        raise ValueError(f"values must be of type {type_}, but {given[array != given][0]} is not")
    return pa.Array.from_buffers(type_, len(array), [None, pa.py_buffer(array)])


def _offsets(values: Iterable[Sized]) -> NDArray[np.int32]:
    return np.cumsum([0, *map(len, values)], dtype=np.int32)


def digest_of(value: Any) -> str:
    """Digest of a value that JSON can hold, whatever the order of its keys."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:16]


def checksum(path: str | Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_metadata(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Provenance of a result file.

    Raises
    ------
    ValueError
        If the file was not written by this package, or is broken.
    """
    with _readable(path):
        return _metadata_of(pq.read_schema(path), path)


def provenance(root: str) -> dict[str, str]:
    """Versions and code digest that a result depends on; `root` is the module that computed it."""
    packages = {name: version(name) for name in ("deepbures", "numpy", "scipy", "pyarrow")}
    return {"code": code_digest(root), "python": platform.python_version(), **packages}


@functools.cache
def code_digest(*roots: str) -> str:
    """Digest of modules of this package, all those they import, and the versions of NumPy and SciPy.

    Docstrings and comments are left out.

    Given to Snakemake as a parameter, it reruns what depends on an edited module and nothing else.
    """
    digest = hashlib.sha256(f"numpy {version('numpy')} scipy {version('scipy')}\n".encode())
    for name in sorted(set().union(*map(_imported, roots))):
        tree = ast.parse(_source(name).read_text(encoding="utf-8"))
        digest.update(f"{name}\n{ast.dump(_without_docstrings(tree))}\n".encode())
    return digest.hexdigest()[:16]


def _imported(root: str) -> set[str]:
    """Names of the modules in this package that `root` imports, directly or not, and its own."""
    found: set[str] = set()
    waiting = [root]
    while waiting:
        name = waiting.pop()
        if name in found:
            continue
        found.add(name)
        folder = name.split(".")
        if _source(name).name != "__init__.py":
            folder.pop()
        for node in ast.walk(ast.parse(_source(name).read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and node.level:
                base = folder[: len(folder) - (node.level - 1)]
                if node.module:
                    waiting.append(".".join([*base, node.module]))
                else:
                    waiting += [".".join([*base, alias.name]) for alias in node.names if _exists([*base, alias.name])]
    return found


def _exists(parts: list[str]) -> bool:
    return _PACKAGE.joinpath(*parts).with_suffix(".py").exists() or _PACKAGE.joinpath(*parts, "__init__.py").exists()


def _source(name: str) -> Path:
    package = _PACKAGE.joinpath(*name.split("."), "__init__.py")
    return package if package.exists() else _PACKAGE.joinpath(*name.split(".")).with_suffix(".py")


def _without_docstrings(tree: ast.Module) -> ast.Module:
    for node in ast.walk(tree):
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef)) and ast.get_docstring(node, clean=False):
            node.body = node.body[1:]
    return tree


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
