"""The command line: what it prints, and the one line, exit code and untouched folder that each mistake gets."""

import json
import re
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from collected import collect_cells

from deepbures.__main__ import main

ROOT = Path(__file__).parents[2]
CONFIG = str(ROOT / "config/config.yaml")
CELL = {
    "study_seed": 1,
    "kind": "hessian",
    "loss": "bures-wasserstein",
    "dimension": 3,
    "target": {"spectrum": "zipf", "mode": "eigenvalues"},
    "landscape": {"points": 2},
    **{"epsilon": 0.1, "smin": 0.5, "rank": 2, "depth": 2},
}


@pytest.fixture(autouse=True)
def in_an_empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def run(cell=CELL, seeds="0-1", part="a.part"):
    return main(
        ["run", "--cell", cell if isinstance(cell, str) else json.dumps(cell), "--seeds", seeds, "--part", part]
    )


def with_(**changes):
    return {**CELL, **changes}


def test_a_cell_runs_and_info_tells_where_its_table_came_from(capsys, tmp_path):
    assert run() == 0
    collect_cells(tmp_path, [({"rank": 2}, CELL)], range(2), {"experiment": "mine"})
    assert main(["info", "spectra.parquet"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert (printed["parts"], printed["experiment"]) == (1, "mine")
    assert {"code", "deepbures", "numpy", "scipy", "pyarrow", "python"} <= printed.keys()
    content = Path("spectra.parquet").read_bytes()
    Path("spectra.parquet").write_bytes(content[:300] + bytes([content[300] ^ 1]) + content[301:])
    assert main(["info", "spectra.parquet"]) == 2
    assert re.fullmatch(r"deepbures: spectra\.parquet is broken.*: delete it\n", capsys.readouterr().err)


def test_cells_lists_every_experiment_and_the_sum_of_their_jobs(capsys):
    assert main(["cells", CONFIG]) == 0
    heading, *rows, total = capsys.readouterr().out.splitlines()
    jobs = {row.split()[0]: int(row.split()[-3]) for row in rows}
    assert heading.split() == ["experiment", "kind", "cells", "computed", "seeds", "jobs", "new", "CPU", "min"]
    minutes = sum(float(row.split()[-1]) for row in rows)
    assert 10 < minutes < 60  # 23 measured
    assert f"about {minutes:.0f} min" in total or abs(minutes - int(total.split()[7])) <= 1
    assert jobs["convergence"] == 8  # 4, doubled: a job takes at most 128 of the 924 cells on average
    assert total.startswith(f"{sum(jobs.values())} jobs")


def test_cells_of_one_experiment_can_be_run_by_hand(capsys):
    assert main(["cells", CONFIG, str(ROOT / "config/smoke.yaml"), "--experiment", "hessian"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 4  # two losses and two depths
    path, settings = lines[0].split("\t")
    assert path == "loss_name=bures-wasserstein/epsilon=0.1/smin=0.5/rank=5/depth=1"
    assert json.loads(settings)["landscape"]["points"] == 4
    assert run(settings, "0-0") == 0


def foreign(path):
    pq.write_table(pa.table({"a": [1]}), path)


def text(path, content):
    Path(path).write_text(content, encoding="utf-8")


CELLS = ["cells", CONFIG, "mine.yaml"]
#: An experiment whose target comes from a file of samples.
OF_SAMPLES = (
    "experiments: {{mine: {{kind: hessian, loss: frobenius, dimension: 3, target: {{samples: {}}}, seeds: 1, "
    "seeds_per_job: 1, landscape: {{points: 2}}, grid: {{epsilon: [0], smin: [-1], rank: [2], depth: [1]}}}}}}"
)
#: What is prepared, the command, and what its one line says.
MISTAKES = [
    (None, ["info", "none.parquet"], "No such file or directory"),
    (lambda: text("a.parquet", "PAR1"), ["info", "a.parquet"], "Parquet"),
    (
        lambda: foreign("b.parquet"),
        ["info", "b.parquet"],
        "b.parquet is broken, or was edited by another program (it carries no deepbures metadata): delete it",
    ),
    (None, CELLS, "mine.yaml: No such file or directory"),
    (lambda: text("mine.yaml", "a: [1"), CELLS, "mine.yaml: not YAML"),
    (lambda: text("mine.yaml", "- 1"), CELLS, "mine.yaml: the top level must be a dictionary"),
    (lambda: text("mine.yaml", ""), CELLS, "mine.yaml: the top level must be a dictionary, not empty"),
    (lambda: Path("mine.yaml").write_bytes(b"\xff\xfe"), CELLS, "mine.yaml: not YAML"),
    (lambda: text("mine.yaml", "studdy: {}"), CELLS, "unknown key 'studdy', did you mean 'study'?"),
    (lambda: text("mine.yaml", "study: {seed: -1}"), CELLS, "study.seed: -1 must be at least 0"),
    (None, ["cells", CONFIG, "--experiment", "none"], "there is no experiment 'none'"),
    (
        lambda: text("mine.yaml", "experiments: {hessian: {target: {covariance: none.npy}}}"),
        CELLS,
        "experiments.hessian.target: none.npy: ",
    ),
    (lambda: text("mine.yaml", OF_SAMPLES.format("none.csv")), CELLS, "mine.target: none.csv: there is no such file"),
    (
        lambda: text("mine.yaml", OF_SAMPLES.format("x" * 300)),
        CELLS,
        "holds a name of more than 255 bytes",
    ),
]


@pytest.mark.parametrize(("prepare", "command", "message"), MISTAKES, ids=[message for *_, message in MISTAKES])
def test_a_wrong_command_gets_one_line_and_writes_nothing(capsys, tmp_path, prepare, command, message):
    if prepare:
        prepare()
    before = {path: path.read_bytes() for path in tmp_path.rglob("*")}
    assert main(command) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    lines = captured.err.splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("deepbures: ")
    assert message in lines[0]
    assert {path: path.read_bytes() for path in tmp_path.rglob("*")} == before


RUNS = [
    ({"cell": "{"}, "cell must be JSON"),
    ({"cell": "[]"}, "cell must be JSON"),
    ({"cell": with_(kind="flows")}, "kind"),
    ({"cell": {key: value for key, value in CELL.items() if key != "rank"}}, "rank"),
    (
        {"cell": {key: value for key, value in CELL.items() if key != "landscape"}},
        "the key 'landscape' is missing",
    ),
    ({"cell": with_(landscape=3)}, "cell.landscape: 3 must be of type dictionary"),
    ({"cell": with_(landscape={})}, "cell.landscape: the key 'points' is missing"),
    ({"cell": with_(kind="flow")}, "cell: the key 'initialization' is missing"),
    ({"cell": with_(kind=["flow"])}, "kind must be of type str, not ['flow']"),
    ({"cell": with_(dimension="3")}, "cell.dimension: '3' must be of type integer"),
    ({"cell": with_(epsilon="0.1")}, "cell.epsilon: '0.1' must be of type number"),
    ({"cell": with_(target="zipf")}, "cell.target: 'zipf' must be of type dictionary"),
    ({"cell": with_(target={})}, "cell.target: the key 'spectrum' is missing"),
    (
        {"cell": with_(loss="l2")},
        "cell.loss: 'l2' is not allowed; allowed: bures-wasserstein",
    ),
    ({"cell": with_(rank=9)}, "rank must lie between 1 and the dimension 3, not 9"),
    ({"cell": with_(depth=0)}, "cell.depth: 0 must be at least 1"),
    ({"cell": with_(target={"covariance": "none.npy"})}, "none.npy: there is no such file"),
    ({"cell": with_(target={"spectrum": "flat", "mode": "eigenvalues"})}, "spectrum must be one of zipf, random"),
    ({"seeds": "3"}, "seeds must be FIRST-LAST"),
    ({"seeds": "3-1"}, "seeds must be FIRST-LAST"),
]


@pytest.mark.parametrize(("arguments", "message"), RUNS, ids=[message for _, message in RUNS])
def test_a_wrong_run_gets_one_line_and_writes_nothing(capsys, tmp_path, arguments, message):
    assert run(**arguments) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1, lines
    assert lines[0].startswith("deepbures: ")
    assert message in lines[0]
    assert list(tmp_path.iterdir()) == []
