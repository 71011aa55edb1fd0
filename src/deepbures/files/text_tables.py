"""Tables of numbers in text: what can mean only one thing is read, and options of `pandas.read_csv` decide the rest.

Without options:

1. Text is UTF-8, or UTF-16 with a byte-order mark. Blank lines, lines that begin with # (but not #N/A, #REF!, …), empty
   rows at the end and empty columns at the right are skipped.
2. The separator is the only one of tab, semicolon, bar and comma in the rows below the first, outside of quotes; if
   there is none, it is white space. The decimal sign is the point.
3. The first row is a heading if its cells begin with letters or are dates, or if its first cell is empty.
4. The first columns are row names if their headings are empty, or if their cells begin with letters or are dates.

Numbers that may be a heading or row names are refused, see `must_not_label`.
"""

import io
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..linalg.psd import Array

#: A row or column by its number, none, or the one that the rules above find.
Place = int | Literal["infer"] | None

_COMMENT = re.compile(r"\s*#(?![A-Z#])")
#: What names a column or row: no word for a missing value, and nothing that may be a number.
_NAME = re.compile(r"(?i)(?!(na|n/a|nan|nat|null|none|inf|infinity|true|false) *$)([^\W\d]|\d+([-/]\d+[-/]\d|:\d))")
_NUMBER = re.compile(r"[+-]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]+)? *")
_SWAPPED = str.maketrans(",.", ".,")
#: Numbers with fewer digits are written by hand and exact; MATLAB's dlmwrite rounds to five.
_FEWEST_DIGITS = 5
#: So many numbers are not in order by accident; steps that differ by less than this fraction are equal.
_MANY, _EVEN = 8, 1e-3
_LABELS = {"header": "first row, {}, may be a heading", "index_col": "first column, {}, may be row names, times"}


@dataclass(frozen=True)
class TextOptions:
    """How text is read, as in `pandas.read_csv`; what is not given, the rules of this module decide.

    Attributes
    ----------
    sep
        Separator: one character, or `\\s+` for white space.
    decimal
        Decimal sign: `.` or `,`.
    header
        Number of the row with the heading, from 0, after `skiprows`; None: there is no heading.
    index_col
        Number of the column with row names, from 0; None: there are none.
    comment
        What begins the rest of a line that is no data.
    skiprows
        Number of lines at the beginning that are no data.
    encoding
        Such as `latin-1`.
    """

    sep: str | None = None
    decimal: str = field(default=".", metadata={"enum": (".", ",")})
    header: Place = field(default="infer", metadata={"minimum": 0, "nullable": True})
    index_col: Place = field(default="infer", metadata={"minimum": 0, "nullable": True})
    comment: str | None = None
    skiprows: int = field(default=0, metadata={"minimum": 0})
    encoding: str | None = None


class Table(NamedTuple):
    """Numbers in a file.

    Attributes
    ----------
    values : (m, n)
        Rows as in the file, without heading and row names.
    precision
        Relative rounding error of the values, from their type or from their digits in a text file.
    """

    values: Array
    precision: float


def read_text(data: bytes, square: bool, options: TextOptions) -> Table:
    """Numbers in a text file.

    Parameters
    ----------
    data
        Content of the file.
    square
        Whether a square matrix is expected.
    options
        How it is read.

    Raises
    ------
    ValueError
        If the text has no meaning or more than one.
    """
    sep, header = options.sep, options.header
    encoding = options.encoding or ("utf-16" if data.startswith((b"\xff\xfe", b"\xfe\xff")) else "utf-8-sig")
    try:
        lines = _lines(data.decode(encoding), options.skiprows)
        sep = sep or _separator(lines, options.decimal)
        cells = _cells(lines, sep, options.comment)
        if header == "infer":
            header = 0 if _is_heading(cells[0].tolist()) else None
        names, body = ([], cells) if header is None else (cells[header].tolist(), cells[header + 1 :])
        of_rows = [names[j : j + 1] == [""] or all(map(_NAME.match, column)) for j, column in enumerate(body.T)]
        index = index_columns(of_rows, options.index_col)
        numbers = body
        if options.decimal == ",":
            numbers = np.array([[cell.translate(_SWAPPED) for cell in row] for row in body], dtype=object)
        wrong = np.array([[not _NUMBER.fullmatch(number) for number in row] for row in numbers])
        for i, j in ((i, j) for i, j in np.argwhere(wrong) if j not in index):
            what = f"{body[i, j][:40]!r} is no finite number" if body[i, j] else "a value is missing"
            raise ValueError(f"row {i + 1}, column {j + 1}{f' ({names[j][:40]!r})' if names else ''}: {what}")
        numbers = np.delete(numbers, index, axis=1)
        values = numbers.astype(float, order="C")
        whole = np.array([[not set(number) & set(".eE") for number in row] for row in numbers])
        is_square = square and len(values) == values.shape[1]  # all of its numbers belong to it
        if not is_square and not names and options.header == "infer":
            must_not_label(values, whole, "header")
        if not is_square and options.index_col == "infer":
            must_not_label(values.T, whole.T, "index_col")
    except (ValueError, LookupError) as error:
        read = vars(options) | {"sep": sep, "header": header, "encoding": encoding}
        seen = ", ".join(f"{name}: {value!r}" for name, value in read.items())
        raise ValueError(f"{str(error).strip()}; read with {seen}") from None
    return Table(values, _precision(numbers.ravel().tolist()))


def _lines(text: str, skiprows: int) -> list[str]:
    """The lines of a text; those that are no rows are empty, so that pandas reports the lines of the file."""
    lines = ["" if i < skiprows or _COMMENT.match(line) else line for i, line in enumerate(text.splitlines())]
    if not any(map(str.strip, lines)):
        raise ValueError("it holds no numbers")
    return lines


def _separator(lines: list[str], decimal: str) -> str:
    """The separator, by rule 2."""
    rows = [re.sub(r'"[^"]*"', "", line) for line in lines if line.strip()]
    found = [sep for sep in "\t;|," if sep != decimal and any(sep in row for row in rows[1:] or rows)]
    if len(found) > 1:
        raise ValueError(f"its rows hold {' and '.join(map(repr, found))}: say sep, or decimal: ','")
    return found[0] if found else r"\s+"


def _cells(lines: list[str], sep: str, comment: str | None) -> NDArray[np.object_]:
    """The cells of the rows, without empty rows at the end and empty columns at the right."""
    import pandas as pd

    plain = {"header": None, "dtype": str, "na_filter": False, "skipinitialspace": True, "engine": "c"}
    cells = pd.read_csv(io.StringIO("\n".join(lines)), sep=sep, comment=comment, **plain).to_numpy(dtype=object)
    filled = cells != ""
    if not filled.any():
        raise ValueError("it holds no numbers")
    return cells[: np.flatnonzero(filled.any(axis=1))[-1] + 1, : np.flatnonzero(filled.any(axis=0))[-1] + 1]


def _is_heading(first: list[str]) -> bool:
    """Whether the first row is a heading, by rule 3."""
    return any(first) and (not first[0] or all(_NAME.match(cell) for cell in first if cell))


def index_columns(of_rows: Sequence[bool], index_col: Place) -> list[int]:
    """The columns that hold row names.

    Parameters
    ----------
    of_rows
        Of each column, whether it cannot hold numbers.
    index_col
        As in `TextOptions`; by default all columns before the first that can hold numbers.

    Raises
    ------
    ValueError
        If there is no such column, or none is left.
    """
    if index_col == "infer":
        index = list(range([*of_rows, False].index(False)))
    else:
        index = [] if index_col is None else [index_col]
    if len(index) == len(of_rows) or max(index, default=0) >= len(of_rows):
        raise ValueError(f"its {len(of_rows)} columns hold no numbers beside a heading and index_col: {index}")
    return index


def must_not_label(values: Array, whole: NDArray[np.bool_], option: str) -> None:
    """Refuse numbers whose first row may be a heading, or, transposed, whose first column may be row names or times.

    Parameters
    ----------
    values : (m, n)
        Numbers in a file.
    whole : (m, n)
        Which of them are written as whole numbers.
    option
        Which decides: `header`, or `index_col` if values are transposed.

    Raises
    ------
    ValueError
        If the first row holds whole numbers and later ones do not, or it counts 0, 1, 2, …, or is the only one with at
        least three numbers in equal steps or with at least eight in order.
    """
    with np.errstate(over="ignore", invalid="ignore"):
        steps = np.diff(values, axis=1)
        ordered = np.all(steps > 0, axis=1) | np.all(steps < 0, axis=1)
        even = ordered & np.all(np.abs(steps - steps[:, :1]) <= _EVEN * np.abs(steps[:, :1]), axis=1)
    integers, width = np.all(whole, axis=1).tolist(), values.shape[1]
    counts = integers[0] and (np.array_equal(values[0], range(width)) or not any(integers[np.argmin(integers) :]))
    alone = any(width >= least and one[0] and not one[1:].any() for one, least in ((even, 3), (ordered, _MANY)))
    if len(values) > 1 and (counts or alone):
        first, what = ", ".join(f"{value:g}" for value in values[0, :3]), _LABELS[option]
        raise ValueError(f"its {what.format(first)} or data: say {option}: 0 or {option}: null")


def _precision(numbers: list[str]) -> float:
    """Relative rounding error of numbers in text, from the largest number of digits."""
    digits = max(len(number.lower().partition("e")[0].replace(".", "").strip("+-0 ")) for number in numbers)
    is_rounded = _FEWEST_DIGITS <= digits < 15 and any("." in number for number in numbers)
    return 0.5 * 10.0 ** (1 - digits) if is_rounded else float(np.finfo(float).eps)
