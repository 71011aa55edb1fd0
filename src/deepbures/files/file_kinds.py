"""The format of a file, recognised by its first bytes, for messages about files that are not tables."""

import re

#: First bytes of files by format.
_MAGIC = (
    (b"\x93NUMPY", "a NumPy array (.npy)"),
    (b"PAR1", "a Parquet table (.parquet)"),
    (b"PARE", "an encrypted Parquet table"),
    (b"version https://git-lfs", "a Git LFS pointer, not the data: fetch it with git lfs pull"),
    (b"/annex/objects/", "a git-annex pointer, not the data: fetch it with git annex get"),
    (b"\x1f\x8b", "a gzip archive (R's .rds and .RData are, too): unpack it, or save it with write.csv"),
    (b"BZh", "a bzip2 archive: unpack it"),
    (b"\xfd7zXZ", "an xz archive: unpack it"),
    (b"\x28\xb5\x2f\xfd", "a zstd archive: unpack it"),
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive: unpack it"),
    (b"Rar!", "a rar archive: unpack it"),
    (b"MATLAB ", "a MATLAB file (.mat): save it with writematrix"),
    (b"\x89HDF", "an HDF5 file: save the array with numpy.save"),
    (b"CDF\x01", "a NetCDF file"),
    (b"CDF\x02", "a NetCDF file"),
    (b"ARROW1", "an Arrow (Feather) file: save the table as Parquet"),
    (b"FEA1", "an Arrow (Feather) file: save the table as Parquet"),
    (b"ORC", "an ORC file"),
    (b"Obj\x01", "an Avro file"),
    (b"RDX", "an R file (.RData): save it with write.csv"),
    (b"RDA", "an R file (.RData): save it with write.csv"),
    (b"X\n\x00", "an R file (.rds): save it with write.csv"),
    (b"\xd0\xcf\x11\xe0", "an Excel workbook (.xls): save it as CSV"),
    (b"SQLite format 3", "an SQLite database"),
    (b"SIMPLE  =", "a FITS file"),
    (b"$FL2", "an SPSS file (.sav)"),
    (b"<stata_dta>", "a Stata file (.dta)"),
    (b"%PDF", "a PDF document"),
    (b"%!PS", "a PostScript document"),
    (b"{\\rtf", "an RTF document"),
    (b"\x89PNG", "a PNG image"),
    (b"\xff\xd8\xff", "a JPEG image"),
    (b"GIF8", "a GIF image"),
    (b"II*\x00", "a TIFF image"),
    (b"MM\x00*", "a TIFF image"),
    (b"\x7fELF", "a program"),
    (b"%%MatrixMarket", "a Matrix Market file"),
    (b"-----BEGIN ", "a key or certificate"),
)
#: Formats of zip archives, recognised by the name of a member.
_ZIPPED = (
    (b"xl/", "an Excel workbook (.xlsx): save it as CSV"),
    (b"application/vnd.oasis", "an OpenDocument file (.ods): save it as CSV"),
    (b"word/", "a Word document (.docx)"),
    (b"data.pkl", "a PyTorch file (.pt): save it with numpy.save"),
    (b".npy", "an archive of NumPy arrays (.npz)"),
)
#: Beginnings of text that is not a table, after white space and a byte-order mark.
_MARKUP = (
    (rb"<!doctype html|<html|<head|<body", "an HTML page"),
    (rb"<\?xml|<[a-z]", "an XML document"),
    (rb"[\[{]\s*([\[{\"\]}]|-?\d)", "JSON, or an array as it is printed"),
)


def kind_of(head: bytes) -> str | None:
    """The format of a file, or None if it may be a table of numbers in text.

    Parameters
    ----------
    head
        The first bytes of the file: a few thousand are enough.

    Returns
    -------
    str or None
        As in "the file is …": "empty", "an HTML page", "a pickle of Python".
    """
    if not head:
        return "empty"
    for magic, kind in _MAGIC:
        if head.startswith(magic):
            return kind
    if head[:4] in (b"PK\x03\x04", b"PK\x05\x06"):
        return next((kind for part, kind in _ZIPPED if part in head), "a zip archive: unpack it")
    if head[257:262] == b"ustar":
        return "a tar archive: unpack it"
    if re.match(rb"\x80[\x02-\x05]", head) or re.search(rb"^c?\(?(dp\d|lp\d|cnumpy|c__builtin__|ccopy_reg)", head):
        return "a pickle of Python: save it with numpy.save"
    if head[:2] in (b"\xff\xfe", b"\xfe\xff"):
        return None  # UTF-16 with a byte-order mark: text
    if b"\x00" in head:
        even, odd = head[::2], head[1::2]
        if max(even.count(0), odd.count(0)) > 0.9 * len(odd):
            return "UTF-16 text without a byte-order mark: save it as UTF-8"
        return "binary, of no format that is known here"
    if re.search(rb"[\x01-\x08\x0e-\x19\x1b-\x1f]", head):
        return "binary, of no format that is known here"
    text = head.removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    return next((kind for pattern, kind in _MARKUP if re.match(pattern, text)), None)
