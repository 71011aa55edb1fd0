"""The archive of a study: everything in it, checksums that notice a change, metadata."""

import json
import subprocess
import zipfile
from pathlib import Path

import numpy as np
import pytest
import yaml

from deepbures.study.results.archive import MANIFEST, write_archive

CONFIGURATION = {"study": {"seed": 1}, "experiments": {"größer": {"grid": {"epsilon": [0, 0.1]}}}}


@pytest.fixture
def archive(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name, content in {
        "results/runs.parquet": b"PAR1",
        "figures/F1.png": b"\x89PNG",
        "results/claims.md": b"|",
    }.items():
        Path(name).parent.mkdir(exist_ok=True)
        Path(name).write_bytes(content)
    (tmp_path / "source/rules").mkdir(parents=True)
    for name in ("Snakefile", "rules/all.smk", "figures.yaml"):
        (tmp_path / "source" / name).write_text("# a workflow\n", encoding="utf-8")
    write_archive(
        "results/archive.zip",
        CONFIGURATION,
        ["results/runs.parquet", "figures/F1.png", "results/claims.md"],
        "A study.",
        workflow=tmp_path / "source/Snakefile",
    )
    return tmp_path / "results/archive.zip"


def test_files_keep_their_paths_and_bytes(archive):
    with zipfile.ZipFile(archive) as content:
        names = set(content.namelist())
        assert {"results/runs.parquet", "figures/F1.png", "results/claims.md", "study.yaml", MANIFEST} < names
        assert content.read("results/runs.parquet") == b"PAR1"
        assert yaml.safe_load(content.read("study.yaml")) == CONFIGURATION


def check(folder):
    """What sha256sum says about the files of an archive, and whether they are as they were."""
    command = ["sha256sum", "--check", "--strict", "--quiet", MANIFEST]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    return done.stdout, done.returncode == 0


def test_the_manifest_is_one_that_sha256sum_checks(archive, tmp_path):
    with zipfile.ZipFile(archive) as content:
        content.extractall(tmp_path / "unpacked")
    assert check(tmp_path / "unpacked") == ("", True)
    (tmp_path / "unpacked/results/runs.parquet").write_bytes(b"PAR2")
    (tmp_path / "unpacked/figures/F1.png").unlink()
    said, well = check(tmp_path / "unpacked")
    assert not well
    assert {line.partition(":")[0] for line in said.splitlines()} == {"results/runs.parquet", "figures/F1.png"}


def test_metadata_describe_every_file(archive):
    with zipfile.ZipFile(archive) as content:
        metadata = json.loads(content.read("ro-crate-metadata.json"))
    entities = {entity["@id"]: entity for entity in metadata["@graph"]}
    parts = {part["@id"] for part in entities["./"]["hasPart"]}
    workflow = {"workflow/Snakefile", "workflow/rules/all.smk", "workflow/figures.yaml"}
    assert {"results/runs.parquet", "figures/F1.png", "results/claims.md", "study.yaml", MANIFEST} | workflow == parts
    assert entities["figures/F1.png"]["encodingFormat"] == "image/png"
    assert len(entities["results/runs.parquet"]["sha256"]) == 64
    assert entities["./"]["description"] == "A study."


def test_the_archive_keeps_the_rules_of_the_workflow_profile(archive):
    # Version 1.0 of the profile is declared by the descriptor, 1.1 by the root.
    with zipfile.ZipFile(archive) as content:
        names = content.namelist()
        metadata = json.loads(content.read("ro-crate-metadata.json"))
    entities = {entity["@id"]: entity for entity in metadata["@graph"]}
    descriptor, root = entities["ro-crate-metadata.json"], entities["./"]
    assert descriptor["about"] == {"@id": "./"}
    profiles = [entry for one in (descriptor, root) for entry in np.ravel(one.get("conformsTo", []))]
    for base in ("https://w3id.org/ro/crate/1.", "https://w3id.org/workflowhub/workflow-ro-crate/1."):
        assert any(entry["@id"].startswith(base) for entry in profiles)
    assert all(root[key] for key in ("name", "description", "datePublished"))
    assert entities[root["license"]["@id"]]["name"] == "MIT License"
    main = entities[root["mainEntity"]["@id"]]
    assert main["@id"] in names
    assert root["mainEntity"] in root["hasPart"]
    assert set(main["@type"]) == {"File", "SoftwareSourceCode", "ComputationalWorkflow"}
    assert main["name"]
    language = entities[main["programmingLanguage"]["@id"]]
    assert (language["@type"], language["name"]) == ("ComputerLanguage", "Snakemake")
    assert entities[main["author"]["@id"]]["@type"] == "Organization"
    paper = entities[root["citation"]["@id"]]
    assert paper["@type"] == "ScholarlyArticle"
    assert len(paper["author"]) == 4
    assert entities[paper["author"][0]["@id"]]["name"] == "Pierre Bréchet"


@pytest.mark.parametrize("path", ["/etc/hostname", "../x"])
def test_files_outside_the_workflow_are_refused(tmp_path, monkeypatch, path):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match="below the folder of the workflow"):
        write_archive("a.zip", {}, [path], "", workflow="Snakefile")
    assert list(tmp_path.iterdir()) == []
