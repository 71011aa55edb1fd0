"""The digest of the code that a result depends on."""

import ast
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest

import deepbures.code_digest as module
from deepbures import provenance
from deepbures.code_digest import code_digest
from deepbures.experiment.kinds import KINDS


@pytest.fixture
def package(tmp_path, monkeypatch):
    """Copy of the package that digests are taken from, to be edited."""
    folder = tmp_path / "package"
    shutil.copytree(module._PACKAGE, folder, ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(module, "_PACKAGE", folder)
    code_digest.cache_clear()
    yield folder
    code_digest.cache_clear()


def edit(path, old, new):
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new, 1), encoding="utf-8")
    code_digest.cache_clear()


def test_digest_is_stable(package):
    before = code_digest("experiment.kinds.flow")
    code_digest.cache_clear()
    assert code_digest("experiment.kinds.flow") == before != code_digest("experiment.kinds.descent")
    assert len(before) == 16
    assert int(before, 16) >= 0


def test_digest_ignores_the_cost_of_a_kind(package):
    before = code_digest("experiment.kinds.flow")
    edit(package / "experiment/kinds/flow.py", "\nCOST = ", "\nCOST = 1")
    assert code_digest("experiment.kinds.flow") == before
    edit(package / "experiment/kinds/flow.py", "\nCOST = ", "\nCOSTS = ")
    assert code_digest("experiment.kinds.flow") != before


def test_digest_ignores_comments_and_docstrings(package):
    before = code_digest("experiment.kinds.descent")
    for name in ("losses", "experiment/kinds/descent", "experiment/problem", "psd"):
        path = package / f"{name}.py"
        path.write_text("# A comment.\n" + path.read_text(encoding="utf-8") + "\n\n# Another.\n", encoding="utf-8")
    edit(package / "covariance_loss.py", '"""∇L(W), shape of W."""', '"""The gradient, of the same shape."""')
    edit(package / "psd.py", '"""Symmetric part', '"""The symmetric part')
    code_digest.cache_clear()
    assert code_digest("experiment.kinds.descent") == before


@pytest.mark.parametrize(
    ("name", "old", "new", "changed"),
    [
        (
            "experiment/problem",
            "def make_loss(",
            "def make_the_loss(",
            {"experiment.kinds.flow", "experiment.kinds.descent"},
        ),
        ("experiment/kinds/flow", "def run(", "def run_all(", {"experiment.kinds.flow"}),
        ("gradient_descent", "CHECK_INTERVAL = 10", "CHECK_INTERVAL = 20", {"experiment.kinds.descent"}),
        (
            "explicit",
            "_COLLAPSE = 1e-6",
            "_COLLAPSE = 1e-7",
            {"experiment.kinds.flow", "experiment.kinds.descent"},
        ),
        (
            "psd",
            "/ 2",
            "/ 2.0",
            {"experiment.kinds.flow", "experiment.kinds.descent", "slopes"},
        ),  # imported by imports only
        ("slopes", "3.0", "2.0", {"slopes"}),
    ],
)
def test_digest_follows_the_code(package, name, old, new, changed):
    roots = ("experiment.kinds.flow", "experiment.kinds.descent", "slopes")
    before = [code_digest(root) for root in roots]
    edit(package / f"{name}.py", old, new)
    after = [code_digest(root) for root in roots]
    assert {root for root, one, other in zip(roots, before, after, strict=True) if one != other} == changed


def test_digest_follows_every_layer(package):
    # A change anywhere that an experiment can reach changes its digest.
    reached = module._imported("experiment.kinds.descent")
    assert {"psd", "losses", "gradient_flow", "predicted_rates", "seeds", "targets", "initialization"} <= reached
    assert {"gradient_descent", "experiment.kinds.descent", "experiment.measure"} <= reached
    assert reached.isdisjoint({"slopes", "configuration", "grid", "aggregate", "plotting", "store", "parquet", "files"})
    digests = [code_digest("experiment.kinds.descent")]
    for name in sorted(reached):
        path = module._source(name)
        path.write_text(path.read_text(encoding="utf-8") + "\nADDED = 1\n", encoding="utf-8")
        code_digest.cache_clear()
        digests.append(code_digest("experiment.kinds.descent"))
        assert digests[-1] != digests[-2], name


def test_imports_are_those_of_the_syntax_trees():
    # The statements are found without a tree of the whole file, which takes longer than the rest of the digest.
    for path in module._PACKAGE.rglob("*.py"):
        text = path.read_text(encoding="utf-8")
        statements = [node for found in module._RELATIVE_IMPORT.findall(text) for node in ast.parse(found).body]
        in_tree = [node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.ImportFrom) and node.level]
        assert sorted(map(ast.dump, statements)) == sorted(map(ast.dump, in_tree)), path


def test_digest_is_one_in_all_processes(package):
    # Sets of constants have another order in each process.
    (package / "psd.py").write_text("def f(x):\n    return x in {'a', 'b', 'c', 'd', 'e', ('f', 'g')}\n")
    program = (
        "import sys, deepbures.code_digest as module; from pathlib import Path; "
        "module._PACKAGE = Path(sys.argv[1]); print(module.code_digest('psd'))"
    )
    found = {
        subprocess.run(
            [sys.executable, "-c", program, str(package)],
            env={**os.environ, "PYTHONHASHSEED": str(seed)},
            stdout=subprocess.PIPE,
            check=True,
        ).stdout
        for seed in (1, 2, 3)
    }
    assert len(found) == 1


def test_flow_does_not_depend_on_descent():
    # Editing descent recomputes no flow. Descent is compared with the flow, and so depends on it.
    flow, descent = module._imported("experiment.kinds.flow"), module._imported("experiment.kinds.descent")
    shared = {"psd", "losses", "gradient_flow", "predicted_rates", "initialization", "network", "experiment.problem"}
    assert shared <= flow & descent
    assert {"gradient_descent", "experiment.kinds.descent"} <= descent - flow
    assert "experiment.kinds.flow" not in descent


def test_digest_reads_packages_inside_the_package(tmp_path, monkeypatch):
    # root → inner/__init__ → inner/part → other: relative imports of an __init__ start at its own folder.
    files = {
        "root.py": "from . import inner\n",
        "inner/__init__.py": "from .part import x\n",
        "inner/part.py": "from ..other import x\n",
        "other.py": "x = 1\n",
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    monkeypatch.setattr(module, "_PACKAGE", tmp_path)
    code_digest.cache_clear()
    before = code_digest("root")
    (tmp_path / "other.py").write_text("x = 2\n")
    code_digest.cache_clear()
    assert code_digest("root") != before
    code_digest.cache_clear()


def test_provenance_names_code_and_versions():
    found = provenance.of_code("experiment")
    assert found["code"] == code_digest("experiment")
    assert {"deepbures", "numpy", "scipy", "python"} <= set(found)
    assert found["numpy"] == np.__version__


def test_modules_of_a_package_are_all_of_it():
    # What the rules of figures ask for: a new module of figures is in their digest without a list.
    assert {"plotting.convergence", "plotting.steps", "plotting.tables"} <= set(module.modules_of("plotting"))
    assert {name.rpartition(".")[2] for name in module.modules_of("experiment/kinds")} == set(KINDS)
