"""Types of the columns and rows of result tables."""

from collections.abc import Iterable, Mapping
from typing import Any

import pyarrow as pa

#: Rows of each table by name. A row gives a value for each column, or is a block of rows: arrays, one entry for each of
#: them, and single values that they share.
Tables = Mapping[str, Iterable[Mapping[str, Any]]]


def list_of(type_: pa.DataType) -> pa.ListType:
    """List type as Parquet returns it: with pyarrow's default names, a table that was read would have another type."""
    return pa.list_(pa.field("element", type_))


FLOAT, COUNT, NAME, FLAG = pa.float64(), pa.int32(), pa.string(), pa.int8()
#: Numbers of one row, such as eigenvalues, largest first; and indices from 0.
VECTOR, INDICES = list_of(pa.float64()), list_of(pa.int32())


def columns(type_: pa.DataType, *names: str) -> dict[str, pa.DataType]:
    """Columns of one type."""
    return dict.fromkeys(names, type_)


def schema(**types: pa.DataType) -> pa.Schema:
    """Schema of a table: the seed, then the given columns."""
    return pa.schema([("seed", COUNT), *types.items()])


def extended(base: pa.Schema, **types: pa.DataType) -> pa.Schema:
    """Schema with more columns."""
    return pa.schema([*base, *(pa.field(name, type_) for name, type_ in types.items())])
