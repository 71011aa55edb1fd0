"""A study in one file, as a Workflow RO-Crate: workflow, configuration, aggregates, notebooks, figures and claims."""

import hashlib
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml
from rocrate.model.contextentity import ContextEntity
from rocrate.model.person import Person
from rocrate.rocrate import ROCrate

from ... import __version__
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
    ".py": "text/x-python",
    ".rst": "text/x-rst",
    ".smk": "text/x-python",
    ".tex": "text/x-tex",
    ".yaml": "application/yaml",
}


#: The paper that the workflow replicates, and its authors.
_PAPER = {
    "@type": "ScholarlyArticle",
    "name": "Critical Points and Convergence Analysis of Generative Deep Linear Networks "
    "Trained with Bures-Wasserstein Loss",
    "datePublished": "2023",
    "isPartOf": "Proceedings of the 40th International Conference on Machine Learning, PMLR 202:3106-3147",
}
_AUTHORS = ("Pierre Bréchet", "Katerina Papagiannouli", "Jing An", "Guido Montúfar")


def write_archive(
    destination: str | Path,
    configuration: Mapping[str, Any],
    files: Iterable[str | Path],
    description: str,
    workflow: str | Path,
) -> None:
    """Write a zip with the files under their own (relative) paths, a manifest and Workflow RO-Crate metadata.

    Parameters
    ----------
    destination
        The zip.
    configuration
        The checked configuration of the study.
    files
        Files of the study, relative to the folder of the workflow.
    description
        One sentence, for the metadata.
    workflow
        The Snakefile, the main entity of the crate; it and the files below its folder are under `workflow/`.

    Raises
    ------
    ValueError
        If a file is not below the folder of the workflow.
    """
    paths = sorted({str(file) for file in files})
    outside = [path for path in paths if Path(path).is_absolute() or ".." in Path(path).parts]
    if outside:
        raise ValueError(f"an archive can only hold files below the folder of the workflow, not {outside[0]}")
    snakefile = Path(workflow)
    parts = {f"workflow/{path.relative_to(snakefile.parent)}": path for path in _files_of_workflow(snakefile)}
    crate = ROCrate()
    crate.name, crate.description = "deepbures study", description
    with tempfile.TemporaryDirectory() as folder:
        study = Path(folder, CONFIGURATION)
        study.write_text(yaml.safe_dump(dict(configuration), sort_keys=False, allow_unicode=True), encoding="utf-8")
        contents = {CONFIGURATION: study, **parts, **{path: Path(path) for path in paths}}
        checksums = {name: hashlib.sha256(path.read_bytes()).hexdigest() for name, path in contents.items()}
        manifest = Path(folder, MANIFEST)
        manifest.write_text("".join(f"{digest}  {name}\n" for name, digest in checksums.items()), encoding="utf-8")
        for name, path in contents.items():
            properties = {
                "encodingFormat": _FORMATS.get(path.suffix, "application/octet-stream"),
                "sha256": checksums[name],
            }
            if path == snakefile:
                _add_workflow(crate, path, name, properties)
            else:
                crate.add_file(path, name, properties=properties)
        crate.add_file(manifest, MANIFEST, properties={"encodingFormat": "text/plain"})
        with replacing(destination) as temporary:
            crate.write_zip(str(temporary))


def _files_of_workflow(snakefile: Path) -> list[Path]:
    """The Snakefile, and the rules, scripts, notebooks, captions and data below its folder."""
    found = (path for path in snakefile.parent.rglob("*") if path.suffix in _FORMATS and path.is_file())
    return [snakefile, *sorted(path for path in found if not {".snakemake", "__pycache__"} & {*path.parts})]


def _add_workflow(crate: ROCrate, snakefile: Path, name: str, properties: dict[str, Any]) -> None:
    """Add the main entity, with its language, authors, version, and the paper that it replicates."""
    main = crate.add_workflow(
        snakefile, name, main=True, lang="snakemake", properties={**properties, "encodingFormat": _FORMATS[".smk"]}
    )
    main["name"], main["version"] = "deepbures", __version__
    license_ = {"@type": "CreativeWork", "name": "MIT License"}
    main["license"] = crate.root_dataset["license"] = crate.add(
        ContextEntity(crate, "https://spdx.org/licenses/MIT", license_)
    )
    developers = ContextEntity(crate, "#developers", {"@type": "Organization", "name": "The deepbures developers"})
    main["author"] = crate.root_dataset["author"] = crate.add(developers)
    paper = crate.add(ContextEntity(crate, "#paper", _PAPER))
    paper["author"] = [crate.add(Person(crate, f"#{author}", {"name": author})) for author in _AUTHORS]
    main["citation"] = crate.root_dataset["citation"] = paper
