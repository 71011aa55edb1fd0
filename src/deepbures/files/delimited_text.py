"""Tables of numbers in text: separated by comma, semicolon, tab or space, with decimal comma, heading, row names.

Files that numpy, pandas, R, MATLAB and Excel write by default are read if they have only one meaning; others are
refused with a one-line message. The rules, in order:

1. Text is UTF-8, or UTF-16 with a byte-order mark. Blank lines and lines that begin with # or % are skipped, and so are
   empty rows at the end and empty columns at the right (Excel). A first line `sep=;` names the separator.
2. The separator is the first of tab, semicolon, bar, comma found in the rows below the first, else white space.
   Commas inside numbers that are split by another separator, or that are quoted, are decimal commas, unless they could
   mean thousands.
3. The first row is a heading if it holds words and no numbers, if it is one cell shorter than the others (R), if it is
   quoted and they are not (R), if a covariance is square without it, or if it counts 0, 1, 2, … or 1, 2, 3, … above
   fractions. Other whole numbers above fractions, or equal steps above rows without equal steps, are refused.
4. The first columns are row names if the heading leaves them empty (pandas, R) or is too short for them (R), if they
   are words that are all different, if a covariance is square without them, if they have the names that pandas gives
   (`index`, `level_0`), or if they count the rows under a name such as `id`, or beyond the expected dimension.
"""

import csv
import itertools
import re
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from ..linalg.psd import Array

#: Words for a missing or infinite value.
MISSING = frozenset(
    [
        *("", "na", "n/a", "#n/a", "<na>", "nan", "-nan", "nat", "null", "none", "nil", ".", "-", "?"),
        *("inf", "+inf", "-inf", "infinity", "+infinity", "-infinity", "1.#qnan", "1.#inf", "-1.#ind"),
    ]
)
#: Headings of columns that count the rows and are not data.
INDEX_NAMES = frozenset(
    ("", "index", "unnamed: 0", "level_0", "__index_level_0__", "rownames", "row.names", "row", "id")
)
_SEPARATORS = {"\t": "tab", ";": "';'", "|": "'|'", ",": "','", " ": "white space"}
_INTEGER = re.compile(r"[+-]?[0-9]+")
_NUMBER = re.compile(r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eEdD][+-]?[0-9]+)?")
_DECIMAL_COMMA = re.compile(r"[+-]?(?:[0-9]+,[0-9]*|,[0-9]+)(?:[eEdD][+-]?[0-9]+)?")
_THOUSANDS = re.compile(r"[+-]?[1-9][0-9]{0,2}(?:[,.'\u2019\u00a0\u202f ][0-9]{3})+(?:[.,][0-9]*)?")
_COMPLEX = re.compile(r"\(?[+-]?[0-9.]+(?:e[+-]?[0-9]+)?(?:[+-][0-9.]+(?:e[+-]?[0-9]+)?)?[ij]\)?", re.IGNORECASE)
#: Lines that are not rows. Excel's errors also begin with #; a row that begins with one is not skipped.
_COMMENT = re.compile(r"\s*(?:%|#(?!DIV/0!|N/A|NAME\?|NULL!|NUM!|REF!|VALUE!|#*(?:[\t;,|]|$)))")


#: Numbers with fewer digits are written by hand and exact; MATLAB's dlmwrite rounds to five.
_FEWEST_DIGITS = 5


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


def parse(data: bytes, dimension: int | None = None, square: bool = False) -> Table:
    """Numbers in a text file.

    Parameters
    ----------
    data
        Content of the file.
    dimension
        Expected number of columns, if known: it distinguishes a column that counts the rows from data.
    square
        Whether a square matrix is expected.

    Raises
    ------
    ValueError
        In one line, if the text has no meaning or more than one.
    """
    numbers, lines, separator = _lines(_decoded(data))
    first_is_quoted = _is_quoted(lines[0], separator) and not (len(lines) > 1 and '"' in lines[1])
    rows = [_cells(line, separator) for line in lines]
    while len(rows) > 1 and not any(rows[-1]):
        rows.pop()
    rows = _without_empty_columns(rows)
    short = len(rows) > 1 and len(rows[0]) == len(rows[1]) - 1
    short = short and (first_is_quoted or all(map(_is_name, rows[0])) or _counts(rows[0]))
    width = len(rows[0]) + short
    for number, row in zip(numbers[short:], rows[short:], strict=False):
        if len(row) != width:
            raise ValueError(
                f"line {number} has {_cells_of(len(row))}, but line {numbers[0]} has {_cells_of(width - short)} "
                f"(separator: {_SEPARATORS[separator]})"
            )
    rows, decimal = _with_points(rows)
    names = ["", *rows[0]] if short else rows[0]
    headed = short or _is_heading(rows, first_is_quoted, square)
    body, body_numbers = (rows[1:], numbers[1:]) if headed else (rows, numbers)
    if not body:
        raise ValueError(f"it holds a heading ({', '.join(rows[0][:5])}) and no numbers")
    skipped = index_columns(names if headed else None, body, dimension, square)
    seen = f"; read with separator {_SEPARATORS[separator]}{decimal}{', a heading' if headed else ''}"
    return _numbers(body, skipped, body_numbers, names if headed else None, seen)


def _decoded(data: bytes) -> str:
    data = data.removesuffix(b"\x1a")  # DOS
    if data[:2] in (b"\xff\xfe", b"\xfe\xff"):
        return data.decode("utf-16", errors="replace")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:  # an old encoding: numbers are the same in all of them, headings do not matter
        return data.decode("latin-1")


def _lines(text: str) -> tuple[list[int], list[str], str]:
    """Non-empty lines, their numbers in the file, and the separator."""
    found = [
        (i, line)
        for i, line in enumerate(re.split(r"\r\n|\n|\r", text), 1)
        if line.strip() and not _COMMENT.match(line)
    ]
    named = re.fullmatch(r'"?sep=(.)"?', found[0][1].rstrip("\r\n")) if found else None
    if named:
        found = found[1:]
    if not found:
        raise ValueError("it holds no numbers")
    numbers, lines = [i for i, _ in found], [line for _, line in found]
    unquoted = [re.sub(r'"[^"]*"', "0", line) for line in lines[1:] or lines]
    if named:
        separator = named[1]
        if separator not in _SEPARATORS:
            raise ValueError(f"its first line names the separator {separator!r}; allowed: tab ; | , space")
        return numbers, lines, separator
    present = (s for lines_ in (unquoted, lines[:1]) for s in "\t;|," if any(s in line for line in lines_))
    separator = next(present, " ")
    if separator == "," and all(_DECIMAL_COMMA.fullmatch(cell) for line in unquoted for cell in line.split()):
        several = [len(line.split()) > 1 for line in unquoted]
        if all(several):  # 1,5 2,5: the commas are inside the numbers
            separator = " "
    return numbers, lines, separator


def _cells(line: str, separator: str) -> list[str]:
    if separator == " ":
        line = " ".join(line.split())
    if '"' not in line:
        return [cell.strip() for cell in line.split(separator)]
    return [cell.strip() for cell in next(csv.reader([line], delimiter=separator, skipinitialspace=True))]


def _is_quoted(line: str, separator: str) -> bool:
    """Whether all cells of a line are quoted."""
    rest = re.sub(r'"(?:[^"]|"")*"', "", line)
    return '"' in line and not rest.replace(separator, "").strip()


def _without_empty_columns(rows: list[list[str]]) -> list[list[str]]:
    """The rows without empty columns at the right; the first row may be shorter."""
    width = max(map(len, rows))
    while width > 1 and {len(row) for row in rows[1:]} <= {width} and not any(
        row[-1] for row in rows if len(row) == width
    ):  # fmt: skip
        width -= 1
        rows = [row[:width] for row in rows]
    return rows


def _cells_of(number: int) -> str:
    return f"{number} cell{'s' if number != 1 else ''}"


def _with_points(rows: list[list[str]]) -> tuple[list[list[str]], str]:
    """The rows with decimal points in place of decimal commas, which cannot mean thousands, and a remark on that."""
    commas = [cell for row in rows[1:] or rows for cell in row if "," in cell]
    if not commas:
        return rows, ""
    thousands = next((cell for cell in commas if "." in cell or not _DECIMAL_COMMA.fullmatch(cell)), None)
    if thousands is None and all(_THOUSANDS.fullmatch(cell) for cell in commas):
        thousands = commas[0]
    if thousands is not None:
        if _THOUSANDS.fullmatch(thousands):
            raise ValueError(f"{thousands!r} may contain a thousands separator or a decimal comma: write 1234.5")
        return rows, ""
    point = next((cell for row in rows[1:] or rows for cell in row if _NUMBER.fullmatch(cell) and "." in cell), None)
    if point is not None:
        raise ValueError(f"{commas[0]!r} and {point!r} are in the same file: the decimal sign must be one of , and .")
    return [
        [cell.replace(",", ".") if _DECIMAL_COMMA.fullmatch(cell) else cell for cell in row] for row in rows
    ], ", decimal comma"


def _counts(cells: Sequence[str]) -> bool:
    """Whether cells count 0, 1, 2, … or 1, 2, 3, …."""
    if not all(_INTEGER.fullmatch(cell) for cell in cells):
        return False
    first = int(cells[0])
    return first in (0, 1) and [int(cell) for cell in cells] == list(range(first, first + len(cells)))


def _is_number(cell: str) -> bool:
    return _NUMBER.fullmatch(cell) is not None


def _value(cell: str) -> float:
    return float(cell.replace("D", "e").replace("d", "e"))


def _is_word(cell: str) -> bool:
    return not (cell.lower() in MISSING or _is_number(cell) or _COMPLEX.fullmatch(cell) or _THOUSANDS.fullmatch(cell))


def _is_name(cell: str) -> bool:
    return _is_word(cell) and any(map(str.isalpha, cell))


def _mostly_fractions(cells: Sequence[str]) -> bool:
    return sum(not _INTEGER.fullmatch(cell) for cell in cells) > len(cells) / 2


def _is_heading(rows: list[list[str]], quoted: bool, square: bool) -> bool:
    """Whether the first row names the columns (rule 3)."""
    first, body = rows[0], rows[1:]
    nameless = next((i for i, cell in enumerate(first) if cell), len(first))
    labels = first[nameless:]
    words = [cell for cell in labels if _is_word(cell)]
    values = [cell for cell in labels if _is_number(cell)]
    if words and not values and all(map(_is_name, words)):
        return True
    if words:
        if len(first) > 1 and labels[0] == words[-1] and len(words) == 1:
            if _counts(labels[1:]):
                return True
            if body and _is_word(body[0][nameless]):  # row names
                return _is_heading([row[nameless + 1 :] for row in rows], False, False)
        beside = f"stands beside {values[0]!r}" if values else "is no name"
        raise ValueError(f"its first row is neither a heading nor numbers: {words[0]!r} {beside}")
    if not body or not values or len(values) < len(labels):
        return False
    if nameless:  # the empty corner of pandas and R; otherwise a value is missing
        return all(row[0] for row in body) and all(map(_INTEGER.fullmatch, values))
    if quoted:
        return True
    if square:
        return len(body) == len(first)
    fractions = _mostly_fractions([cell for row in body for cell in row])
    if _counts(first):
        if fractions and len(first) > 2:
            return True
        if first[0] == "1" and not fractions:
            return False  # not the default of any program
    elif not (fractions and _may_label(rows)):
        return False
    raise ValueError(
        f"its first row, {', '.join(first[:3])}{', …' if len(first) > 3 else ''}, may be a heading or numbers: "
        "delete it, or name the columns in words"
    )


def _may_label(rows: list[list[str]]) -> bool:
    """Whether the first rows may be numbers that name the columns, unlike all rows below.

    Such rows are whole numbers that differ from column to column (pandas, with unnamed columns or several levels), or
    one row of equally spaced numbers (years, wavelengths).
    """
    whole = [all(map(_INTEGER.fullmatch, row)) for row in rows]
    levels = whole.index(False) if False in whole else len(rows)
    if levels and not any(whole[levels:]) and len(set(zip(*rows[:levels], strict=True))) == len(rows[0]):
        return True
    return _in_equal_steps(rows[0]) and not any(map(_in_equal_steps, rows[1:]))


def _in_equal_steps(row: list[str]) -> bool:
    """Whether three or more numbers rise or fall in equal steps, to rounding."""
    if len(row) < 3 or not all(map(_is_number, row)):
        return False
    values = np.array([_value(cell) for cell in row])
    steps = np.diff(values)
    return bool(np.isfinite(values).all() and steps[0] and np.ptp(steps) <= 1e-9 * np.abs(values).max())


def index_columns(
    names: Sequence[str] | None, body: Sequence[Sequence[str]], dimension: int | None, square: bool
) -> int:
    """Number of columns at the left that hold row names (rule 4).

    Parameters
    ----------
    names
        The heading, if there is one.
    body
        Rows of cells.
    dimension, square
        As for `parse`.

    Raises
    ------
    ValueError
        If a column that counts the rows may be data or row names.
    """
    width, first = len(body[0]), [row[0] for row in body]
    if width == 1:
        return 0
    if names is not None and names[0] == "":
        return next(i for i, name in enumerate([*names, "end"]) if name)
    stored = _stored_index(names or [])
    if stored and (names or [])[0].lower() != "index":
        return stored
    if all(map(_is_word, first)) and len(set(first)) == len(first):
        return 1
    if not all(map(_INTEGER.fullmatch, first)):
        return 0
    if stored:
        return stored
    if square:
        return int(len(body) == width - 1 > 1)
    numbers = list(map(int, first))
    rising = all(a < b for a, b in itertools.pairwise(numbers))
    if not _counts(first):
        # Some rows of a table whose rows were counted earlier, or all of them in another order.
        others = [cell for row in body for cell in row[1:]]
        counted = (
            rising or _counts(sorted(first, key=int)) or (dimension == width - 1 and len(set(first)) == len(first))
        )
        if not (counted and _mostly_fractions(others)):
            return 0
    if len(first) < 3:
        return 0
    if (names is not None and names[0].lower() in INDEX_NAMES) or dimension == width - 1:
        return 1
    what = (
        "counts the rows" if _counts(first) else "rises in whole numbers" if rising else "counts the rows in some order"
    )
    raise ValueError(
        f"its first column{f' ({names[0]!r})' if names else ''} {what}, {', '.join(first[:3])}, …: it may be "
        "row names or data; delete it, name it index, or write its numbers as 0.0"
    )


def _stored_index(names: Sequence[str]) -> int:
    """Number of columns at the left with the names that pandas gives to a stored index."""
    levels = [re.fullmatch(r"index|unnamed: 0|level_[0-9]+|__index_level_[0-9]+__", name.lower()) for name in names]
    return levels.index(None) if None in levels[:-1] else 0


def _numbers(body: list[list[str]], skipped: int, lines: list[int], names: Sequence[str] | None, seen: str) -> Table:
    """The cells as numbers, with the relative precision of their digits."""
    digits, exact = 1, True
    values: list[list[float]] = []
    for i, row in enumerate(body):
        values.append([])
        for j, cell in enumerate(row[skipped:], skipped):
            if not _NUMBER.fullmatch(cell):
                name = f" ({names[j]!r})" if names and names[j] else ""
                raise ValueError(f"row {i + 1}, column {j + 1}{name}, line {lines[i]}: {_what_is(cell)}{seen}")
            values[-1].append(_value(cell))
            if digits < 15:
                mantissa = re.split("[eEdD]", cell)[0]
                exact = exact and "." not in cell
                digits = max(digits, len(mantissa.replace(".", "").strip("+-0")))  # 1027000100000.0 has 8
    rounded = not exact and _FEWEST_DIGITS <= digits < 15
    return Table(np.array(values), 0.5 * 10.0 ** (1 - digits) if rounded else float(np.finfo(float).eps))


def _what_is(cell: str) -> str:
    if cell.lower() in MISSING:
        return f"a value is missing or not finite ({cell!r})" if cell else "a value is missing (an empty cell)"
    if _THOUSANDS.fullmatch(cell):
        return f"{cell!r} seems to contain a thousands separator: write 1234.5"
    if _COMPLEX.fullmatch(cell):
        return f"{cell!r} is a complex number, not a real one"
    return f"{cell[:40]!r} is no number"
