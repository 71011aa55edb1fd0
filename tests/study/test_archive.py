"""The archive of a study: everything in it, checksums that notice a change, metadata."""

import json
import subprocess
import zipfile
from pathlib import Path

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
