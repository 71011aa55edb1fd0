"""Parts: files of computed cells. A job appends each cell as soon as it is computed, so a kill loses one cell at most.

A part is a sequence of records, one for each cell: a line with its own digest and a JSON header (the cell's key, size
and digest of each table, code and versions), then the tables as Arrow streams. A record that is cut off ends the file.
"""

import hashlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import pyarrow as pa

#: One thread, as everywhere in a job.
_WRITE = pa.ipc.IpcWriteOptions(compression="zstd", use_threads=False)
_READ = pa.ipc.IpcReadOptions(use_threads=False)


class _Record(NamedTuple):
    """Where the line of a record begins in its file, and its tables begin and end; headers are read again at need."""

    start: int
    tables: int
    end: int

    def header(self, file: BinaryIO) -> dict[str, Any]:
        """The header in its line."""
        file.seek(self.start)
        return json.loads(file.read(self.tables - self.start).partition(b" ")[2])


def record(key: str, tables: Sequence[pa.Table], provenance: Mapping[str, Any]) -> bytes:
    """The record of a cell.

    Parameters
    ----------
    key
        Key of the cell (`store.key_of`).
    tables
        Its tables, in the order of its kind.
    provenance
        The code and versions that it was computed with.
    """
    streams = [_stream(table) for table in tables]
    header = {"key": key, "tables": [(len(stream), _digest(stream)) for stream in streams], "provenance": provenance}
    text = json.dumps(header, sort_keys=True).encode()
    return b"".join([_digest(text).encode(), b" ", text, b"\n", *streams])


class Part:
    """The records of a part, found by the keys of their cells.

    Attributes
    ----------
    path
        The file; one that does not exist has no records.
    end
        Number of bytes up to the end of the last whole record.
    whole
        Whether the file ends there.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self._records = dict(_records(self.path))
        self.end = max((record.end for record in self._records.values()), default=0)
        self.whole = self.end == (self.path.stat().st_size if self.path.exists() else 0)

    def __contains__(self, key: str) -> bool:
        """Whether it has the record of a cell."""
        return key in self._records

    def __iter__(self) -> Iterator[str]:
        """Keys of its cells."""
        return iter(self._records)

    def provenance(self, key: str) -> dict[str, Any]:
        """The code and versions that a cell was computed with."""
        with self.path.open("rb") as file:
            return self._records[key].header(file)["provenance"]

    def read(self, key: str, number: int) -> pa.Table:
        """A table of a cell, by its number in the order of the kind.

        Raises
        ------
        ValueError
            If its bytes are not those that were written: the message names the file.
        """
        found = self._records[key]
        with self.path.open("rb") as file:
            tables = found.header(file)["tables"]
            size, digest = tables[number]
            file.seek(found.tables + sum(size for size, _ in tables[:number]))
            stream = file.read(size)
        if _digest(stream) != digest:
            raise ValueError(f"{self.path} is broken: delete it and run again")
        return pa.ipc.open_stream(stream, options=_READ).read_all()


def _records(path: Path) -> Iterator[tuple[str, _Record]]:
    """Keys and whole records of a file, up to the first that is cut off or has a broken line."""
    with suppress(FileNotFoundError), path.open("rb") as file:
        length, start = os.fstat(file.fileno()).st_size, 0
        while line := file.readline():
            digest, _, text = line.rstrip(b"\n").partition(b" ")
            if digest != _digest(text).encode() or not line.endswith(b"\n"):
                return
            header = json.loads(text)
            tables = start + len(line)
            end = tables + sum(size for size, _ in header["tables"])
            if end > length:
                return
            yield header["key"], _Record(start, tables, end)
            start = file.seek(end)


def _stream(table: pa.Table) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema.remove_metadata(), options=_WRITE) as stream:
        stream.write_table(table.replace_schema_metadata(None))
    return sink.getvalue().to_pybytes()


def _digest(content: bytes) -> str:
    return hashlib.blake2b(content, digest_size=8).hexdigest()
