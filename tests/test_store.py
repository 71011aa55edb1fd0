"""Result files: written whole or not at all, with their provenance."""

import os
import shutil
import stat

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from deepbures import store

SCHEMA = pa.schema(
    [
        ("seed", pa.int32()),
        ("loss", pa.float64()),
        ("reason", pa.string()),
        ("levels", store._list_of(pa.float64())),
        ("rank", pa.int16()),
    ]
)
COLUMNS = {
    "seed": [0, 1, 2],
    "loss": np.array([0.5, 1e-300, np.nan]),
    "reason": ["end time", "", "ε ≤ λ"],
    "levels": [np.array([1.0, 2.0]), [], [3]],
    "rank": np.array([1, 2, 3]),
    "left out": [None, None, None],
}
CELL = {"epsilon": 0.1, "depth": 10, "target": {"mode": "eigenvalues"}}
METADATA = {"parts": [{"cell": CELL, "seeds": "0-2"}], "code": "abc"}


@pytest.fixture
def table():
    return store.table_of(COLUMNS, SCHEMA, METADATA)


# --- Tables -----------------------------------------------------------------------------------------------------


def test_table_has_the_schema_and_the_values(table):
    assert table.schema.equals(SCHEMA, check_metadata=False)
    table.validate(full=True)
    assert table["seed"].to_pylist() == [0, 1, 2]
    np.testing.assert_array_equal(table["loss"].to_numpy(), COLUMNS["loss"])
    assert table["reason"].to_pylist() == COLUMNS["reason"]
    assert table["levels"].to_pylist() == [[1.0, 2.0], [], [3.0]]
    assert table["rank"].to_pylist() == [1, 2, 3]
    assert all(column.null_count == 0 for column in table.columns)


def test_table_survives_the_file(tmp_path, table):
    path = tmp_path / "deep" / "er" / "runs.parquet"
    store.write_parts(path, [table])
    assert repr(pq.read_table(path).to_pylist()) == repr(table.to_pylist())  # repr: NaN equals NaN
    assert store.read_metadata(path) == METADATA


def test_missing_column_is_named():
    with pytest.raises(KeyError, match="levels"):
        store.table_of({key: value for key, value in COLUMNS.items() if key != "levels"}, SCHEMA, METADATA)


@pytest.mark.parametrize(
    ("column", "values"),
    [
        ("loss", ["a", "b", "c"]),
        ("seed", [0, 1, "x"]),
        ("seed", [0.5, 1, 2]),
        ("seed", [0, 1, 2**40]),
        ("seed", np.array([0, 1, 2**40])),
        ("rank", [1, 2, 1e5]),
        ("seed", [0, 1, np.nan]),
    ],
    ids=["text", "some-text", "fraction", "too-large", "too-large-array", "too-large-float", "nan"],
)
def test_value_of_another_type_is_refused(column, values):
    # Rather than cut to fit: 0.5 is no seed, and 2^40 is no int32.
    with pytest.raises(ValueError):  # noqa: PT011, whichever library finds it
        store.table_of({**COLUMNS, column: values}, SCHEMA, METADATA)


def test_foreign_file_has_no_metadata(tmp_path):
    path = tmp_path / "foreign.parquet"
    pq.write_table(pa.table({"a": [1]}), path)
    with pytest.raises(ValueError, match=r"foreign\.parquet carries no deepbures metadata"):
        store.read_metadata(path)


# --- Parts ------------------------------------------------------------------------------------------------------


def part(seed, **changes):
    """A table of one row, of another cell for each seed."""
    metadata = {**METADATA, "parts": [{"cell": CELL, "seeds": f"{seed}-{seed}"}], **changes}
    return store.table_of({name: values[:1] for name, values in COLUMNS.items()} | {"seed": [seed]}, SCHEMA, metadata)


def test_parts_come_back_one_by_one(tmp_path):
    path = tmp_path / "runs.parquet"
    store.write_parts(path, [part(0), part(1), part(2)])
    file = store.PartsFile(path)
    assert list(file.keys) == [store.part_key(CELL, f"{seed}-{seed}") for seed in range(3)]
    for seed in (2, 0, 1):
        assert file.read(store.part_key(CELL, f"{seed}-{seed}")).equals(part(seed), check_metadata=True)
    assert pq.read_table(path)["seed"].to_pylist() == [0, 1, 2]


def test_parts_that_were_read_are_written_as_the_same_bytes(tmp_path):
    first, second = tmp_path / "first.parquet", tmp_path / "second.parquet"
    store.write_parts(first, [part(0), part(1)])
    file = store.PartsFile(first)
    store.write_parts(second, [file.read(key) for key in file.keys])
    assert first.read_bytes() == second.read_bytes()


def test_parts_of_different_code_are_not_put_together(tmp_path):
    with pytest.raises(ValueError, match="computed by different code"):
        store.write_parts(tmp_path / "runs.parquet", [part(0), part(1, code="abd")])
    assert list(tmp_path.iterdir()) == []


def test_a_part_that_is_not_there_is_refused(tmp_path, table):
    path = tmp_path / "runs.parquet"
    store.write_parts(path, [table])
    with pytest.raises(ValueError, match=r"runs\.parquet does not hold the cell that is asked for"):
        store.PartsFile(path).read(store.part_key({**CELL, "depth": 11}, "0-2"))


@pytest.mark.parametrize("cut", [0, 3, 100, -9, -1])
def test_a_truncated_file_is_named(tmp_path, table, cut):
    path = tmp_path / "runs.parquet"
    store.write_parts(path, [table])
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(ValueError, match=r"runs\.parquet is no readable Parquet file"):
        store.PartsFile(path)


def test_a_changed_byte_is_noticed(tmp_path, table):
    # Numbers are in pages, each with a checksum.
    path, key = tmp_path / "runs.parquet", store.part_key(CELL, "0-2")

    def read() -> str:
        try:
            return repr(store.PartsFile(path).read(key).to_pylist())
        except ValueError as error:
            return str(error)

    store.write_parts(path, [table])
    whole, expected = path.read_bytes(), read()
    assert "e-300" in expected
    noticed, description = 0, int.from_bytes(whole[-8:-4], "little")
    for position in range(4, len(whole) - 8 - description):
        path.write_bytes(whole[:position] + bytes([whole[position] ^ 0x55]) + whole[position + 1 :])
        assert read() == expected or "runs.parquet" in read()
        noticed += read() != expected
    assert noticed > 100


def test_an_aggregate_is_no_file_of_a_job(tmp_path, table):
    path = tmp_path / "runs.parquet"
    pq.write_table(table.replace_schema_metadata({"deepbures": '{"parts": 3}'}), path)
    with pytest.raises(ValueError, match=r"runs\.parquet holds no parts: it is no file of a job"):
        store.PartsFile(path)


# --- Atomic writing ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_failed_write_leaves_nothing(tmp_path, error):
    with pytest.raises(error), store.replacing(tmp_path / "new.parquet") as temporary:  # noqa: PT012
        temporary.write_text("half")
        raise error
    assert list(tmp_path.iterdir()) == []


def test_failed_write_keeps_the_old_file(tmp_path):
    path = tmp_path / "old.parquet"
    path.write_text("old")
    with pytest.raises(RuntimeError), store.replacing(path) as temporary:  # noqa: PT012
        temporary.write_text("half")
        assert path.read_text() == "old"
        raise RuntimeError
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_failed_table_leaves_nothing(tmp_path, table, monkeypatch):
    # The disk is full halfway through.
    def fail(writer, _table, **_options):
        writer.file_handle.write(b"half")
        raise OSError("no space left on device")

    monkeypatch.setattr(pq.ParquetWriter, "write_table", fail)
    with pytest.raises(OSError, match="no space left"):
        store.write_parts(tmp_path / "runs.parquet", [table])
    assert list(tmp_path.iterdir()) == []


def test_write_replaces_the_old_file(tmp_path, table):
    path = tmp_path / "runs.parquet"
    path.write_text("old")
    store.write_parts(path, [table])
    assert pq.read_table(path)["seed"].to_pylist() == [0, 1, 2]
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.skipif(os.name != "posix", reason="permissions of POSIX")
def test_file_has_the_usual_permissions(tmp_path, table):
    # Not the 0600 of a temporary file.
    before = os.umask(0o027)
    try:
        store.write_parts(tmp_path / "runs.parquet", [table])
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "runs.parquet").stat().st_mode) == 0o640


# --- Code digest ------------------------------------------------------------------------------------------------


@pytest.fixture
def package(tmp_path, monkeypatch):
    """Copy of the package that digests are taken from, to be edited."""
    folder = tmp_path / "package"
    shutil.copytree(store._PACKAGE, folder, ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(store, "_PACKAGE", folder)
    store.code_digest.cache_clear()
    yield folder
    store.code_digest.cache_clear()


def edit(path, old, new):
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new, 1), encoding="utf-8")
    store.code_digest.cache_clear()


def test_digest_is_stable(package):
    before = store.code_digest("experiment.flow")
    store.code_digest.cache_clear()
    assert store.code_digest("experiment.flow") == before != store.code_digest("experiment.descent")
    assert len(before) == 16
    assert int(before, 16) >= 0


def test_digest_ignores_comments_and_docstrings(package):
    before = store.code_digest("experiment.descent")
    for name in ("losses", "experiment/descent", "experiment/problem", "psd"):
        path = package / f"{name}.py"
        path.write_text("# A comment.\n" + path.read_text(encoding="utf-8") + "\n\n# Another.\n", encoding="utf-8")
    edit(package / "losses.py", '"""∇L(W), shape of W."""', '"""The gradient, of the same shape."""')
    edit(package / "psd.py", '"""Symmetric part', '"""The symmetric part')
    store.code_digest.cache_clear()
    assert store.code_digest("experiment.descent") == before


@pytest.mark.parametrize(
    ("module", "old", "new", "changed"),
    [
        ("experiment/problem", "def make_loss(", "def make_the_loss(", {"experiment.flow", "experiment.descent"}),
        ("experiment/flow", "def run(", "def run_all(", {"experiment.flow"}),
        ("gradient_descent", "CHECK_INTERVAL = 10", "CHECK_INTERVAL = 20", {"experiment.descent"}),
        ("explicit", "_COLLAPSE = 1e-6", "_COLLAPSE = 1e-7", {"experiment.flow", "experiment.descent"}),
        ("psd", "/ 2", "/ 2.0", {"experiment.flow", "experiment.descent", "rates"}),  # imported by imports only
        ("rates", "3.0", "2.0", {"rates"}),
    ],
)
def test_digest_follows_the_code(package, module, old, new, changed):
    roots = ("experiment.flow", "experiment.descent", "rates")
    before = [store.code_digest(root) for root in roots]
    edit(package / f"{module}.py", old, new)
    after = [store.code_digest(root) for root in roots]
    assert {root for root, one, other in zip(roots, before, after, strict=True) if one != other} == changed


def test_digest_follows_every_layer(package):
    # A change anywhere that an experiment can reach changes its digest.
    reached = store._imported("experiment.descent")
    assert {"psd", "losses", "gradient_flow", "theory", "seeds", "targets", "initialization"} <= reached
    assert {"gradient_descent", "experiment.descent", "experiment.measure"} <= reached
    assert reached.isdisjoint({"rates", "configuration", "grid", "aggregate", "plotting"})
    digests = [store.code_digest("experiment.descent")]
    for name in sorted(reached):
        path = store._source(name)
        path.write_text(path.read_text(encoding="utf-8") + "\nADDED = 1\n", encoding="utf-8")
        store.code_digest.cache_clear()
        digests.append(store.code_digest("experiment.descent"))
        assert digests[-1] != digests[-2], name


def test_flow_does_not_depend_on_descent():
    # Editing descent recomputes no flow. Descent is compared with the flow, and so depends on it.
    flow, descent = store._imported("experiment.flow"), store._imported("experiment.descent")
    shared = {"psd", "losses", "gradient_flow", "theory", "initialization", "network", "experiment.problem"}
    assert shared <= flow & descent
    assert {"gradient_descent", "experiment.descent"} <= descent - flow
    assert "experiment.flow" not in descent


def test_digest_reads_packages_inside_the_package(tmp_path, monkeypatch):
    # root → inner/__init__ → inner/part → other: relative imports of an __init__ start at its own folder.
    files = {
        "root.py": "from . import inner\n",
        "inner/__init__.py": "from .part import x\n",
        "inner/part.py": "from ..other import x\n",
        "other.py": "x = 1\n",
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    monkeypatch.setattr(store, "_PACKAGE", tmp_path)
    store.code_digest.cache_clear()
    before = store.code_digest("root")
    (tmp_path / "other.py").write_text("x = 2\n")
    store.code_digest.cache_clear()
    assert store.code_digest("root") != before
    store.code_digest.cache_clear()


def test_provenance_names_code_and_versions():
    found = store.provenance("experiment")
    assert found["code"] == store.code_digest("experiment")
    assert {"deepbures", "numpy", "scipy", "python"} <= set(found)
    assert found["numpy"] == np.__version__
