"""Every command that a page, a comment or a message prints runs as printed, or as a dry run where it takes minutes."""

import functools
import importlib.util
import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from projects import ROOT, copy_of_project

pytestmark = pytest.mark.xdist_group("commands")  # one worker runs each of them once
#: Pages; configurations and rules, which have commands in comments; code, which prints messages.
PLACES = sorted(
    path
    for pattern in ("*.md", "docs/**/*.md", "config/*.*", "Snakefile", "workflow/**/*", ".ci/run", "src/**/*.py")
    for path in ROOT.glob(pattern)
    if path.suffix in ("", ".md", ".yaml", ".smk", ".py") and path.is_file()
)
#: In a block, between backticks, in a comment; after a colon at the end of a message.
COMMAND = re.compile(
    r"""^\ {4}((?:\.venv/bin/)?(?:make|snakemake|python|bash|git|pip|uv)\s[^`\n]*)
    |`((?:\.venv/bin/)?(?:make|snakemake|python|bash|git|pip|uv)\s[^`\n]*)`
    |^\#\ ((?:snakemake|make)\ [^;\n]*)
    |:\ ((?:snakemake\ --|pip\ install)[^"\n]*)""",
    re.MULTILINE | re.VERBOSE,
)
#: Beginnings of commands that no test can run, or that another one runs.
ELSEWHERE = {
    "bash .ci/run": "its commands are among these",
    "bash tests/slurm/run.sh": "needs root and Slurm; .ci/run starts it where both can be had",
    "snakemake --profile workflow/profiles/slurm": "tests/slurm/run.sh, on a cluster of one node",
    "git apply": "test_examples.py applies the patches",
    "snakemake --cores 2 --configfile config/random_values.yaml": "test_examples.py, with the patch",
    "snakemake --cores 2 --configfile config/relative.yaml": "test_examples.py, with the patch",
    "snakemake --cores 2 --configfile config/heavy_ball.yaml": "test_examples.py, with the patch",
    "pip install .": "test_front_door.py builds the package",
    "uv venv": "installs an environment, from an index",
    "snakemake --cores 2 --configfile study.yaml": "test_workflow.py unpacks an archive",
    "snakemake -s /path/to": "test_called_from.py, from another folder",
    "snakemake --directory elsewhere": "test_called_from.py",
    "snakemake --unlock": "test_faults.py",
    "snakemake --delete-all-output": "test_workflow.py",
    "make study PYTHON=/path/to/python": "test_front_door.py, which Python is taken",
    ".venv/bin/python -m deepbures claims --power": "needs a finished study; .ci/run makes it and runs this",
    "python -m deepbures claims --power": "needs a finished study; test_power.py",
    "make VENV=/absolute/path": "test_front_door.py, an environment elsewhere",
}


@functools.cache
def commands() -> dict[str, str]:
    """The printed commands, each with the configuration that its page shows before it.

    Comments are cut off, and commands with a gap to be filled in are left out.
    """
    found: dict[str, str] = {}
    for place in PLACES:
        text = place.read_text(encoding="utf-8")
        if place.name == "run":  # a script is one block
            text = re.sub("^", "    ", text, flags=re.MULTILINE)
        for match in COMMAND.finditer(text):
            command = next(filter(None, match.groups())).partition("  #")[0].strip()
            if not re.search(r"…|\bFILE\b|[{}]", command):
                found[command] = text[: match.start()].rpartition("```yaml\n")[2].partition("```")[0]
    return found


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the project, with what the pages take for granted."""
    folder = copy_of_project(tmp_path_factory.mktemp("project"))
    for name in ("Makefile", "requirements.lock", "requirements-peers.lock", "pyproject.toml", "README.md"):
        shutil.copy(ROOT / name, folder)
    for name in ("tests", "benchmarks"):
        (folder / name).symlink_to(ROOT / name)
    (folder / ".venv").mkdir()
    (folder / ".venv/.installed").touch()
    (folder / "results").mkdir()
    shutil.copy(ROOT / "docs/claims.csv", folder / "results")
    np.save(folder / "my_covariance.npy", np.diag([5.0, 4.0, 3.0, 2.0, 1.0]))
    samples = pd.DataFrame(np.random.default_rng(0).standard_normal((50, 4)), columns=list("abcd"))
    samples.to_csv(folder / "my_samples.csv")  # with heading and index, as in docs/tutorial.md
    return folder


@functools.cache
def run(folder: Path, command: str, configuration: str = "") -> subprocess.CompletedProcess[str]:
    """What a command says; the same one runs once."""
    (folder / "mine.yaml").write_text(configuration)
    environment = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(folder / "src"),
    }
    return subprocess.run(["bash", "-c", command], cwd=folder, env=environment, capture_output=True, text=True)


def recipe(folder: Path, command: str) -> list[str]:
    """The commands that `make` would run; others are their own recipe."""
    if not command.startswith("make"):
        return [command.removeprefix(".venv/bin/")]
    shown = run(folder, command.replace("make", "make --dry-run", 1))
    assert shown.returncode == 0, shown.stderr
    return shown.stdout.replace("\\\n", " ").splitlines()


def plan(line: str) -> str:
    """The dry run of a Snakemake command, the same for commands with the same meaning."""
    plain = " ".join(re.sub(r'--cores \S+|--report .*|-n\b|\$\(test.*\)|"', "", line).split())
    plain = re.sub(r" --configfile config/config\.yaml(?= --|$)( --)?", "", plain)  # the default
    return plain.replace("snakemake", "snakemake --cores 1 --dry-run", 1)


def check(folder: Path, line: str, configuration: str) -> None:
    """Run what takes a moment; of Snakemake plan the jobs; of another program see that it and its files are there."""
    program, *arguments = shlex.split(line, comments=True)
    if program == "snakemake":
        done = run(folder, plan(line), configuration)
        assert done.returncode == 0, done.stderr[-2000:]
        assert "Job stats" in done.stdout or "Nothing to be done" in done.stdout
    elif line.startswith("python -m deepbures"):
        done = run(folder, line, configuration)
        assert done.returncode == 0, done.stderr[-2000:]
    elif program == "pip":
        extras = tomllib.loads((folder / "pyproject.toml").read_text())["project"]["optional-dependencies"]
        assert re.fullmatch(r"deepbures\[(\w+)\]", arguments[-1])[1] in extras
    elif not line.startswith((".venv", "PATH=")):
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        assert shutil.which(program, path=path) or program == "uv", line
        for argument in arguments:
            assert not argument.endswith(".py") or (folder / argument).exists(), line
        if arguments[:1] == ["-m"]:
            assert importlib.util.find_spec(arguments[1]), line


def test_every_reason_not_to_run_a_command_is_needed():
    for beginning in ELSEWHERE:
        assert any(command.startswith(beginning) for command in commands()), beginning


@pytest.mark.slow
@pytest.mark.parametrize("command", [command for command in commands() if not command.startswith(tuple(ELSEWHERE))])
def test_a_printed_command_runs(project, command):
    for line in recipe(project, command):
        check(project, line, commands()[command] if "mine.yaml" in command else "")


@pytest.mark.slow
@pytest.mark.parametrize(
    "content", [b"a: [1", "a: 1".encode("utf-16"), b"study: {seed: -1}", b"studdy: {}", b"\x00", None]
)
def test_a_configuration_that_is_not_understood_is_one_line_before_anything_is_built(project, content):
    if content is not None:
        (project / "wrong.yaml").write_bytes(content)
    done = run.__wrapped__(project, "make study CONFIG=wrong.yaml")
    (project / "wrong.yaml").unlink(missing_ok=True)
    assert done.returncode != 0
    line, *rest = done.stderr.splitlines()
    assert line.startswith("deepbures: ")
    assert all(other.startswith("make: ***") for other in rest)


@pytest.mark.slow
def test_make_report_writes_where_the_hint_looks(project):
    shown = "\n".join(recipe(project, "make report CONFIG=config/smoke.yaml"))
    report = re.search(r'--report "(.*)"', shown)[1]
    assert run(project, f"echo {report}").stdout == "results/smoke/report.html\n"
