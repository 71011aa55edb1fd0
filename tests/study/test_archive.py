"""The archive of a study: everything in it, checksums that notice a change, metadata."""

import json
import os
import zipfile
from pathlib import Path

import pytest
import yaml

from deepbures.study.results.archive import MANIFEST, broken, write_archive

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
    write_archive(
        "results/archive.zip",
        CONFIGURATION,
        ["results/runs.parquet", "figures/F1.png", "results/claims.md"],
        "A study.",
    )
    return tmp_path / "results/archive.zip"


def test_files_keep_their_paths_and_bytes(archive):
    with zipfile.ZipFile(archive) as content:
        names = set(content.namelist())
        assert {"results/runs.parquet", "figures/F1.png", "results/claims.md", "study.yaml", MANIFEST} < names
        assert content.read("results/runs.parquet") == b"PAR1"
        assert yaml.safe_load(content.read("study.yaml")) == CONFIGURATION


def test_the_manifest_is_one_that_sha256sum_checks(archive, tmp_path):
    unpacked = tmp_path / "unpacked"
    with zipfile.ZipFile(archive) as content:
        content.extractall(unpacked)
    assert os.system(f"cd {unpacked} && sha256sum --check --strict --quiet {MANIFEST}") == 0
    assert broken(archive) == []


def test_a_changed_or_missing_file_is_named(archive, tmp_path):
    changed = tmp_path / "changed.zip"
    with zipfile.ZipFile(archive) as content, zipfile.ZipFile(changed, "w") as copy:
        for name in content.namelist():
            if name != "figures/F1.png":
                copy.writestr(name, b"PAR2" if name == "results/runs.parquet" else content.read(name))
    assert sorted(broken(changed)) == ["figures/F1.png", "results/runs.parquet"]


def test_what_is_no_archive_is_refused(tmp_path):
    other = tmp_path / "other.zip"
    other.write_bytes(b"no zip")
    with pytest.raises(ValueError, match=r"other.zip is not an archive of a study"):
        broken(other)
    with zipfile.ZipFile(other, "w") as content:
        content.writestr("a", "b")
    with pytest.raises(ValueError, match=MANIFEST):
        broken(other)


def test_metadata_describe_every_file(archive):
    with zipfile.ZipFile(archive) as content:
        metadata = json.loads(content.read("ro-crate-metadata.json"))
    entities = {entity["@id"]: entity for entity in metadata["@graph"]}
    parts = {part["@id"] for part in entities["./"]["hasPart"]}
    assert {"results/runs.parquet", "figures/F1.png", "results/claims.md", "study.yaml", MANIFEST} == parts
    assert entities["figures/F1.png"]["encodingFormat"] == "image/png"
    assert len(entities["results/runs.parquet"]["sha256"]) == 64
    assert entities["./"]["description"] == "A study."


@pytest.mark.parametrize("path", ["/etc/hostname", "../x"])
def test_files_outside_the_workflow_are_refused(tmp_path, monkeypatch, path):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match="below the folder of the workflow"):
        write_archive("a.zip", {}, [path], "")
    assert list(tmp_path.iterdir()) == []
