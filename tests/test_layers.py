"""The house: packages on floors, each of which imports only from lower ones."""

import ast
import functools
import json
import subprocess
import sys
from graphlib import TopologicalSorter
from pathlib import Path

import pytest
from cells import SETTINGS, SMALL

import deepbures
from deepbures.study.kinds import KINDS

PACKAGE = Path(deepbures.__file__).parent

#: Packages from the bottom up. Those on one floor never import each other.
FLOORS = [
    {"linalg", "process"},
    {"losses", "files", "gaussians"},
    {"model", "neighbours"},
    {"flow", "descent", "landscape", "rates"},
    {"study"},
    {"claims", "plotting"},
    {"__init__", "__main__", "torch", "jax"},
]
#: Packages of the study, likewise.
STUDY_FLOORS = [{"grid"}, {"results"}, {"cell"}, {"kinds"}, {"run"}, {"cost"}, {"configuration"}, {"own_target"}]
#: All that claims and plotting, which work on tables, may know of the study.
OF_TABLES = {"study.grid.axes", "study.results.derived", "study.results.parquet"}
MODULES = sorted(
    ".".join(path.relative_to(PACKAGE).with_suffix("").parts)
    for path in PACKAGE.rglob("*.py")
    if path.parent.name[0] != "_"
)


@functools.cache
def tree_of(module):
    return ast.parse(PACKAGE.joinpath(*module.split(".")).with_suffix(".py").read_text(encoding="utf-8"))


def imports(module):
    """Absolute names of what a module imports, wherever it stands in the file."""
    package = ["deepbures", *module.split(".")[:-1]]
    for node in ast.walk(tree_of(module)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level:
            base = [*package[: len(package) - node.level + 1], *([node.module] if node.module else [])]
            yield from (_module_of(".".join(base), alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (_module_of(node.module, alias.name) for alias in node.names)


def _module_of(module, name):
    """The module `module.name` where there is one; else `name` is something in `module`."""
    inside = PACKAGE.joinpath(*module.split(".")[1:], name)
    is_own = module.startswith("deepbures") and (inside.with_suffix(".py").exists() or inside.is_dir())
    return f"{module}.{name}" if is_own else module


def floor_of(module, floors):
    return next(number for number, names in enumerate(floors) if module in names)


def own_imports(module):
    """Dotted names below the package that a module imports."""
    return {name.removeprefix("deepbures.") for name in imports(module) if name.startswith("deepbures.")}


def test_every_module_has_its_floor():
    assert {module.split(".")[0] for module in MODULES} == set().union(*FLOORS)
    assert len([module for module in MODULES if "." not in module]) <= 6


@pytest.mark.parametrize("module", MODULES)
def test_module_imports_only_from_lower_floors(module):
    package = module.split(".")[0]
    allowed = set().union({package}, *FLOORS[: floor_of(package, FLOORS)])
    assert {name.split(".")[0] for name in own_imports(module)} <= allowed


@pytest.mark.parametrize("module", [module for module in MODULES if module.startswith("study.")])
def test_part_of_a_study_imports_only_from_lower_floors(module):
    part = module.split(".")[1]
    if part != "__init__":
        allowed = set().union({part}, *STUDY_FLOORS[: floor_of(part, STUDY_FLOORS)])
        assert {name.split(".")[1] for name in own_imports(module) if name.startswith("study.")} <= allowed


@pytest.mark.parametrize("module", [module for module in MODULES if module.startswith(("claims.", "plotting."))])
def test_claims_and_plotting_work_on_tables(module):
    others = {name for name in own_imports(module) if name.startswith("study.")}
    assert {".".join(name.split(".")[:3]) for name in others} <= OF_TABLES
    computing = {"losses", "flow", "descent", "landscape"}
    assert computing.isdisjoint(name.split(".")[0] for name in own_imports(module))


@pytest.mark.parametrize("module", [module for module in MODULES if not module.endswith("__init__")])
def test_modules_import_modules_and_no_faces_of_packages(module):
    faces = {name.removesuffix(".__init__") for name in MODULES if name.endswith(".__init__")}
    assert own_imports(module).isdisjoint(faces - {"study.kinds", "study.configuration", "claims", "plotting"})


def test_modules_import_in_no_circle():
    own = {f"deepbures.{module}".removesuffix(".__init__"): module for module in MODULES}
    graph = {module: {own[name] for name in imports(module) if name in own} for module in MODULES}
    order = [*TopologicalSorter(graph).static_order()]  # a CycleError names the circle
    assert (
        order.index("linalg.psd")
        < order.index("losses.registry")
        < order.index("study.cell.problem")
        < order.index("study.kinds.descent")
    )


@pytest.mark.parametrize("module", MODULES)
def test_nothing_imports_snakemake(module):
    roots = {name.split(".")[0] for name in imports(module)}
    assert roots.isdisjoint({"snakemake", "pytest", "papermill"})


def test_a_job_loads_neither_pandas_nor_matplotlib(tmp_path):
    # Jobs start by the thousand: what they do not need they do not load.
    kinds = ", ".join(f"deepbures.study.kinds.{kind}" for kind in KINDS)
    run = [
        "run",
        "--cell",
        json.dumps({**SETTINGS, **SMALL}),
        "--seeds",
        "0-1",
        "--part",
        f"{tmp_path}/a.part",
    ]
    check = f"import sys, {kinds}; from deepbures.__main__ import main; main({run}); print(*sys.modules)"
    found = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=True)
    assert (tmp_path / "a.part").exists()
    assert {"pandas", "matplotlib", "snakemake", "jsonschema", "yaml", "ruamel"}.isdisjoint(found.stdout.split())
