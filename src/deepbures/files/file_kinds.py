"""What a file is by its first bytes, for messages about files that are no tables."""

import re
from pathlib import Path

TEXT = "text, or of no format that is known here"
#: Number of bytes at the beginning of a file that say what it is.
_HEAD = 4096
#: Formats by a pattern of their first bytes; the first that matches counts.
_KINDS = {
    rb"\Z": "empty",
    rb"\x93NUMPY": "a NumPy array (.npy)",
    rb"PAR1": "a Parquet table (.parquet)",
    rb"version https://git-lfs": "a Git LFS pointer, not the data: fetch it with git lfs pull",
    rb"/annex/objects/": "a git-annex pointer, not the data: fetch it with git annex get",
    rb"\x1f\x8b|BZh|\xfd7zXZ|\x28\xb5\x2f\xfd|7z\xbc\xaf": "compressed (R's .rds and .RData, too): unpack it",
    rb"MATLAB ": "a MATLAB file (.mat): save it with writematrix",
    rb"\x89HDF": "an HDF5 file (AnnData .h5ad, NetCDF .nc, MATLAB .mat): read the array and save it with numpy.save",
    rb"CDF[\x01-\x05]": "a NetCDF file (.nc): read the array, such as with xarray, and save it with numpy.save",
    rb"ARROW1|FEA1": "an Arrow (Feather) file: save the table as Parquet",
    rb"RD[AX]|X\n\0": "an R file (.RData, .rds): save the table with write.csv",
    rb"\xd0\xcf\x11\xe0|PK.*xl/": "an Excel workbook (.xls, .xlsx): save it as CSV",
    rb"PK.*data\.pkl": "a PyTorch file (.pt): save the array with numpy.save",
    rb"PK.*\.npy": "an archive of NumPy arrays (.npz)",
    rb"PK[\x03\x05]": "a zip archive (.zip, .ods, .docx): unpack it",
    rb"\x80[\x02-\x05]|c?\(?(dp\d|lp\d|cnumpy|c__builtin__|ccopy_reg)": "a pickle of Python: save it with numpy.save",
    rb"%PDF": "a PDF document",
    rb"%%MatrixMarket": "a Matrix Market file: read it with scipy.io.mmread and save it with numpy.save",
    rb"(\xef\xbb\xbf)?\s*(?i:<!doctype html|<html|<head|<body)": "an HTML page",
    rb"(\xef\xbb\xbf)?\s*<[?a-zA-Z]": "an XML document",
    rb"(\xef\xbb\xbf)?\s*[\[{]\s*([\[{\"\]}]|-?\d)": "JSON, or an array as it is printed",
    rb"(.\0){4}|(\0.){4}": "UTF-16 text without a byte-order mark: save it as UTF-8, or say encoding: utf-16-le",
    rb"(?!\xff\xfe|\xfe\xff).*[\0-\x08\x0e-\x19\x1b-\x1f]": "binary, of no format that is known here",
}


def kind_of(path: Path) -> str:
    """The format of a file, as in "the file is …": `TEXT`, "empty", "an HTML page", "a NumPy array (.npy)"."""
    with path.open("rb") as file:
        head = file.read(_HEAD)
    return next((kind for pattern, kind in _KINDS.items() if re.match(pattern, head, re.DOTALL)), TEXT)
