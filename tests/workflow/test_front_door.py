"""The first commands of a newcomer: which Python `make` takes, and the package outside the repository."""

import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
#: A Python of some version: answers as one, and makes environments whose programs do nothing.
PRETENDER = """#!/bin/sh
case "$1 $2 $3" in
  "-c "*version_info*) exit {old} ;;
  "-c "*ensurepip*) exit {bare} ;;
  "--version "*) echo "Python {name}" ;;
  "-m venv "*) mkdir -p "$3/bin"
    for p in python pip; do printf '#!/bin/sh\\n' > "$3/bin/$p"; chmod +x "$3/bin/$p"; done ;;
esac
"""


def make(tmp_path: Path, *pythons: tuple[str, bool, bool]) -> subprocess.CompletedProcess[str]:
    """`make .venv/.installed` where the given Pythons (name, too old, without venv) are all there are."""
    for name in ("Makefile", "requirements.lock", "pyproject.toml"):
        shutil.copy(ROOT / name, tmp_path)
    programs = tmp_path / "bin"
    programs.mkdir()
    for name in ("sh", "make", "touch", "mkdir", "chmod", "test", "env", "grep", "rm"):
        (programs / name).symlink_to(shutil.which(name))
    for name, old, bare in pythons:
        (programs / name).write_text(PRETENDER.format(old=int(old), bare=int(bare), name=name))
        (programs / name).chmod(0o755)
    environment = {"PATH": str(programs), "HOME": str(tmp_path)}
    command = [str(programs / "make"), ".venv/.installed"]
    return subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60)


@pytest.mark.parametrize(
    ("pythons", "taken"),
    [
        ([("python3.11", False, False)], "python3.11"),
        ([("python3.12", False, False), ("python3.13", False, False)], "python3.13"),
        ([("python3.13", True, False), ("python3.12", False, False)], "python3.12"),  # one that does not run
        ([("python3.14", False, False), ("python3.12", False, False)], "python3.12"),  # no wheels for all of the lock
        ([("python3.14", False, False), ("python3", False, False)], "python3.14"),
        ([("python3", False, False)], "python3"),
        ([("python3", True, False), ("python", False, False)], "python"),
    ],
)
def test_make_takes_the_first_python_that_is_new_enough_and_says_which(tmp_path, pythons, taken):
    done = make(tmp_path, *pythons)
    assert done.returncode == 0, done.stderr
    assert f".venv from {taken}, Python {taken}" in done.stdout


@pytest.mark.parametrize(
    ("pythons", "line"),
    [
        ([], "make: none of python3.13 python3.12 python3.11 python3.14 python3 python is Python 3.11 or newer"),
        ([("python3", True, False)], "make: none of python3.13 "),
        ([("python3.12", False, True)], "make: python3.12 lacks venv; on Debian and Ubuntu: apt-get install "),
    ],
)
def test_make_says_in_one_line_what_is_missing(tmp_path, pythons, line):
    done = make(tmp_path, *pythons)
    assert done.returncode != 0
    first, *rest = done.stderr.strip().splitlines()
    assert first.startswith(line)
    assert all("***" in other for other in rest)  # what make adds
    assert not (tmp_path / ".venv").exists()


@pytest.mark.parametrize("place", [".venv", "{}/elsewhere/env"])  # the latter may be that of other projects, too
def test_an_environment_of_another_folder_is_made_again(tmp_path, place):
    venv = place.format(tmp_path)
    assert make(tmp_path, ("python3.12", False, False)).returncode == 0
    pip = tmp_path / venv / "bin/pip"
    if place != ".venv":
        shutil.copytree(tmp_path / ".venv", venv)
    environment = {"PATH": str(tmp_path / "bin"), "HOME": str(tmp_path), "VENV": venv}
    for first_line, again in ((f"#!{tmp_path / venv}/bin/python\n", False), ("#!/other/.venv/bin/python\n", True)):
        pip.write_text(first_line)
        command = [str(tmp_path / "bin/make"), f"{venv}/.installed"]
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stderr
        assert (f"{venv} is that of another folder: it is made again" in done.stdout) == again
        assert (pip.read_text() != first_line) == again


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """Wheel and source distribution, from a clean copy."""
    folder = tmp_path_factory.mktemp("built")
    source = folder / "source"
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True)
    names = {line.split("/")[0] for line in listed.stdout.splitlines()} or {path.name for path in ROOT.iterdir()}
    source.mkdir()
    for name in sorted(names - {".git", ".venv", "results", "figures", "logs", ".snakemake"}):
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        copy(ROOT / name, source / name)
    build = "from setuptools import build_meta as b; print(b.build_wheel('dist'), b.build_sdist('dist'))"
    (source / "dist").mkdir()
    run = subprocess.run([sys.executable, "-c", build], cwd=source, capture_output=True, text=True, timeout=300)
    assert run.returncode == 0, run.stderr[-2000:]
    return source / "dist"


def installed(folder: Path, archive: Path, tmp_path: Path) -> None:
    """The command line from an unpacked package, in a folder that knows nothing of the repository."""
    config = ROOT / "config/config.yaml"
    environment = {**os.environ, "PYTHONPATH": str(folder)}
    for command in (["-c", "import deepbures; print(deepbures.__file__)"], ["-m", "deepbures", "cells", str(config)]):
        run = subprocess.run(
            [sys.executable, *command], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120
        )
        assert run.returncode == 0, run.stderr
        assert str(folder) in run.stdout or "convergence" in run.stdout


@pytest.mark.slow
def test_the_wheel_is_all_that_the_command_line_needs(built, tmp_path):
    (wheel,) = built.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        archive.extractall(tmp_path / "site")
    modules = {str(path.relative_to(ROOT / "src")) for path in (ROOT / "src/deepbures").rglob("*.py")}
    data = {"deepbures/py.typed", "deepbures/workflow/figures.yaml", "deepbures/workflow/own_target.yaml"}
    assert modules | data <= names
    installed(tmp_path / "site", wheel, tmp_path)


@pytest.mark.slow
def test_the_source_distribution_builds_the_same_wheel(built, tmp_path):
    (wheel,), (sdist,) = built.glob("*.whl"), built.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        archive.extractall(tmp_path, filter="data")
    (source,) = (path for path in tmp_path.iterdir() if path.is_dir())
    whole = {"Snakefile", "Makefile", "CITATION.cff", "requirements.lock", "config/config.yaml", "docs/paper.md"}
    whole |= {"workflow/notebooks/rates.ipynb", "workflow/rules/common.smk", "tests/conftest.py", "docs/site.css"}
    assert all((source / name).is_file() for name in whole)
    build = "from setuptools import build_meta as b; b.build_wheel('dist')"
    subprocess.run([sys.executable, "-c", build], cwd=source, check=True, capture_output=True, timeout=300)
    (again,) = (source / "dist").glob("*.whl")
    with zipfile.ZipFile(wheel) as one, zipfile.ZipFile(again) as other:
        assert {i.filename: i.CRC for i in one.infolist()} == {i.filename: i.CRC for i in other.infolist()}
