"""Tables as Parquet files: types, values, metadata, checksums."""

import numpy as np
import pandas as pd
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
METADATA = {"experiment": "flows", "code": "abc", "parts": 2}


@pytest.fixture
def table():
    return parquet.table_of(COLUMNS, SCHEMA)


@pytest.fixture
def written(tmp_path, table):
    """A file of two groups: four cells with an axis."""
    path = tmp_path / "deep" / "er" / "runs.parquet"
    many = pa.concat_tables([table] * 400)
    cells = [
        (key, cell.add_column(0, "depth", pa.array([depth] * len(cell), pa.int32())))
        for key, depth, cell in (
            ("a", 1, many),
            ("b", 2, table),
            ("none", 2, table.slice(0, 0)),
            ("c", 10, table.slice(1)),
        )
    ]
    parquet.write(path, cells, METADATA, ["depth"])
    return path


def test_table_has_the_schema_and_the_values(table):
    assert table.schema.equals(SCHEMA)
    table.validate(full=True)
    assert table["seed"].to_pylist() == [0, 1, 2]
    np.testing.assert_array_equal(table["loss"].to_numpy(), COLUMNS["loss"])
    assert table["reason"].to_pylist() == COLUMNS["reason"]
    assert table["levels"].to_pylist() == [[1.0, 2.0], [], [3.0]]
    assert table["rank"].to_pylist() == [1, 2, 3]
    assert all(column.null_count == 0 for column in table.columns)


def test_cells_come_back_from_the_file(written, table):
    found = parquet.Table(written)
    assert list(found) == ["a", "b", "none", "c"]
    assert found.metadata == METADATA
    assert repr(found.cell("b", SCHEMA.names).to_pylist()) == repr(table.to_pylist())  # repr: NaN equals NaN
    assert len(found.cell("none", SCHEMA.names)) == 0
    assert found.cell("c", ["rank", "seed"]).to_pylist() == [{"rank": 2, "seed": 1}, {"rank": 3, "seed": 2}]
    assert [pq.ParquetFile(written).metadata.row_group(i).num_rows for i in range(2)] == [1200, 5]


def test_reading_is_what_pandas_reads(written):
    pd.testing.assert_frame_equal(parquet.read(written), pd.read_parquet(written))
    some = parquet.read(written, ["rank", "levels"], {"depth": [2.0, 10]})
    expected = pd.read_parquet(written, filters=[("depth", "in", [2, 10])])[["rank", "levels"]]
    pd.testing.assert_frame_equal(some, expected)
    pd.testing.assert_frame_equal(parquet.read(written, show={"depth": [3]}), pd.read_parquet(written)[:0])


def test_there_must_be_something_to_collect(tmp_path):
    with pytest.raises(ValueError, match="there are no cells to collect"):
        parquet.write(tmp_path / "runs.parquet", [], {})
    assert list(tmp_path.iterdir()) == []


def test_missing_column_is_named():
    with pytest.raises(KeyError, match="levels"):
        parquet.table_of({key: value for key, value in COLUMNS.items() if key != "levels"}, SCHEMA)


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
        parquet.table_of({**COLUMNS, column: values}, SCHEMA)


# --- What is broken or edited -----------------------------------------------------------------------------------


def edited(path, column, change):
    """Read a table with pyarrow, change a column, and write it as it was written."""
    file = pq.ParquetFile(path)
    table, footer = file.read(), file.metadata.metadata
    number = table.column_names.index(column)
    values = change(table[column].to_pylist())
    table = table.set_column(number, table.schema.field(number), pa.array(values, table.schema.field(number).type))
    with pq.ParquetWriter(path, table.schema) as writer:
        start = 0
        for group in range(file.num_row_groups):
            rows = file.metadata.row_group(group).num_rows
            writer.write_table(table.slice(start, rows), row_group_size=rows)
            start += rows
        writer.add_key_value_metadata({b"deepbures index": footer[b"deepbures index"]})


@pytest.mark.parametrize(
    ("column", "change"),
    [
        ("rank", lambda values: [*values[:-1], 7]),
        ("loss", lambda values: [None, *values[1:]]),
        ("reason", lambda values: [*values[1:], "end timE"]),
        ("levels", lambda values: [[1.0], [2.0], *values[2:]]),
        ("seed", sorted),
    ],
)
def test_an_edited_column_stops_whoever_reads_it(written, column, change):
    whole = parquet.read(written)
    edited(written, column, change)
    others = [name for name in whole.columns if name != column]
    pd.testing.assert_frame_equal(parquet.read(written, others), whole[others])
    for read in (parquet.read, lambda path: parquet.read(path, [column]), lambda path: parquet.Table(path).verify()):
        with pytest.raises(ValueError, match=rf"runs\.parquet is broken.*column {column} is not .*: delete it"):
            read(written)


def test_what_another_program_wrote_is_refused(written):
    pq.write_table(pq.read_table(written, partitioning=None), written)
    with pytest.raises(ValueError, match=r"runs\.parquet is broken, or was edited by another program"):
        parquet.Table(written)
    pq.write_table(pa.table({"a": [1]}), written)
    with pytest.raises(ValueError, match=r"runs\.parquet is broken, or was edited by another program"):
        parquet.read(written)
    assert parquet.claimed(written) == {}


def test_a_flipped_byte_is_without_effect_or_reported(written, rng):
    whole, good, metadata = written.read_bytes(), repr(parquet.read(written).to_dict("list")), METADATA
    noticed = []
    for position in rng.integers(len(whole), size=300):
        flipped = whole[position] ^ int(rng.integers(1, 256))
        written.write_bytes(whole[:position] + bytes([flipped]) + whole[position + 1 :])
        try:
            table = parquet.Table(written)
            assert table.metadata == metadata
            assert repr(parquet.read(written).to_dict("list")) == good
        except ValueError as error:
            noticed.append(str(error))
    assert len(noticed) > 100
    assert all(line.startswith(f"{written} is broken") and "\n" not in line for line in noticed)


def test_failed_table_leaves_nothing(tmp_path, table, monkeypatch):
    # The disk is full halfway through.
    def fail(writer, _table, **_options):
        writer.file_handle.write(b"half")
        raise OSError("no space left on device")

    monkeypatch.setattr(pq.ParquetWriter, "write_table", fail)
    with pytest.raises(OSError, match="no space left"):
        parquet.write(tmp_path / "runs.parquet", [("a", table)], {})
    assert list(tmp_path.iterdir()) == []


def test_write_replaces_the_old_file(tmp_path, table):
    path = tmp_path / "runs.parquet"
    path.write_text("old")
    parquet.write(path, [("a", table)], {})
    assert pq.read_table(path)["seed"].to_pylist() == [0, 1, 2]
    assert list(tmp_path.iterdir()) == [path]
