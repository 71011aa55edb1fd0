"""A study in one file: configuration, aggregates, notebooks, figures, tables, claims and provenance as an RO-Crate."""

import hashlib
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml
from rocrate.rocrate import ROCrate

from .atomic import replacing

#: Names in the archive: the checked configuration; and the SHA-256 sums of it and all results, for `sha256sum --check`.
CONFIGURATION, MANIFEST = "study.yaml", "manifest-sha256.txt"
_FORMATS = {
    ".csv": "text/csv",
    ".ipynb": "application/x-ipynb+json",
    ".json": "application/json",
    ".md": "text/markdown",
    ".parquet": "application/vnd.apache.parquet",
    ".pdf": "application/pdf",
    ".png": "image/png",
    ".rst": "text/x-rst",
    ".tex": "text/x-tex",
    ".yaml": "application/yaml",
}


def write_archive(
    destination: str | Path, configuration: Mapping[str, Any], files: Iterable[str | Path], description: str
) -> None:
    """Write a zip with the files under their own (relative) paths, a manifest and RO-Crate metadata.

    Parameters
    ----------
    destination
        The zip.
    configuration
        The checked configuration of the study.
    files
        What belongs to it, relative to the folder of the workflow.
    description
        One sentence, for the metadata.

    Raises
    ------
    ValueError
        If a file is not below the folder of the workflow.
    """
    paths = sorted({str(file) for file in files})
    outside = [path for path in paths if Path(path).is_absolute() or ".." in Path(path).parts]
    if outside:
        raise ValueError(f"an archive can only hold files below the folder of the workflow, not {outside[0]}")
    crate = ROCrate()
    crate.name, crate.description, crate.license = "deepbures study", description, "MIT"
    with tempfile.TemporaryDirectory() as folder:
        study = Path(folder, CONFIGURATION)
        study.write_text(yaml.safe_dump(dict(configuration), sort_keys=False, allow_unicode=True), encoding="utf-8")
        contents = {CONFIGURATION: study, **{path: Path(path) for path in paths}}
        checksums = {name: hashlib.sha256(path.read_bytes()).hexdigest() for name, path in contents.items()}
        manifest = Path(folder, MANIFEST)
        manifest.write_text("".join(f"{digest}  {name}\n" for name, digest in checksums.items()), encoding="utf-8")
        for name, path in contents.items():
            format_ = _FORMATS.get(path.suffix, "application/octet-stream")
            crate.add_file(path, name, properties={"encodingFormat": format_, "sha256": checksums[name]})
        crate.add_file(manifest, MANIFEST, properties={"encodingFormat": "text/plain"})
        with replacing(destination) as temporary:
            crate.write_zip(str(temporary))
