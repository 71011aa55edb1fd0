"""The store of an experiment: every cell once, found by what it was computed from, whole or not at all."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from cases import each

from deepbures.study.results import parquet
from deepbures.study.results.schema import FLOAT, NAME, VECTOR, schema
from deepbures.study.results.store import Cells, Store, key_of, part_of, write_cells

SCHEMAS = {"runs": schema(loss=FLOAT, levels=VECTOR), "samples": schema(time=FLOAT, place=NAME)}
CODE = "0123456789abcdef"


def settings(depth=10, **changes):
    return {"epsilon": 0.1, "depth": depth, "target": {"mode": "eigenvalues"}, **changes}


def part(depth=10, seeds="0-1", **changes):
    return part_of(settings(depth, **changes), seeds)


def tables(depth=10, seeds=(0, 1), code=CODE, samples=30):
    """Tables of a cell, whose numbers say which it is."""
    n, long = len(seeds), len(seeds) * samples
    columns = {
        "runs": {"seed": seeds, "loss": depth + np.arange(n) / 3, "levels": [np.arange(depth)] * n},
        "samples": {"seed": np.repeat(seeds, samples), "time": depth * np.arange(long), "place": ["here"] * long},
    }
    metadata = {"parts": [part(depth, f"{seeds[0]}-{seeds[-1]}")], "code": code, "numpy": "2.0"}
    return {name: parquet.table_of(columns[name], SCHEMAS[name], metadata) for name in SCHEMAS}


def keys_of(*depths, code=CODE):
    return [key_of(part(depth), code) for depth in depths]


@pytest.fixture
def store(tmp_path):
    """A store with the cells of depth 1, 2, 3 in files of their own."""
    new = Store(tmp_path / "flows", SCHEMAS)
    for depth, key in zip((1, 2, 3), keys_of(1, 2, 3), strict=True):
        new.add(key, tables(depth))
    return new


def collect(store, *depths):
    """Put cells into the tables of the experiment, with a column more, and let the store know."""
    for name in SCHEMAS:
        cells = ((key, store.read(name, key)) for key in keys_of(*depths))
        with_axis = ((key, table.add_column(0, "depth", pa.array([1.5] * len(table)))) for key, table in cells)
        write_cells(store.folder / f"{name}.parquet", with_axis, {**store.provenance(keys_of(*depths)[0]), "parts": 1})
    store.settle(keys_of(*depths))


def again(store):
    """The same folder, as another process finds it."""
    return Store(store.folder, SCHEMAS)


def files(store, name="*"):
    """Keys of the cells that have files of their own."""
    return sorted({path.stem for path in store.folder.glob(f"cells/{name}/*.parquet")})


# --- Keys -------------------------------------------------------------------------------------------------------


def test_the_key_follows_all_that_a_cell_is_computed_from(tmp_path):
    target = tmp_path / "target.csv"
    target.write_text("1")
    from_file = {"target": {"covariance": str(target)}}
    keys = [key_of(part(), CODE), key_of(part(), "f" * 16), key_of(part(11), CODE), key_of(part(seeds="0-2"), CODE)]
    keys.append(key_of(part(**from_file), CODE))
    target.write_text("2")
    keys.append(key_of(part(**from_file), CODE))
    assert len(set(keys)) == 6
    assert key_of(part_of(dict(reversed(settings().items())), "0-1"), CODE) == keys[0]


# --- Cells in files of their own, and collected -----------------------------------------------------------------


@each("collected", [False, True])
def test_a_cell_comes_back_as_it_was(store, collected):
    if collected:
        collect(store, 3, 1, 2)
        assert files(store) == []
    for found in (store, again(store)):
        for depth, key in zip((1, 2, 3), keys_of(1, 2, 3), strict=True):
            assert key in found
            for name, table in tables(depth).items():
                assert found.read(name, key).equals(table)
                assert found.read(name, key).schema.equals(SCHEMAS[name])
            assert found.provenance(key) == {"code": CODE, "numpy": "2.0"}
        assert keys_of(4)[0] not in found
        with pytest.raises(ValueError, match=f"{keys_of(4)[0]}.parquet is missing"):
            found.read("runs", keys_of(4)[0])


def test_each_number_is_there_once(store):
    # The name under cells/ is the table itself, and outlives it: what is deleted can be collected again.
    collect(store, 1, 2, 3)
    for name in SCHEMAS:
        table = store.folder / f"{name}.parquet"
        assert (store.folder / f"cells/{name}.parquet").samefile(table)
        before = table.read_bytes()
        table.unlink()
        collect(again(store), 1, 2, 3)
        assert table.read_bytes() == before


def test_collected_bytes_do_not_depend_on_where_the_cells_were(store):
    collect(store, 1, 3)
    first = [(store.folder / f"{name}.parquet").read_bytes() for name in SCHEMAS]
    collect(again(store), 1, 2, 3)  # two from the tables, one from its files
    more = [(store.folder / f"{name}.parquet").read_bytes() for name in SCHEMAS]
    collect(again(store), 1, 3)
    assert [(store.folder / f"{name}.parquet").read_bytes() for name in SCHEMAS] == first
    collect(again(store), 1, 2, 3)
    assert [(store.folder / f"{name}.parquet").read_bytes() for name in SCHEMAS] == more


def test_a_cell_that_nobody_asks_for_stays_until_the_code_changes(store):
    collect(store, 1, 2, 3)
    collect(again(store), 1)
    assert files(store) == sorted(keys_of(2, 3))
    assert all(key in again(store) for key in keys_of(1, 2, 3))
    other = keys_of(5, code="f" * 16)[0]
    store.add(other, tables(5, code="f" * 16))
    collect(again(store), 1, 2)
    assert files(store) == keys_of(3)
    assert other not in again(store)


def test_cells_share_row_groups_and_one_may_be_at_several_points(tmp_path):
    path, one, two = tmp_path / "runs.parquet", *keys_of(1, 2)
    long = tables(3, samples=60)["samples"]
    short = {key: tables(depth)["samples"] for key, depth in ((one, 1), (two, 2))}
    empty = long.slice(0, 0)
    write_cells(path, [(one, short[one]), (two, short[two]), ("long", long), (one, short[one]), ("no", empty)], {})
    assert [pq.ParquetFile(path).metadata.row_group(i).num_rows for i in range(3)] == [120, 120, 60]
    found = Cells(path, SCHEMAS["samples"].names)
    assert list(found) == [one, two, "long", "no"]
    assert found.read("long").equals(long)
    assert found.read(two).equals(short[two])
    assert found.read("no").equals(empty)


def test_there_must_be_something_to_collect(tmp_path):
    with pytest.raises(ValueError, match="there are no cells to collect"):
        write_cells(tmp_path / "runs.parquet", [], {})
    assert list(tmp_path.iterdir()) == []


def test_the_tables_of_an_archive_are_a_store(store, tmp_path):
    collect(store, 1, 2, 3)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    for name in SCHEMAS:
        (elsewhere / f"{name}.parquet").write_bytes((store.folder / f"{name}.parquet").read_bytes())
    found = Store(elsewhere, SCHEMAS)
    (elsewhere / "runs.parquet").unlink()  # as Snakemake does before it collects again
    assert all(key in found and key in Store(elsewhere, SCHEMAS) for key in keys_of(1, 2, 3))


# --- What is broken ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("cut", [0, 3, 100, -9, -1])
@pytest.mark.parametrize("collected", [False, True])
def test_a_truncated_file_is_noticed(store, cut, collected):
    if collected:
        collect(store, 1, 2, 3)
    one, two, three = keys_of(1, 2, 3)
    path = store.folder / "cells/samples.parquet" if collected else store.file("samples", two)
    path.write_bytes(path.read_bytes()[:cut])
    found = again(store)
    assert [key in found for key in (one, two, three)] == [not collected, False, not collected]
    with pytest.raises(ValueError, match=r"samples.*\.parquet"):
        found.read("samples", two)
    found.add(two, tables(2))
    assert found.read("samples", two).equals(tables(2)["samples"])
    assert two in again(store)


@pytest.mark.parametrize("collected", [False, True])
def test_a_changed_byte_is_noticed(store, collected):
    # Numbers are in pages, each with a checksum; a cell whose file is changed is as it was, or not there.
    key = keys_of(2)[0]
    if collected:
        collect(store, 1, 2, 3)
    path = store.folder / "cells/runs.parquet" if collected else store.file("runs", key)
    whole, noticed = path.read_bytes(), 0
    for position in range(4, len(whole) - 8 - int.from_bytes(whole[-8:-4], "little"), 3):
        path.write_bytes(whole[:position] + bytes([whole[position] ^ 0x55]) + whole[position + 1 :])
        try:
            assert again(store).read("runs", key).equals(tables(2)["runs"])
        except ValueError:
            noticed += 1
    assert noticed > 50


def test_a_file_under_the_name_of_another_cell_is_refused(store):
    one, two = keys_of(1, 2)
    store.file("runs", one).write_bytes(store.file("runs", two).read_bytes())
    assert one not in store
    with pytest.raises(ValueError, match=rf"{one}\.parquet does not hold the cell"):
        store.read("runs", one)


@pytest.mark.parametrize("metadata", [None, {"deepbures": "{}"}])
def test_a_foreign_file_is_refused(store, metadata):
    key = keys_of(1)[0]
    pq.write_table(pa.table({"a": [1]}).replace_schema_metadata(metadata), store.file("runs", key))
    assert key not in store
    with pytest.raises(ValueError, match="carries no deepbures metadata" if metadata is None else "holds no cells"):
        store.read("runs", key)
