"""The cells of an experiment: each found by what it was computed from, in parts and tables, whole or not at all."""

import numpy as np
import pyarrow as pa
import pytest

from deepbures.study.results import parquet
from deepbures.study.results.parts import Part
from deepbures.study.results.schema import FLOAT, NAME, VECTOR, schema
from deepbures.study.results.store import FOLDER, Job, Store, collected, key_of, part_of, parts_of, tidy

SCHEMAS = {"runs": schema(loss=FLOAT, levels=VECTOR), "samples": schema(time=FLOAT, place=NAME)}
CODE = "0123456789abcdef"
MADE = {"code": CODE, "numpy": "2.0"}


def settings(depth=10, **changes):
    return {"epsilon": 0.1, "depth": depth, "target": {"mode": "eigenvalues"}, **changes}


def part(depth=10, seeds="0-1", **changes):
    return part_of(settings(depth, **changes), seeds)


def tables(depth=10, seeds=(0, 1), samples=30):
    """Tables of a cell, whose numbers say which it is."""
    n, long = len(seeds), len(seeds) * samples
    columns = {
        "runs": {"seed": seeds, "loss": depth + np.arange(n) / 3, "levels": [np.arange(depth)] * n},
        "samples": {"seed": np.repeat(seeds, samples), "time": depth * np.arange(long), "place": ["here"] * long},
    }
    return {name: parquet.table_of(columns[name], SCHEMAS[name]) for name in SCHEMAS}


def keys_of(*depths, code=CODE):
    return [key_of(part(depth), code) for depth in depths]


def part_file(folder, job="job", plan="plan"):
    return folder / FOLDER / plan / f"{job}.part"


def run(folder, *depths, job="job", plan="plan", code=CODE):
    """Make the part of a job, and return the depths of the cells that it had to compute."""
    work, new = Job(part_file(folder, job, plan), SCHEMAS, code), []
    for depth, key in zip(depths, keys_of(*depths, code=code), strict=True):
        if key not in work:
            work.add(key, tables(depth), {**MADE, "code": code})
            new.append(depth)
    work.finish(keys_of(*depths, code=code))
    return new


def collect(folder, *depths, plan="plan", code=CODE):
    """Collect the parts of a plan into tables with a column more, as Snakemake does: the parts are deleted then."""
    parts = sorted((folder / FOLDER / plan).rglob("*.part"))
    store = collected(parts, keys_of(*depths, code=code), SCHEMAS)
    for name in SCHEMAS:
        cells = ((key, store.read(name, key)) for key in keys_of(*depths, code=code))
        with_axis = ((key, table.add_column(0, "depth", pa.array([1.5] * len(table)))) for key, table in cells)
        parquet.write(folder / f"{name}.parquet", with_axis, {**MADE, "code": code, "parts": 1})
    tidy(parts)
    for path in parts:
        path.unlink()


def files(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


# --- Keys -------------------------------------------------------------------------------------------------------


def test_the_key_follows_all_that_a_cell_is_computed_from(tmp_path):
    target = tmp_path / "target.csv"
    target.write_text("1")
    from_file = {"target": {"covariance": str(target)}}
    keys = [key_of(part(), CODE), key_of(part(), "f" * 16), key_of(part(11), CODE), key_of(part(seeds="0-2"), CODE)]
    keys.append(key_of(part(**from_file), CODE))
    target.write_text("2")
    keys.append(key_of(part(**from_file), CODE))
    keys += [key_of(part(target={**from_file["target"], "header": header}), CODE) for header in (None, 0)]
    assert len(set(keys)) == 8
    assert key_of(part_of(dict(reversed(settings().items())), "0-1"), CODE) == keys[0]


# --- Where cells are found --------------------------------------------------------------------------------------


@pytest.mark.parametrize("where", ["part", "partial file", "tables"])
def test_a_cell_comes_back_as_it_was(tmp_path, where):
    assert run(tmp_path, 1, 2, 3) == [1, 2, 3]
    if where == "partial file":
        part_file(tmp_path).unlink()
    elif where == "tables":
        collect(tmp_path, 3, 1, 2)
        assert files(tmp_path) == ["runs.parquet", "samples.parquet"]
    store = Store(SCHEMAS, parts_of(tmp_path), tmp_path, CODE)
    for depth, key in zip((1, 2, 3), keys_of(1, 2, 3), strict=True):
        assert key in store
        for name, table in tables(depth).items():
            assert store.read(name, key).equals(table)
            assert store.read(name, key).schema.equals(SCHEMAS[name])
        assert store.provenance(key) == MADE
    assert keys_of(4)[0] not in store


def test_a_job_computes_what_is_nowhere(tmp_path):
    run(tmp_path, 1, 2, job="one")
    part_file(tmp_path, "one").unlink()  # as Snakemake does when another member of its group fails
    assert run(tmp_path, 1, 2, job="one") == []
    assert run(tmp_path, 1, 2, 3, job="a/b", plan="another") == [3]
    collect(tmp_path, 1, 2, 3, plan="another")
    assert run(tmp_path, 3, 4, 1) == [4]
    assert run(tmp_path, 3, 4, code="f" * 16) == [3, 4]


def test_each_number_is_there_once_when_it_is_collected(tmp_path):
    run(tmp_path, 1, 5, plan="earlier")
    run(tmp_path, 1, 2, job="one")
    run(tmp_path, 3, job="two")
    collect(tmp_path, 1, 2, 3)
    assert files(tmp_path) == ["runs.parquet", "samples.parquet"]


def test_collected_bytes_do_not_depend_on_where_the_cells_were(tmp_path):
    run(tmp_path, 1, 3)
    collect(tmp_path, 1, 3)
    first = [(tmp_path / f"{name}.parquet").read_bytes() for name in SCHEMAS]
    run(tmp_path, 2, 1, job="one")  # of these one is in the tables
    run(tmp_path, 3, job="two")
    collect(tmp_path, 1, 2, 3)
    assert run(tmp_path, 1, 3) == []
    collect(tmp_path, 1, 3)
    assert [(tmp_path / f"{name}.parquet").read_bytes() for name in SCHEMAS] == first


def test_tables_of_other_code_hold_nothing_and_tables_that_lack_another_neither(tmp_path):
    run(tmp_path, 1, code="f" * 16)
    collect(tmp_path, 1, code="f" * 16)
    (tmp_path / "runs.parquet").write_bytes((tmp_path / "runs.parquet").read_bytes())
    assert run(tmp_path, 1) == [1]
    collect(tmp_path, 1)
    (tmp_path / "runs.parquet").unlink()
    assert run(tmp_path, 1) == [1]


def test_a_missing_cell_ends_collecting(tmp_path):
    run(tmp_path, 1)
    with pytest.raises(ValueError, match=r"job\.part lacks a cell: delete it and run again"):
        collect(tmp_path, 1, 2)


# --- What is broken ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("cut", [0, 3, 100, -9, -1])
def test_a_partial_file_that_is_cut_off_holds_what_is_whole(tmp_path, cut):
    run(tmp_path, 1, 2, 3)
    part_file(tmp_path).unlink()
    partial = part_file(tmp_path).with_suffix(".partial")
    content = partial.read_bytes()
    partial.write_bytes(content[:cut])
    assert run(tmp_path, 1, 2, 3) == ([1, 2, 3] if cut >= 0 else [3])
    assert partial.read_bytes() == content


def test_a_broken_part_is_named(tmp_path):
    run(tmp_path, 1, 2)
    whole, noticed = part_file(tmp_path).read_bytes(), []
    good = [repr(Store(SCHEMAS, [part_file(tmp_path)]).read("runs", key)) for key in keys_of(1, 2)]
    for position in range(0, len(whole), 7):
        part_file(tmp_path).write_bytes(whole[:position] + bytes([whole[position] ^ 0x55]) + whole[position + 1 :])
        try:
            store = collected([part_file(tmp_path)], keys_of(1, 2), SCHEMAS)
            assert [repr(store.read("runs", key)) for key in keys_of(1, 2)] == good
            assert all(store.read("samples", key) for key in keys_of(1, 2))
        except ValueError as error:
            noticed.append(str(error))
    assert noticed == [f"{part_file(tmp_path)} is broken: delete it and run again"] * len(range(0, len(whole), 7))


def test_a_broken_table_is_named_and_its_cells_are_not_computed_again(tmp_path):
    run(tmp_path, 1, 2)
    collect(tmp_path, 1, 2)
    path = tmp_path / "samples.parquet"
    whole = path.read_bytes()
    path.write_bytes(whole[:-20])
    with pytest.raises(ValueError, match=r"samples\.parquet is broken.*delete it"):
        run(tmp_path, 1, 2)
    path.write_bytes(whole[:200] + bytes([whole[200] ^ 1]) + whole[201:])
    with pytest.raises(ValueError, match=r"samples\.parquet is broken.*delete it"):
        run(tmp_path, 1, 2)
    assert not part_file(tmp_path).exists()


def test_there_is_nothing_in_a_file_that_is_no_part(tmp_path):
    for content in (b"", b"PAR1", b"a b\n", bytes(range(256))):
        (tmp_path / "a.part").write_bytes(content)
        assert list(Part(tmp_path / "a.part")) == []
        assert Part(tmp_path / "a.part").whole == (content == b"")
    assert list(Part(tmp_path / "none.part")) == []
