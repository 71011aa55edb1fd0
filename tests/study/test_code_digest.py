"""The digest of the code that a result depends on."""

import ast
import io
import json
import os
import shutil
import subprocess
import sys
import tokenize

import numpy as np
import pytest

import deepbures.study.results.code_digest as module
from deepbures.study.kinds import KINDS
from deepbures.study.results import provenance
from deepbures.study.results.code_digest import code_digest
from deepbures.study.run import roots


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
    before = code_digest("study.kinds.flow")
    code_digest.cache_clear()
    assert code_digest("study.kinds.flow") == before != code_digest("study.kinds.descent")
    assert len(before) == 16
    assert int(before, 16) >= 0


def test_digest_ignores_the_cost_of_a_kind(package):
    before = code_digest("study.kinds.flow")
    edit(package / "study/kinds/flow.py", "\nCOST = ", "\nCOST = 1")
    assert code_digest("study.kinds.flow") == before
    edit(package / "study/kinds/flow.py", "\nCOST = ", "\nCOSTS = ")
    assert code_digest("study.kinds.flow") != before


def test_digest_ignores_comments_and_docstrings(package):
    before = code_digest("study.kinds.descent")
    for name in ("losses/base", "study/kinds/descent", "study/cell/problem", "linalg/psd"):
        path = package / f"{name}.py"
        path.write_text("# A comment.\n" + path.read_text(encoding="utf-8") + "\n\n# Another.\n", encoding="utf-8")
    edit(package / "losses/base.py", '"""∇L(W), shape of W."""', '"""The gradient, of the same shape."""')
    edit(package / "linalg/psd.py", '"""Symmetric part', '"""The symmetric part')
    code_digest.cache_clear()
    assert code_digest("study.kinds.descent") == before


@pytest.mark.parametrize(
    ("name", "old", "new", "changed"),
    [
        (
            "study/cell/problem",
            "def make_loss(",
            "def make_the_loss(",
            {"study.kinds.flow", "study.kinds.descent"},
        ),
        ("study/kinds/flow", "def run_stack(", "def run_all(", {"study.kinds.flow"}),
        ("descent/gradient_descent", "CHECK_INTERVAL = 10", "CHECK_INTERVAL = 20", {"study.kinds.descent"}),
        (
            "flow/dop853",
            "_COLLAPSE = 1e-6",
            "_COLLAPSE = 1e-7",
            {"study.kinds.flow", "study.kinds.descent"},
        ),
        (
            "linalg/psd",
            "/ 2",
            "/ 2.0",
            {"study.kinds.flow", "study.kinds.descent", "rates.measured"},
        ),  # imported by imports only
        ("rates/measured", "3.0", "2.0", {"rates.measured"}),
    ],
)
def test_digest_follows_the_code(package, name, old, new, changed):
    roots = ("study.kinds.flow", "study.kinds.descent", "rates.measured")
    before = [code_digest(root) for root in roots]
    edit(package / f"{name}.py", old, new)
    after = [code_digest(root) for root in roots]
    assert {root for root, one, other in zip(roots, before, after, strict=True) if one != other} == changed


@pytest.fixture(scope="module")
def loaded(tmp_path_factory):
    """Modules that a run of each kind loads, in a copy of the package whose front door is empty."""
    folder = tmp_path_factory.mktemp("loaded")
    shutil.copytree(module._PACKAGE, folder / "deepbures", ignore=shutil.ignore_patterns("__pycache__"))
    (folder / "deepbures/__init__.py").write_text("")
    program = """if True:
        import importlib, json, sys
        found = {}
        for kind in sys.argv[1:]:
            for name in [name for name in sys.modules if name.partition(".")[0] == "deepbures"]:
                del sys.modules[name]
            importlib.import_module("deepbures.study.run")
            importlib.import_module(f"deepbures.study.kinds.{kind}")
            found[kind] = [name.removeprefix("deepbures.") for name in sys.modules if name.startswith("deepbures.")]
        print(json.dumps(found))"""
    run = subprocess.run(
        [sys.executable, "-c", program, *KINDS],
        env={**os.environ, "PYTHONPATH": str(folder)},
        capture_output=True,
        text=True,
        check=True,
    )
    return json.loads(run.stdout)


@pytest.mark.parametrize("kind", KINDS)
def test_an_edit_of_any_module_that_a_run_passes_through_changes_the_digest(package, loaded, kind):
    reached = module._reached(roots(kind))
    sources = module._sources(package)
    assert {name for name in loaded[kind] if sources[name].name != "__init__.py"} <= reached
    assert {"study.run", "study.results.parquet", f"study.kinds.{kind}", "study.kinds"} <= reached
    others = module._reached(roots(KINDS[0])) if kind != KINDS[0] else set()  # edited with the first kind
    digest = code_digest(*roots(kind))
    for name in sorted(reached - others):
        with sources[name].open("a", encoding="utf-8") as file:
            file.write("\nADDED = 1\n")
        code_digest.cache_clear()
        before, digest = digest, code_digest(*roots(kind))
        assert digest != before, name


def test_doubling_a_column_where_tables_are_assembled_changes_the_digest(package):
    before = code_digest(*roots("flow"))
    edit(package / "study/run.py", "[row[name]] * length", "[2 * row[name]] * length")
    assert code_digest(*roots("flow")) != before


def test_kinds_do_not_depend_on_each_other():
    for kind in KINDS:
        others = {f"study.kinds.{other}" for other in KINDS if other != kind}
        assert others.isdisjoint(module._reached(roots(kind)))
    reached = module._reached(roots("descent"))
    assert reached.isdisjoint(
        {
            "rates.measured",
            "study.configuration.check",
            "study.grid.cells",
            "study.results.aggregate",
            "plotting",
            "claims",
        }
    )


def tokens(text, without=frozenset()):
    layout = {tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT}
    found = tokenize.generate_tokens(io.StringIO(text).readline)
    return [one.string for one in found if one.type not in layout and one.start[0] not in without]


def test_digest_is_of_all_the_code_and_of_nothing_else():
    for path in module._PACKAGE.rglob("*.py"):
        text = path.read_text(encoding="utf-8")
        silent = (
            node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.stmt) and module._says_nothing(node)
        )
        lines = {line for node in silent for line in range(node.lineno, node.end_lineno + 1)}
        assert tokens(module._Parsed(path).code) == tokens(text, lines), path


@pytest.mark.parametrize(
    "text",
    [
        "from . import other\n",
        "from .other import x\n",
        "from deepbures import other\n",
        "from deepbures.other import x\n",
        "import deepbures.other\n",
        "from .other import (\n    x,  # one of these (a parenthesis that closes here: ) )\n    y,\n)\n",
        "def f():\n    try:\n        from . import other\n    except ImportError:\n        pass\n",
        "if True:\n    pass\nelse:\n    from .inner.part import x\n",
        "from .inner import part\n",
        "from . import inner\n",
        "from .inner import x\n",
    ],
)
def test_digest_follows_every_form_of_import(tmp_path, monkeypatch, text):
    files = {
        "root.py": text,
        "inner/__init__.py": "from .part import x\n",
        "inner/part.py": "from ..other import x\n",
        "other.py": "x = '#'  # a comment\n",
    }
    for name, content in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(content)
    monkeypatch.setattr(module, "_PACKAGE", tmp_path)
    code_digest.cache_clear()
    before = code_digest("root")
    edit(tmp_path / "other.py", "a comment", "another comment")
    assert code_digest("root") == before
    edit(tmp_path / "other.py", "'#'", "'##'")
    assert code_digest("root") != before
    code_digest.cache_clear()


def test_digest_is_one_in_all_processes(package):
    # Sets of constants have another order in each process.
    (package / "linalg/psd.py").write_text("def f(x):\n    return x in {'a', 'b', 'c', 'd', 'e', ('f', 'g')}\n")
    program = (
        "import sys, deepbures.study.results.code_digest as module; from pathlib import Path; "
        "module._PACKAGE = Path(sys.argv[1]); print(module.code_digest('linalg.psd'))"
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


def test_provenance_names_code_and_versions():
    found = provenance.of_code("study.run")
    assert found["code"] == code_digest("study.run")
    assert {"deepbures", "numpy", "scipy", "python"} <= set(found)
    assert found["numpy"] == np.__version__


def test_modules_of_a_package_are_all_of_it():
    # What the rules of figures ask for: a new module of figures is in their digest without a list.
    assert {"plotting.convergence", "plotting.steps", "plotting.tables"} <= set(module.modules_of("plotting"))
    assert {name.rpartition(".")[2] for name in module.modules_of("study/kinds")} == set(KINDS)
