"""Targets from files: what other programs write is read or refused in one line, and never read as something else."""

import gzip
import hashlib
import io
import os
import pickle
import tracemalloc
import zipfile
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import scipy.io
import scipy.sparse

from deepbures import BuresWasserstein
from deepbures.files import matrix_files
from deepbures.files.matrix_files import read_matrix
from deepbures.files.targets import read_covariances, read_target
from deepbures.study.grid.target import checksums_of, files_of, stream_of
from deepbures.study.run import run_cell


@pytest.fixture
def covariance(rng):
    A = rng.standard_normal((4, 6))
    return A @ A.T


def save(path, array):
    if path.suffix == ".npy":
        np.save(path, array)
    elif path.suffix == ".csv":
        np.savetxt(path, array, delimiter=",", fmt="%.17g")
    else:
        pq.write_table(pa.table({f"x{j}": column for j, column in enumerate(np.asarray(array).T)}), path)
    return str(path)


@pytest.mark.parametrize("suffix", [".npy", ".csv", ".parquet"])
def test_a_covariance_is_read_as_it_was_written(tmp_path, covariance, suffix):
    path = save(tmp_path / f"target{suffix}", covariance)
    np.testing.assert_array_equal(read_target({"covariance": path}, 4), (covariance + covariance.T) / 2)


@pytest.mark.parametrize("suffix", [".npy", ".csv", ".parquet"])
def test_samples_give_the_maximum_likelihood_estimate(tmp_path, rng, suffix):
    samples = rng.standard_normal((50, 4)) + 3
    path = save(tmp_path / f"samples{suffix}", samples)
    found = read_target({"samples": path}, 4)
    np.testing.assert_allclose(found, np.cov(samples.T, bias=True), rtol=1e-12)
    # Bit for bit the same, whatever the file.
    np.testing.assert_array_equal(found, read_target({"samples": save(tmp_path / "same.npy", samples)}, 4))


# What programs write by default. Each writer takes a folder and a matrix, and returns the file.


def _text(name, content, encoding="utf-8"):
    def write(folder, _):
        (folder / name).write_bytes(content.encode(encoding))
        return folder / name

    return write


def _pandas(name, prepare=lambda frame: frame, **options):
    def write(folder, array):
        frame, path = prepare(pd.DataFrame(array)), folder / name
        frame.to_parquet(path, **options) if name.endswith("parquet") else frame.to_csv(path, **options)
        return path

    return write


def _numpy(name, save, **options):
    def write(folder, array):
        save(folder / name, array, **options)
        return folder / name

    return write


def _rows(array, separator, form="{!r}", names=None, heading=None, end="\n", last=""):
    """Lines as R, MATLAB or Excel write them; `names` begin the rows."""
    lines = [] if heading is None else [heading]
    for i, row in enumerate(np.asarray(array).tolist()):
        cells = [form.format(value) for value in row]
        lines.append(separator.join(([names[i]] if names else []) + cells) + last)
    return end.join(lines) + end


def _foreign(
    name, separator, encoding="utf-8", form="{!r}", comma=False, named=False, heading=None, first="", **options
):
    """A file of rows; `named`: R's row names "1", "2", …; `comma`: the decimal sign."""

    def write(folder, array):
        text = _rows(array, separator, form, [f'"{i + 1}"' for i in range(len(array))] if named else None, **options)
        text = text.replace(".", ",") if comma else text
        title = "" if heading is None else heading(np.shape(array)[1]) + options.get("end", "\n")
        (folder / name).write_bytes((first + title + text).encode(encoding))
        return folder / name

    return write


def _quoted(separator, corner=None, stem="V"):
    return lambda n: separator.join(([corner] if corner is not None else []) + [f'"{stem}{j + 1}"' for j in range(n)])


def _lettered_heading(separator):
    return lambda n: separator.join("abcdefgh"[:n])


def _lettered(frame):
    return frame.set_axis(list("abcdefgh"[: frame.shape[1]]), axis=1)


WRITERS = {
    "numpy.savetxt": _numpy("x.txt", np.savetxt),
    "numpy.savetxt .csv": _numpy("x.csv", np.savetxt),
    "numpy.savetxt ,": _numpy("x.csv", np.savetxt, delimiter=","),
    "numpy.savetxt with header and footer": _numpy("x.csv", np.savetxt, delimiter=",", header="a,b", footer="end"),
    "numpy.savetxt tab": _numpy("x.tsv", np.savetxt, delimiter="\t"),
    "numpy.save": _numpy("x.npy", np.save),
    "numpy.save in Fortran's order": _numpy("x.npy", lambda path, array: np.save(path, np.asfortranarray(array))),
    "numpy.save big-endian": _numpy("x.npy", lambda path, array: np.save(path, array.astype(">f8"))),
    "numpy.savez": _numpy("x.npz", np.savez),
    "numpy.savez_compressed": _numpy("x.npz", np.savez_compressed),
    "pandas.to_csv": _pandas("x.csv"),
    "pandas.to_csv without index": _pandas("x.csv", index=False),
    "pandas.to_csv without header": _pandas("x.csv", header=False),
    "pandas.to_csv without either": _pandas("x.csv", header=False, index=False),
    "pandas.to_csv with names": _pandas("x.csv", _lettered),
    "pandas.to_csv with names, without index": _pandas("x.csv", _lettered, index=False),
    "pandas.to_csv with a named index": _pandas("x.csv", lambda frame: _lettered(frame).rename_axis("index")),
    "pandas.to_csv with an index of two levels": _pandas(
        "x.csv", lambda frame: frame.set_axis(pd.MultiIndex.from_product([["s"], range(len(frame))]))
    ),
    "pandas.to_csv with row names": _pandas("x.csv", lambda frame: frame.set_axis([f"s{i}" for i in frame.index])),
    "pandas.to_csv with row names and no header": _pandas(
        "x.csv", lambda frame: frame.set_axis([f"s{i}" for i in frame.index]), header=False
    ),
    "pandas.to_csv with dates": _pandas(
        "x.csv", lambda frame: frame.set_axis(pd.date_range("2020", periods=len(frame)))
    ),
    "pandas.to_csv for Europe": _pandas("x.csv", sep=";", decimal=","),
    "pandas.to_csv with decimal commas in quotes": _pandas("x.csv", decimal=",", index=False),
    "pandas.to_csv tab": _pandas("x.tsv", sep="\t"),
    "pandas.to_csv |": _pandas("x.csv", sep="|", index=False),
    "pandas.to_csv with a mark": _pandas("x.csv", encoding="utf-8-sig"),
    "pandas.to_csv in UTF-16": _pandas("x.csv", encoding="utf-16"),
    "pandas.to_csv with CRLF": _pandas("x.csv", lineterminator="\r\n"),
    "pandas.to_csv all in quotes": _pandas("x.csv", quoting=1, index=False),
    "pandas.to_csv written twice": _pandas("x.csv", lambda frame: frame.rename_axis("Unnamed: 0"), sep=","),
    "pandas.to_parquet": _pandas("x.parquet", lambda frame: frame.rename(columns=str)),
    "pandas.to_parquet with a shuffled index": _pandas(
        "x.parquet", lambda frame: frame.rename(columns=str).set_axis([*range(1, len(frame)), 0])
    ),
    "pandas.to_parquet with row names": _pandas(
        "x.parquet", lambda frame: frame.rename(columns=str).set_axis([f"s{i}" for i in frame.index])
    ),
    "pandas.to_parquet with a named index": _pandas(
        "x.parquet", lambda frame: frame.rename(columns=str).set_axis([f"s{i}" for i in frame.index]).rename_axis("id")
    ),
    "pandas.to_parquet after to_csv": _pandas(
        "x.parquet", lambda frame: frame.rename(columns=str).rename_axis("Unnamed: 0").reset_index()
    ),
    "R write.csv": _foreign("x.csv", ",", named=True, heading=_quoted(",", '""')),
    "R write.csv of columns without names": _foreign("x.csv", ",", named=True, heading=_quoted(",", '""', "")),
    "R write.csv, row.names = FALSE": _foreign("x.csv", ",", heading=_quoted(",")),
    "R write.csv, numbers for names": _foreign("x.csv", ",", heading=_quoted(",", stem="")),
    "R write.csv2": _foreign("x.csv", ";", named=True, comma=True, heading=_quoted(";", '""')),
    "R write.table": _foreign("x.txt", " ", named=True, heading=_quoted(" ")),
    "R write.table, sep = ','": _foreign("x.csv", ",", named=True, heading=_quoted(",")),
    "R write.table, sep = tab": _foreign("x.txt", "\t", named=True, heading=_quoted("\t")),
    "R write.table, quote = FALSE": _foreign("x.txt", " ", heading=lambda n: " ".join(f"V{j + 1}" for j in range(n))),
    "R write.table, col.names = FALSE": _foreign("x.txt", " "),
    "MATLAB writematrix": _foreign("x.txt", ",", form="{:.15g}"),
    "MATLAB csvwrite": _foreign("x.csv", ",", form="{:.5g}"),
    "MATLAB save -ascii": _foreign("x.dat", "  ", form="{:.7e}", first="  "),
    "MATLAB writetable": _foreign("x.csv", ",", heading=lambda n: ",".join(f"Var{j + 1}" for j in range(n))),
    "Octave save -text": _foreign("x.txt", " ", first="# name: A\n# type: matrix\n# rows: 4\n# columns: 4\n "),
    "Excel CSV UTF-8": _foreign("x.csv", ",", end="\r\n", encoding="utf-8-sig"),
    "Excel CSV, German": _foreign(
        "x.CSV", ";", end="\r\n", comma=True, heading=lambda n: ";".join("äöüß"[:n]), encoding="cp1252"
    ),
    "Excel CSV, sep=": _foreign("x.csv", ";", end="\r\n", comma=True, first="sep=;\r\n"),
    "Excel text, tabs": _foreign("x.txt", "\t", end="\r\n", comma=True),
    "Excel Unicode text": _foreign("x.txt", "\t", end="\r\n", encoding="utf-16", heading=_lettered_heading("\t")),
    "Excel, empty columns and rows": lambda folder, array: _text(
        "x.csv", _rows(array, ",", end="\r\n", last=",,") + ",,,,,\r\n" * 3
    )(folder, array),
    "DOS's end of a file": lambda folder, array: _text("x.csv", _rows(array, ",", end="\r\n") + "\x1a")(folder, array),
    "old Macintosh": _foreign("x.csv", ",", end="\r"),
    "a separator at every end": _foreign("x.csv", ",", last=","),
    "a separator at every end but the heading's": _foreign("x.csv", ",", last=",", heading=_lettered_heading(",")),
    "spaces after commas": _foreign("x.csv", ", "),
    "Fortran's exponents": _foreign("x.txt", " ", form="{:.16E}"),
    "decimal commas between spaces": _foreign("x.txt", " ", comma=True),
}  # fmt: skip
#: What may mean something else, and the options that decide.
UNCLEAR = {
    "pandas.to_csv without index": {"header": 0},
    "pandas.to_csv without header": {"index_col": 0},
    "pandas.to_csv with a named index": {"index_col": 0},
    "pandas.to_csv for Europe": {"decimal": ","},
    "pandas.to_csv with decimal commas in quotes": {"decimal": ",", "sep": ",", "header": 0},
    "pandas.to_csv |": {"header": 0},
    "pandas.to_csv all in quotes": {"header": 0},
    "pandas.to_csv written twice": {"header": 0, "index_col": 0},
    "pandas.to_parquet after to_csv": {"index_col": 0},
    "R write.csv, numbers for names": {"header": 0},
    "R write.csv2": {"decimal": ","},
    "R write.table": {"skiprows": 1, "index_col": 0},  # the heading is one cell shorter
    "R write.table, sep = ','": {"skiprows": 1, "index_col": 0},
    "R write.table, sep = tab": {"skiprows": 1, "index_col": 0},
    "a separator at every end but the heading's": {"skiprows": 1},
    "Excel CSV, German": {"encoding": "cp1252", "decimal": ","},
    "Excel CSV, sep=": {"decimal": ",", "skiprows": 1},
    "Excel text, tabs": {"decimal": ","},
    "DOS's end of a file": {"comment": "\x1a"},
    "decimal commas between spaces": {"decimal": ","},
}
#: Of five digits, and of eight.
ROUNDED = {"MATLAB csvwrite": 5e-5, "MATLAB save -ascii": 5e-8}


def _refused(target, dimension, pattern):
    with pytest.raises(ValueError, match=pattern) as error:
        read_target(target, dimension)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("writer", WRITERS)
def test_what_programs_write_by_default_is_read_or_refused_by_the_option_that_decides(
    tmp_path, rng, covariance, writer
):
    samples, options = rng.standard_normal((30, 4)) + 3, UNCLEAR.get(writer, {})
    tolerance = ROUNDED.get(writer, 1e-13)
    for kind, array, expected in (
        ("samples", samples, np.cov(samples.T, bias=True)),
        ("covariance", covariance, covariance),
    ):
        target = {kind: str(WRITERS[writer](tmp_path, array))}
        for option in options:  # each is needed
            rest = {key: value for key, value in options.items() if key != option}
            _refused({**target, **rest}, 4, f"{option}: ")
        read = read_target({**target, **options}, 4)
        np.testing.assert_allclose(read, expected, rtol=100 * tolerance, atol=100 * tolerance)


@pytest.mark.parametrize(
    ("text", "options", "expected"),
    [
        ("a;b\n1,5;2\n1.000,5;4\n", {"decimal": ","}, None),
        ("1.234;2\n3.456;3\n", {"decimal": ","}, None),
        ("x\n# 5,5\n1,2\n3,4\n", {"skiprows": 1}, [[1, 2], [3, 4]]),
        ("1,2 ! note\n! 5,6\n3,4\n", {"comment": "!"}, [[1, 2], [3, 4]]),
        ("9,9\n0,1\n1,2\n3,4\n", {"header": 1}, [[1, 2], [3, 4]]),
        ("0,1\n1,2\n3,5\n", {"header": None}, [[0, 1], [1, 2], [3, 5]]),
        ("1,0.5\n2,2.5\n3,0.1\n", {"index_col": None}, [[1, 0.5], [2, 2.5], [3, 0.1]]),
        ("0.5,1,2.5\n0.25,2,3.5\n", {"index_col": 1}, [[0.5, 2.5], [0.25, 3.5]]),
        ("1,2\n3,5\n".encode("utf-16-le"), {"encoding": "utf-16-le"}, [[1, 2], [3, 5]]),
        ("1 2\n3 5\n", {"sep": " "}, [[1, 2], [3, 5]]),
        ("1:2\n3:5\n", {"sep": ":"}, [[1, 2], [3, 5]]),
        ("1::2\n3::5\n", {"sep": "::"}, None),
        ("1,2\n3,5\n", {"sep": "("}, None),
        ("1,2\n3,5\n", {"header": 2}, None),
        ("1,2\n3,5\n", {"index_col": 2}, None),
        ("1,2\n3,5\n", {"encoding": "klingon"}, None),
        ("1,2\n3,5\n", {"encoding": "zip"}, None),
        ("1,2\n3,5\n", {"skiprows": 10**9}, None),
    ],
)
def test_options_mean_what_they_mean_in_pandas(tmp_path, text, options, expected):
    (tmp_path / "x.csv").write_bytes(text if isinstance(text, bytes) else text.encode())
    if expected is None:
        _refused({"samples": str(tmp_path / "x.csv"), **options}, 2, "x.csv: ")
    else:
        np.testing.assert_array_equal(read_matrix(tmp_path / "x.csv", **options).values, expected)
        if not isinstance(text, bytes) and "#" not in text:  # a comment within the line or before the heading
            read = pd.read_csv(tmp_path / "x.csv", **{"header": None, "index_col": None, **options})
            rest = read if options.get("index_col") is None else read.reset_index(drop=True)
            np.testing.assert_array_equal(rest.to_numpy(float), expected)


@pytest.mark.parametrize("dtype", [np.int64, np.float32, np.float16])
@pytest.mark.parametrize("writer", ["numpy.save", "pandas.to_csv", "pandas.to_parquet", "R write.csv"])
def test_other_types_of_numbers_are_read(tmp_path, rng, dtype, writer):
    samples = (10 * rng.standard_normal((30, 4))).astype(dtype)
    if dtype is np.float16 and writer == "pandas.to_parquet":
        pytest.skip("pandas does not write it in every version")
    read = read_target({"samples": str(WRITERS[writer](tmp_path, samples))}, 4)
    rounding = 0 if dtype is np.int64 else 100 * np.finfo(dtype).eps  # text holds the shortest digits that give it
    tolerance = 1e-12 + (rounding if writer.endswith("csv") else 0)
    np.testing.assert_allclose(read, np.cov(samples.astype(float).T, bias=True), rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("rows", ["0,1,2\n4,5,6\n7,1,9\n", "0,1\n0.5,2.5\n1.5,3.5\n", "1,2\n0.5,2.5\n1.5,3.5\n"])
def test_a_heading_that_may_be_a_sample_is_refused(tmp_path, rows):
    (tmp_path / "x.csv").write_text(rows)
    dimension, target = 2 + rows.startswith("0,1,2"), {"samples": str(tmp_path / "x.csv")}
    _refused(
        target, dimension, r"its first row, (0, 1|1, 2)(, 2)?, may be a heading or data: say header: 0 or header: n"
    )
    values = np.array([line.split(",") for line in rows.split()], dtype=float)
    for header, used in ((None, values), (0, values[1:])):
        expected = np.cov(used.T, bias=True)
        np.testing.assert_allclose(read_target({**target, "header": header}, dimension), expected)


@pytest.mark.parametrize(
    "columns",
    [
        (0, 2, 5),  # some columns of a frame
        (2, 0, 1),
        (10, 20, 30),
        (-1, 0, 1),
        (2001, 2002, 2003),
        (0.0, 1.0, 2.0),
        (400.0, 400.5, 401.0),  # wavelengths
        pd.MultiIndex.from_tuples([(0, 0), (0, 1), (1, 0)]),
    ],
)
def test_numbers_that_name_columns_are_no_sample(tmp_path, rng, columns):
    samples = rng.standard_normal((12, 3))
    frame = pd.DataFrame(samples, columns=columns)
    frame.to_csv(tmp_path / "x.csv", index=False)
    target = {"samples": str(tmp_path / "x.csv")}
    _refused(target, 3, r"its first row, .*, may be a heading or data: say header: 0 or header: null")
    header = frame.columns.nlevels - 1
    np.testing.assert_allclose(read_target({**target, "header": header}, 3), np.cov(samples.T, bias=True))
    # With row names before them, too; the corner of pandas says that they are a heading.
    frame.set_axis([f"s{i}" for i in range(12)]).rename_axis("name").to_csv(tmp_path / "x.csv")
    _refused(target, 3, r"header: ")
    # Named in words, all that is below is a sample.
    frame.to_csv(tmp_path / "x.csv", index=False)
    text = (tmp_path / "x.csv").read_text()
    (tmp_path / "x.csv").write_text(f"a,b,c\n{text.splitlines()[-1]}\n" + "\n".join(text.splitlines()[-12:]))
    both = np.vstack([samples[-1:], samples])
    np.testing.assert_allclose(read_target({"samples": str(tmp_path / "x.csv")}, 3), np.cov(both.T, bias=True))


@pytest.mark.parametrize("first", [[0.0, 0.0, 0.0], [1.0, 0.0, 0.0], [5.0, 5.0, 5.0], [0.25, 0.75, 0.5]])
def test_a_round_first_sample_is_a_sample(tmp_path, rng, first):
    # A path from 0, or from a unit vector, as numpy and pandas write it.
    samples = np.vstack([first, rng.standard_normal((12, 3))])
    for writer in ("numpy.savetxt ,", "pandas.to_csv without either"):
        path = WRITERS[writer](tmp_path, samples)
        np.testing.assert_allclose(read_target({"samples": str(path)}, 3), np.cov(samples.T, bias=True), rtol=1e-12)


def test_whole_numbers_further_down_say_that_the_first_row_is_a_sample(tmp_path, rng):
    rows = ["3,7", "0.5,2.5", "4,1", "1.5,3.5", "2.5,0.5"]
    (tmp_path / "x.csv").write_text("\n".join(rows))
    expected = np.cov(np.array([row.split(",") for row in rows], dtype=float).T, bias=True)
    np.testing.assert_allclose(read_target({"samples": str(tmp_path / "x.csv")}, 2), expected)


@pytest.mark.parametrize("write", ["csv", "parquet"])
@pytest.mark.parametrize("rows", [[0, 3, 4, 7, 9, 11], [7, 3, 11, 0, 4, 9]])
def test_what_is_left_of_an_index_is_never_data(tmp_path, rng, rows, write):
    frame = pd.DataFrame(rng.standard_normal((12, 3)), columns=list("abc")).iloc[rows]
    path = tmp_path / f"x.{write}"
    levels = frame.set_axis(pd.MultiIndex.from_product([["u", "v"], [0, 1, 2]]))
    for stored in (frame.reset_index(), levels.reset_index()):
        if write == "csv":
            stored.to_csv(path, index=False)
        else:
            stored.to_parquet(path)
        for dimension in (3, 4, 5):
            _refused(
                {"samples": str(path)}, dimension, "its first column, .* may be row names, times or data: say index_c"
            )
    stored = frame.reset_index()
    stored.to_csv(path, index=False) if write == "csv" else stored.to_parquet(path)
    read = read_target({"samples": str(path), "index_col": 0}, 3)
    np.testing.assert_allclose(read, np.cov(frame.to_numpy().T, bias=True), rtol=1e-12)


@pytest.mark.parametrize(
    "times",
    [
        0.1 * np.arange(5),  # in equal steps
        np.arange(5, 0, -1),
        1 / 3 * np.arange(5).round(4),
        np.cumsum([0.1, 0.2, 0.1, 0.3, 0.1, 0.2, 0.2, 0.4]),
        np.arange(1, 13),
    ],
)
@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("whole", [False, True])
def test_times_and_counts_are_no_data(tmp_path, rng, times, axis, whole):
    # Beside a column, and above a row, of integers and of fractions.
    samples = rng.integers(-99, 99, (len(times), 3)) if whole else rng.standard_normal((len(times), 3))
    samples[1:3] = samples[[2, 1]] if samples[0, 0] < samples[1, 0] < samples[2, 0] else samples[1:3]
    table = np.column_stack([times, samples])
    table, option = (table, "index_col") if axis == 0 else (table.T, "header")
    pd.DataFrame(table.astype(object)).to_csv(tmp_path / "x.csv", header=False, index=False)
    target = {"samples": str(tmp_path / "x.csv")}
    _refused(target, table.shape[1], f"say {option}: 0 or {option}: null")
    data = table[:, 1:] if axis == 0 else table[1:]
    read = read_target({**target, option: 0}, data.shape[1])
    np.testing.assert_allclose(read, np.cov(data.T.astype(float), bias=True), atol=1e-9)


def test_columns_of_one_name_are_read_by_their_place(tmp_path, rng):
    samples = rng.standard_normal((9, 3))
    columns = [pa.array(column) for column in samples.T]
    pq.write_table(pa.Table.from_arrays(columns, names=["a", "a", "b"]), tmp_path / "x.parquet")
    read = read_target({"samples": str(tmp_path / "x.parquet")}, 3)
    np.testing.assert_allclose(read, np.cov(samples.T, bias=True), rtol=1e-12)


def test_what_follows_an_array_is_not_dropped(tmp_path):
    with (tmp_path / "x.npy").open("wb") as file:
        np.save(file, np.eye(2))
        np.save(file, 2 * np.eye(2))
    with pytest.raises(ValueError, match=r"\d+ bytes follow its array: save one array with numpy.save"):
        read_target({"covariance": str(tmp_path / "x.npy")}, 2)
    (tmp_path / "x.npy").write_bytes(_written(lambda file: np.save(file, np.eye(2))) + b"1234")
    with pytest.raises(ValueError, match="4 bytes follow its array"):
        read_target({"covariance": str(tmp_path / "x.npy")}, 2)


def test_samples_whose_squares_overflow_are_refused(tmp_path, rng):
    np.save(tmp_path / "x.npy", 1e200 * rng.standard_normal((9, 3)))
    with pytest.raises(ValueError, match="must be finite, but it holds 9 NaN or infinite entries"):
        read_target({"samples": str(tmp_path / "x.npy")}, 3)


def test_integers_that_begin_with_one_are_samples(tmp_path):
    (tmp_path / "x.csv").write_text("1,2,3\n4,5,6\n7,8,10\n")
    expected = np.cov(np.array([[1, 2, 3], [4, 5, 6], [7, 8, 10]]).T, bias=True)
    np.testing.assert_allclose(read_target({"samples": str(tmp_path / "x.csv")}, 3), expected)


def test_a_covariance_of_integers_needs_no_option(tmp_path):
    (tmp_path / "x.csv").write_text("1,2\n2,5\n")
    np.testing.assert_array_equal(read_target({"covariance": str(tmp_path / "x.csv")}, 2), [[1, 2], [2, 5]])
    (tmp_path / "x.csv").write_text("400,410\n1,2\n2,5\n")
    target = {"covariance": str(tmp_path / "x.csv")}
    _refused(target, 2, r"must be a square matrix, not of shape \(3, 2\); .* header or index_col")
    np.testing.assert_array_equal(read_target({**target, "header": 0}, 2), [[1, 2], [2, 5]])


def test_a_count_of_the_rows_is_refused_whatever_the_dimension(tmp_path, rng):
    samples = rng.standard_normal((20, 3))
    frame = pd.DataFrame(samples, columns=list("abc"))
    frame.insert(0, "number", range(1, 21))
    frame.to_csv(tmp_path / "x.csv", index=False)
    frame.to_parquet(tmp_path / "x.parquet")
    for name in ("x.csv", "x.parquet"):
        target = {"samples": str(tmp_path / name)}
        for dimension in (3, 4):
            _refused(
                target, dimension, "its first column, 1, 2, 3, may be row names, times or data: say index_col: 0 or"
            )
        _refused({**target, "index_col": 4}, 4, r"no numbers beside a heading and index_col: \[4\]")
        read = read_target({**target, "index_col": 0}, 3)
        np.testing.assert_allclose(read, np.cov(samples.T, bias=True), rtol=1e-12)


def test_a_column_of_labels_is_no_data(tmp_path, rng):
    frame = pd.DataFrame(rng.standard_normal((6, 3)), columns=list("abc"))
    frame["species"] = ["setosa", "virginica"] * 3
    frame.to_csv(tmp_path / "x.csv", index=False)
    with pytest.raises(ValueError, match=r"row 1, column 4 \('species'\): 'setosa' is no finite number"):
        read_target({"samples": str(tmp_path / "x.csv")}, 3)
    frame.to_parquet(tmp_path / "x.parquet")
    with pytest.raises(ValueError, match=r"column 'species' must hold real numbers, not (large_)?string"):
        read_target({"samples": str(tmp_path / "x.parquet")}, 3)


TEXTS = [
    (
        "1.5,2\n3,NA\n5,6\n7,8\n",
        r"row 2, column 2: 'NA' is no finite number; read with sep: ',', decimal: '.', header: N",
    ),
    ("NA,NA\n1.5,2\n5,6\n7,8\n", r"row 1, column 1: 'NA' is no finite number"),
    ("a,b\n1,2\n,4\n", r"row 2, column 1 \('a'\): a value is missing; .*header: 0"),
    ("a;b\n1,5;2\n3;#DIV/0!\n", r"its rows hold ';' and ',': say sep, or decimal"),
    ("1.5,2\n#REF!,2\n3,4\n", r"'#REF!' is no finite number"),
    ("1.5,inf\n1,2\n3,4\n", r"row 1, column 2: 'inf' is no finite number"),
    ("1.5,1e999\n1,2\n3,4\n", r"must be finite, but row 1, column 2 is inf"),
    ("1,2\n3\n", r"row 1, column 1: '1,2' is no finite number; read with sep: '\\\\s\+'"),
    ("1,2\n3,4\n5\n", r"row 3, column 2: a value is missing"),
    ("1;2\n3,4\n", r"Expected 1 fields in line 2, saw 2; read with sep: ','"),
    ("1.5\n2.5,3.5\n4,5\n", r"Expected 1 fields in line 2, saw 2; read with sep: ','"),
    ("# c\n1.5,2\n\n2.5,3.5,4\n4,5\n", r"Expected 2 fields in line 4, saw 3"),
    ("a,b,c,d\n1,2\n", r"row 1, column 3 \('c'\): a value is missing"),
    ('"1,234.5","2,000.1"\n"3,000.2","4,000.9"\n', r"'1,234.5' is no finite number; .*decimal: '.'"),
    ('"1,234","2,345"\n"3,456","4,567"\n', r"'1,234' is no finite number"),
    ("1.234,5;2\n1.234,5;2\n", r"its rows hold ';' and ',': say sep, or decimal"),
    ("1.234.567;2\n1.234.567;3\n", r"'1.234.567' is no finite number"),
    ("1 234;2\n3 456;3\n", r"'1 234' is no finite number"),
    ("1,5;2,5\n1;2\n3;5\n", r"'1,5' is no finite number"),  # no heading, though no number with points
    ("1.5,2x\n1.5,3\n", r"row 1, column 2: '2x' is no finite number"),
    ("1.5,2\n1.5,3x\n", r"row 2, column 2: '3x' is no finite number"),
    ("1.5,2\n1_000,3\n", r"'1_000' is no finite number"),
    ("1.5,2\nTrue,3\n", r"'True' is no finite number"),
    ("True,1.5\nFalse,3.5\n", r"row 1, column 1: 'True' is no finite number"),
    ("1.5,2\nx;y,3\n", r"its rows hold ';' and ','"),
    ("1.5,2\n(1+2j),3\n", r"'\(1\+2j\)' is no finite number"),
    ("1.5,2\n5%,3\n", r"'5%' is no finite number"),
    ("1.5,2\n0x1F,3\n", r"'0x1F' is no finite number"),
    ("1.5,2\n\u0663,3\n", r"is no finite number"),
    ("1.5,2\n" + "1" * 50_000 + "x,3\n", r"'1{40}' is no finite number"),
    ('1.5,2\n"3,4\n', r"EOF inside string"),
    ("[[1. 2.]\n [2. 3.]]\n", r"it is JSON, or an array as it is printed"),
    ("a,b\n", r"its 2 columns hold no numbers beside a heading and index_col: \[0, 1\]"),
    ("a,b\nc,d\n", r"its 2 columns hold no numbers beside a heading and index_col: \[0, 1\]"),
    (",,\n,,\n", r"it holds no numbers"),
    ("# nothing\n\n", r"it holds no numbers"),
    ("\n\n", r"it holds no numbers"),
]


@pytest.mark.parametrize(("text", "message"), TEXTS)
def test_text_that_is_not_clear_is_refused_in_one_line(tmp_path, text, message):
    (tmp_path / "x.csv").write_text(text, encoding="utf-8")
    for kind in ("samples", "covariance"):
        with pytest.raises(ValueError, match=message) as error:
            read_target({kind: str(tmp_path / "x.csv")}, 2)
        assert "\n" not in str(error.value)


def _zipped(name, content=b"x" * 9):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr(name, content)
    return buffer.getvalue()


def _written(write):
    buffer = io.BytesIO()
    write(buffer)
    return buffer.getvalue()


LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a2146\nsize 12345\n"
OTHERS = {
    "a Git LFS pointer": LFS,
    "a git-annex pointer": b"/annex/objects/SHA256E-s10--0.csv\n",
    "an HTML page": b"\n<!DOCTYPE html>\n<html><body>404</body></html>",
    "an XML document": b'<?xml version="1.0"?><a>1</a>',
    "JSON": b"[[1, 2], [2, 3]]",
    "compressed": gzip.compress(b"1,2\n"),
    "a zip archive": _zipped("x.csv"),
    "an Excel workbook": _zipped("xl/workbook.xml"),
    "an archive of NumPy arrays": _zipped("arr_0.npy"),
    "a PyTorch file": _zipped("archive/data.pkl"),
    "a NumPy array": _written(lambda file: np.save(file, np.eye(2))),
    "a MATLAB file": _written(lambda file: scipy.io.savemat(file, {"A": np.eye(2)})),
    "a pickle": pickle.dumps(np.eye(2)),
    "a pickle ": pickle.dumps(np.eye(2), protocol=0),
    "a pickle  ": pd.DataFrame(np.eye(2)).pipe(pickle.dumps),
    "an Arrow": _written(lambda file: pd.DataFrame({"a": [1.0]}).to_feather(file)),
    "an HDF5 file": b"\x89HDF\r\n\x1a\n" + bytes(20),
    "a Matrix Market file": _written(lambda file: scipy.io.mmwrite(file, np.eye(2))),
    "a PDF": b"%PDF-1.7",
    "UTF-16 text without": "1,2\n2,5\n".encode("utf-16-le"),
    "binary, of no format": np.arange(1, 9).astype(np.float32).tobytes().replace(b"\0", b"\1"),
    "binary": np.random.default_rng(0).standard_normal(9).tobytes() + b"\0",
    "empty": b"",
}


@pytest.mark.parametrize("suffix", [".csv", ".npy", ".parquet", ".txt"])
@pytest.mark.parametrize("kind", OTHERS)
def test_files_that_are_something_else_are_named(tmp_path, kind, suffix):
    if kind == "a NumPy array" and suffix == ".npy":
        pytest.skip("it is what its name says")
    (tmp_path / f"x{suffix}").write_bytes(OTHERS[kind])
    with pytest.raises(ValueError, match=rf"x{suffix}: it is {kind.strip()}") as error:
        read_target({"covariance": str(tmp_path / f"x{suffix}")}, 2)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.array([[1, None], [None, 1]], dtype=object), "Python objects"),
        (np.zeros(3, dtype=[("a", float), ("b", float)]), "must hold real numbers, not .*'a', '<f8'.*'b', '<f8'"),
        (np.array([["1", "2"]]), "must hold real numbers, not <U1"),
        (np.array([["2020-01-01"]], dtype="datetime64[D]"), r"must hold real numbers, not datetime64\[D\]"),
        (np.eye(2, dtype=complex), "must hold real numbers, not complex128"),
        (np.float64(3), r"must hold a matrix that is not empty, not an array of shape \(\)"),
        (np.zeros(4), r"must hold a matrix that is not empty, not an array of shape \(4,\)"),
        (np.zeros((0, 4)), r"must hold a matrix that is not empty, not an array of shape \(0, 4\)"),
    ],
)
def test_arrays_that_are_no_matrix_of_numbers_are_named(tmp_path, array, message):
    np.save(tmp_path / "x.npy", array, allow_pickle=True)
    with pytest.raises(ValueError, match=message):
        read_target({"covariance": str(tmp_path / "x.npy")}, 2)


def test_an_archive_of_several_arrays_is_refused_by_their_names(tmp_path):
    np.savez(tmp_path / "x.npz", mean=np.zeros(2), covariance=np.eye(2))
    with pytest.raises(ValueError, match="it must hold one array, not mean, covariance"):
        read_target({"covariance": str(tmp_path / "x.npz")}, 2)


def test_what_unpacks_beyond_all_proportion_is_refused_before_it_is_read(tmp_path, monkeypatch):
    monkeypatch.setattr(matrix_files, "_SMALL", 2**16)
    np.savez_compressed(tmp_path / "x.npz", np.zeros((500, 500)))
    pq.write_table(pa.table({"a": np.zeros(10**6), "b": np.zeros(10**6)}), tmp_path / "x.parquet")
    for name, size in (("x.npz", 2e6), ("x.parquet", 1.6e7)):
        tracemalloc.start()
        _refused(
            {"samples": str(tmp_path / name)}, 2, f"x.{name[2:]}: (.* )?it would take {size / 1e9:.3g} GB of memory"
        )
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < size / 4
    np.savez_compressed(tmp_path / "x.npz", np.random.default_rng(0).standard_normal((500, 2)))
    assert read_target({"samples": str(tmp_path / "x.npz")}, 2).shape == (2, 2)


def test_what_does_not_fit_in_memory_is_refused_before_it_is_read(tmp_path, monkeypatch):
    monkeypatch.setattr(matrix_files, "memory_of_machine", lambda: 1e4)
    for name in ("x.npy", "x.npz", "x.csv", "x.parquet"):
        path = tmp_path / name
        array = np.random.default_rng(0).standard_normal((700, 2))
        np.savez(path, array) if name == "x.npz" else save(path, array)
        _refused({"samples": str(path)}, 2, "it would take .* GB of memory, more than there is")


@pytest.mark.parametrize("name", ["/dev/zero", "x.csv"])
def test_pipes_and_devices_are_refused(tmp_path, name):
    if name == "x.csv":
        os.mkfifo(tmp_path / name)
    _refused({"samples": str(tmp_path / name)}, 2, "it is a pipe or device, not a file")


def test_containers_that_people_have_are_named(tmp_path):
    scipy.sparse.save_npz(tmp_path / "x.npz", scipy.sparse.eye(3, format="csr"))
    _refused(
        {"covariance": str(tmp_path / "x.npz")}, 3, r"sparse matrix of SciPy: save matrix.toarray\(\) with numpy.save"
    )
    scipy.io.netcdf_file(tmp_path / "x.nc", "w").close()
    _refused({"covariance": str(tmp_path / "x.nc")}, 3, r"a NetCDF file \(.nc\): read the array.* numpy.save")
    (tmp_path / "x.h5ad").write_bytes(OTHERS["an HDF5 file"])
    _refused(
        {"covariance": str(tmp_path / "x.h5ad")}, 3, r"not '.h5ad'; it is an HDF5 file \(AnnData .h5ad, .* numpy.save"
    )


def test_missing_values_of_a_table_are_named(tmp_path):
    pq.write_table(pa.table({"a": [1.0, 2.0], "b": [3.0, None]}), tmp_path / "x.parquet")
    with pytest.raises(ValueError, match="must be finite, but row 2, column 2 is nan"):
        read_target({"samples": str(tmp_path / "x.parquet")}, 2)


# Precision


@pytest.mark.parametrize("unit", [1, 1e-12, 1e12])
@pytest.mark.parametrize("suffix", [".npy", ".parquet", ".csv"])
def test_a_float32_covariance_is_checked_in_its_own_precision(tmp_path, rng, suffix, unit):
    samples = np.sqrt(unit) * rng.standard_normal((20, 64))
    exact = np.cov(samples.T, bias=True)
    single = exact.astype(np.float32)
    assert np.linalg.eigvalsh(single.astype(float))[0] < -1e-8 * np.abs(single).max()  # not what float64 asks for
    if suffix == ".csv":
        pd.DataFrame(single).to_csv(tmp_path / "x.csv")
    else:
        save(tmp_path / f"x{suffix}", single)
    read = read_target({"covariance": str(tmp_path / f"x{suffix}")}, 64)
    assert read.dtype == np.float64
    np.testing.assert_allclose(read, exact, atol=1e-5 * np.abs(exact).max())
    loss = BuresWasserstein(read)
    if suffix != ".csv":
        assert np.sum(loss.eigenvalues > 0) == np.sum(BuresWasserstein(single).eigenvalues > 0) == 19


@pytest.mark.parametrize("suffix", [".npy", ".csv"])
def test_a_covariance_that_is_indefinite_beyond_its_precision_is_refused(tmp_path, suffix):
    matrix = np.array([[1, 1.001], [1.001, 1]], dtype=np.float32)
    if suffix == ".csv":
        np.savetxt(tmp_path / "x.csv", matrix, delimiter=",", fmt="%.5g")
    else:
        np.save(tmp_path / "x.npy", matrix)
    with pytest.raises(ValueError, match=r"must be positive semidefinite, but its smallest eigenvalue is -0.00(1|09)"):
        read_target({"covariance": str(tmp_path / f"x{suffix}")}, 2)
    np.save(tmp_path / "x.npy", np.array([[1, 0.5], [0.501, 1]], dtype=np.float32))
    with pytest.raises(ValueError, match="must be symmetric"):
        read_target({"covariance": str(tmp_path / "x.npy")}, 2)


def test_small_eigenvalues_of_a_definite_matrix_are_kept(tmp_path):
    np.save(tmp_path / "x.npy", np.diag([1, 1e-9]).astype(np.float32))
    np.testing.assert_allclose(np.diag(read_target({"covariance": str(tmp_path / "x.npy")}, 2)), [1, 1e-9], rtol=1e-6)


def test_five_digits_of_a_singular_covariance_are_enough(tmp_path, rng):
    samples = rng.standard_normal((5, 12))
    exact = np.cov(samples.T, bias=True)
    np.savetxt(tmp_path / "x.csv", exact, delimiter=",", fmt="%.5g")  # MATLAB's csvwrite
    assert read_matrix(tmp_path / "x.csv", square=True).precision == pytest.approx(5e-5)
    np.testing.assert_allclose(read_target({"covariance": str(tmp_path / "x.csv")}, 12), exact, atol=1e-3)


def test_zeros_at_the_end_are_no_digits(tmp_path, rng):
    # float32 as NumPy before 2.1 writes it.
    single = (1e12 * np.cov(rng.standard_normal((20, 64)).T, bias=True)).astype(np.float32)
    rows = [",".join(f"{float(f'{value:.8g}'):.1f}" for value in row) for row in single]
    (tmp_path / "x.csv").write_text("\n".join(rows))
    assert read_matrix(tmp_path / "x.csv", square=True).precision == pytest.approx(5e-8)
    assert read_target({"covariance": str(tmp_path / "x.csv")}, 64).shape == (64, 64)


def test_constant_columns_have_no_variance(tmp_path, rng):
    samples = rng.standard_normal((9, 3))
    samples[:, 1] = 3.1  # whose mean over nine is not 3.1 in floats
    np.save(tmp_path / "x.npy", samples)
    covariance = read_target({"samples": str(tmp_path / "x.npy")}, 3)
    assert not covariance[1].any()
    assert np.sum(BuresWasserstein(covariance).eigenvalues > 0) == 2


# Mistakes


def with_entry(matrix, value, place=(0, 1)):
    changed = matrix.copy()
    changed[place] = value
    return changed


MISTAKES = [
    ("covariance", ".npy", lambda S: S[:3], r"target.npy: a covariance must be a square matrix, not of shape \(3, 4\)"),
    ("covariance", ".csv", lambda S: with_entry(S, 9), r"target.csv must be symmetric"),
    ("covariance", ".npy", lambda S: S - 50 * np.eye(4), r"target.npy must be positive semidefinite.*eigenvalue is -"),
    (
        "covariance",
        ".parquet",
        lambda S: with_entry(S, np.nan),
        r"target.parquet must be finite, but row 1, column 2 is nan",
    ),
    (
        "covariance",
        ".npy",
        lambda S: S[None],
        r"target.npy: .* a matrix that is not empty, not an array of shape \(1, 4, 4\)",
    ),
    ("covariance", ".npy", lambda S: S[:2, :2], r"it is of dimension 2, but the experiment of dimension 4"),
    ("samples", ".csv", lambda S: S[:1], r"an estimate needs at least 2 samples \(rows\), not 1"),
    ("samples", ".npy", lambda S: S[:, :3], r"it is of dimension 3, but the experiment of dimension 4"),
    ("samples", ".npy", lambda S: with_entry(S, np.inf), r"must be finite, but row 1, column 2 is inf"),
]


@pytest.mark.parametrize(("kind", "suffix", "change", "message"), MISTAKES)
def test_a_wrong_matrix_is_refused_in_one_line(tmp_path, covariance, kind, suffix, change, message):
    path = save(tmp_path / f"target{suffix}", change(covariance))
    with pytest.raises(ValueError, match=message) as error:
        read_target({kind: path}, 4)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("missing.npy", None, "missing.npy: there is no such file"),
        (".", None, "it is a folder, not a file"),
        ("target.mat", b"1", r"the format must be one of .npy, .npz, .csv.*, not '.mat'; it is text"),
        ("target.mat", b"MATLAB 5.0 MAT-file", r"not '.mat'; it is a MATLAB file \(.mat\): save it with writematrix"),
        (
            "target.xlsx",
            b"PK\x03\x04xl/workbook.xml",
            r"not '.xlsx'; it is an Excel workbook \(.xls, .xlsx\): save it as CSV",
        ),
        ("target.csv.gz", gzip.compress(b"1", mtime=0), r"not '.gz'; it is compressed .*: unpack it"),
        ("target.csv.bz2", b"BZh91AY", r"not '.bz2'; it is compressed .*: unpack it"),
        ("target.feather", b"ARROW1", r"not '.feather'; it is an Arrow \(Feather\) file: save the table as Parquet"),
        ("target", b"1", r"the format must be one of .*, not 'none'"),
        ("target.npy", b"no array", "target.npy: it is text"),
        ("target.npy", b"\x93NUMPY\x01\x00v\x00", "target.npy: "),
        ("target.npz", b"PK\x03\x04", "target.npz: "),
        ("target.parquet", b"PAR1", "target.parquet: "),
    ],
)
def test_a_wrong_file_is_refused_in_one_line(tmp_path, name, content, message):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=message) as error:
        read_target({"covariance": str(tmp_path / name)}, 4)
    assert "\n" not in str(error.value)


def test_targets_that_are_drawn_have_no_file():
    assert files_of({"spectrum": "zipf", "mode": "eigenvalues"}) == files_of({"dataset": "digits"}) == []
    assert files_of({"samples": "x.npy"}) == ["x.npy"]
    several = {"barycenter": {"samples": ["x.npy"], "groups": "g.csv", "weights": [1, 2]}}
    assert files_of(several) == ["x.npy", "g.csv"]
    assert stream_of(4, several) == {"target": "x.npy, g.csv", "drawn": False}
    several["barycenter"]["header"] = None
    assert stream_of(4, several) == {"target": "x.npy, g.csv, header: None", "drawn": False}


def test_a_file_is_hashed_once_unless_it_changes(tmp_path, monkeypatch):
    hashed, original = [], hashlib.file_digest
    monkeypatch.setattr(hashlib, "file_digest", lambda file, name: hashed.append(file.name) or original(file, name))
    target = {"barycenter": {"samples": [str(tmp_path / "a.csv"), str(tmp_path / "b.csv")]}}
    for name in "ab":
        (tmp_path / f"{name}.csv").write_text("1,2\n")
    first = [checksums_of(target) for _ in range(80)]
    assert first == [[hashlib.sha256(b"1,2\n").hexdigest()] * 2] * 80
    assert [Path(name).name for name in hashed] == ["a.csv", "b.csv"]
    (tmp_path / "b.csv").write_text("1,20\n")
    assert checksums_of(target) == [first[0][0], hashlib.sha256(b"1,20\n").hexdigest()]
    assert len(hashed) == 3


def test_a_cell_trains_on_the_target_of_its_file(tmp_path, covariance):
    settings = {
        "study_seed": 1,
        "kind": "flow",
        "loss": "bures-wasserstein",
        "dimension": 4,
        "target": {"covariance": save(tmp_path / "own.npy", covariance)},
        "initialization": {"kind": "small", "scale": 0.1},
        "integration": {"rtol": 1e-6, "excess_tolerance": 1e-8, "max_time": 100, "max_steps": 1000, "samples": 10},
        **{"epsilon": 0, "smin": -1, "rank": 4, "depth": 2},
    }
    runs = run_cell(settings, range(2))["runs"].to_pylist()
    eigenvalues = np.linalg.eigvalsh(covariance)[::-1]
    for run in runs:
        np.testing.assert_allclose(run["eigenvalues_target"], eigenvalues, rtol=1e-12)
        np.testing.assert_allclose(run["eigenvalues_final"], eigenvalues, rtol=1e-3)
    assert (
        runs[0]["eigenvalues_initial"] != runs[1]["eigenvalues_initial"] or runs[0]["alignment"] != runs[1]["alignment"]
    )


def test_several_covariances_are_read_with_their_weights(tmp_path, rng):
    stack = [A @ A.T for A in rng.standard_normal((3, 4, 6))]
    files = [save(tmp_path / f"{i}.csv", matrix) for i, matrix in enumerate(stack)]
    found, weights = read_covariances({"barycenter": {"covariances": files, "weights": [1, 2, 5]}}, 4)
    np.testing.assert_allclose(found, stack, rtol=1e-15)
    np.testing.assert_allclose(weights, [1 / 8, 1 / 4, 5 / 8], rtol=1e-15)


def test_samples_by_group_are_those_of_a_file_each(tmp_path, rng):
    samples, labels = rng.standard_normal((60, 4)), rng.integers(3, 6, 60)
    several = [save(tmp_path / f"{g}.npy", samples[labels == g]) for g in (3, 4, 5)]
    one = {"samples": [save(tmp_path / "x.npy", samples)], "groups": save(tmp_path / "g.npy", labels[:, None])}
    by_group, weights = read_covariances({"barycenter": one}, 4)
    np.testing.assert_array_equal(by_group, read_covariances({"barycenter": {"samples": several}}, 4)[0])
    np.testing.assert_allclose(by_group[1], np.cov(samples[labels == 4].T, bias=True), rtol=1e-12)
    np.testing.assert_allclose(weights, 1 / 3)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({}, "exactly one of the keys 'covariances' and 'samples' is needed"),
        ({"covariances": ["s.npy"], "samples": ["x.npy"]}, "exactly one of the keys"),
        ({"covariances": ["s.npy", "absent.npy"]}, "there is no such file"),
        ({"covariances": ["x.npy"]}, "a covariance must be a square matrix"),
        ({"covariances": ["zero.npy"]}, "its covariance is zero"),
        ({"samples": ["x.npy", "x.npy"], "groups": "g.npy"}, "groups need a single file of samples"),
        ({"covariances": ["s.npy"], "groups": "g.npy"}, "groups need a single file of samples"),
        ({"samples": ["x.npy"], "groups": "short.npy"}, "one number for each of the 6 rows"),
        ({"samples": ["x.npy"], "groups": "half.npy"}, "groups must be whole numbers, not 0.5"),
        ({"samples": ["x.npy"], "groups": "g.npy"}, "group 7: an estimate needs at least 2 samples"),
        ({"covariances": ["s.npy"], "weights": [1, 2]}, "weights must be 1 numbers > 0, not [1, 2]"),
        ({"covariances": ["s.npy"], "weights": [-1]}, "weights must be 1 numbers > 0, not [-1]"),
        ({"covariances": ["wide.npy"]}, "of dimension 3, but the experiment of dimension 2"),
    ],
)
def test_wrong_sets_of_covariances_are_refused_in_one_line(tmp_path, monkeypatch, given, message):
    monkeypatch.chdir(tmp_path)
    np.save("s.npy", np.eye(2))
    np.save("zero.npy", np.zeros((2, 2)))
    np.save("wide.npy", np.eye(3))
    np.save("x.npy", np.arange(12.0).reshape(6, 2) ** 2)
    np.save("g.npy", [[1], [1], [1], [2], [2], [7]])
    np.save("short.npy", [[1], [1]])
    np.save("half.npy", [[1], [1], [1], [2], [2], [0.5]])
    with pytest.raises(ValueError, match=r"^[^\n]*$") as error:
        read_covariances({"barycenter": given}, 2)
    assert message in str(error.value)
