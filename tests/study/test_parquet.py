"""Tables as Parquet files: types, values, metadata, checksums."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from deepbures.study.results import parquet
from deepbures.study.results.schema import list_of

SCHEMA = pa.schema(
    [
        ("seed", pa.int32()),
        ("loss", pa.float64()),
        ("reason", pa.string()),
        ("levels", list_of(pa.float64())),
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
    return parquet.table_of(COLUMNS, SCHEMA, METADATA)


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
    parquet.write(path, [table])
    assert repr(pq.read_table(path).to_pylist()) == repr(table.to_pylist())  # repr: NaN equals NaN
    assert parquet.read_metadata(path) == METADATA


def test_missing_column_is_named():
    with pytest.raises(KeyError, match="levels"):
        parquet.table_of({key: value for key, value in COLUMNS.items() if key != "levels"}, SCHEMA, METADATA)


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
        parquet.table_of({**COLUMNS, column: values}, SCHEMA, METADATA)


def test_foreign_file_has_no_metadata(tmp_path):
    path = tmp_path / "foreign.parquet"
    pq.write_table(pa.table({"a": [1]}), path)
    with pytest.raises(ValueError, match=r"foreign\.parquet carries no deepbures metadata"):
        parquet.read_metadata(path)


def test_failed_table_leaves_nothing(tmp_path, table, monkeypatch):
    # The disk is full halfway through.
    def fail(writer, _table, **_options):
        writer.file_handle.write(b"half")
        raise OSError("no space left on device")

    monkeypatch.setattr(pq.ParquetWriter, "write_table", fail)
    with pytest.raises(OSError, match="no space left"):
        parquet.write(tmp_path / "runs.parquet", [table])
    assert list(tmp_path.iterdir()) == []


def test_write_replaces_the_old_file(tmp_path, table):
    path = tmp_path / "runs.parquet"
    path.write_text("old")
    parquet.write(path, [table])
    assert pq.read_table(path)["seed"].to_pylist() == [0, 1, 2]
    assert list(tmp_path.iterdir()) == [path]
