"""The package is built in layers: a module imports only from earlier ones."""

import ast
import functools
import json
import subprocess
import sys
from graphlib import TopologicalSorter
from pathlib import Path

from cases import each
from test_experiment import SETTINGS, SMALL

import deepbures
from deepbures.experiment.kinds import KINDS

PACKAGE = Path(deepbures.__file__).parent

LAYERS = [
    {"axes", "code_digest", "file_kinds", "files", "progress", "psd", "schema", "seeds"},
    {
        "closed_form_rates",
        "delimited_text",
        "eigenbasis",
        "exponential",
        "inverse_root",
        "root_path",
        "sample_covariance",
    },
    {"covariance_loss", "linear_forms", "matrix_files", "sample_files"},
    {"bures_wasserstein", "frobenius"},
    {
        "losses",
        "network",
        "parquet",
        "region_covariances",
        "sensing",
        "sparse_recovery",
        "target_files",
        "targets",
        "trajectory",
    },
    {
        "aligned_flow",
        "barycenter",
        "collocation",
        "diagnostics",
        "initialization",
        "predicted_rates",
        "program_constants",
        "provenance",
        "reduced_flow",
    },
    {
        "collocation_path",
        "critical_points",
        "curvature",
        "explicit",
        "gradient_descent",
        "scaled_descent",
        "store",
    },
    {"critical_point_search", "gradient_flow"},
    {"experiment"},
]
#: What stands beside the layers: the grid, storage, evaluation, figures, command line.
BESIDE = {
    "__init__",
    "__main__",
    "aggregate",
    "archive",
    "claims",
    "configuration",
    "cost",
    "derived",
    "environment",
    "families",
    "freshness",
    "grid",
    "plotting",
    "kernel",
    "shipped",
    "slopes",
    "strict_yaml",
}
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
            base = package[: len(package) - node.level + 1]
            if node.module:
                yield ".".join([*base, node.module])
            else:
                yield from (".".join([*base, alias.name]) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module


def layer_of(module):
    return next((i for i, names in enumerate(LAYERS) if module.split(".")[0] in names), None)


def test_every_module_has_its_place():
    placed = set().union(BESIDE, *LAYERS)
    assert {module.split(".")[0] for module in MODULES} <= placed
    assert {
        "psd",
        "losses",
        "gradient_flow",
        "gradient_descent",
        "experiment.kinds.flow",
        "experiment.kinds.descent",
    } <= set(MODULES)


@each("module", [module for module in MODULES if layer_of(module) is not None])
def test_module_imports_only_from_earlier_layers(module):
    allowed = set().union(*LAYERS[: layer_of(module)])
    if "." in module:  # a package may import from itself
        allowed.add(module.split(".")[0])
    own = {name.split(".")[1] for name in imports(module) if name.startswith("deepbures.")}
    assert own <= allowed


def test_modules_import_in_no_circle():
    own = {f"deepbures.{module}".removesuffix(".__init__"): module for module in MODULES}
    graph = {module: {own[name] for name in imports(module) if name in own} for module in MODULES}
    order = [*TopologicalSorter(graph).static_order()]  # a CycleError names the circle
    assert (
        order.index("psd")
        < order.index("losses")
        < order.index("experiment.problem")
        < order.index("experiment.kinds.descent")
    )


@each("module", MODULES)
def test_nothing_imports_snakemake(module):
    roots = {name.split(".")[0] for name in imports(module)}
    assert roots.isdisjoint({"snakemake", "pytest", "papermill"})
    # Absolute imports of the package itself would escape the checks here and the code digest.
    source = ast.dump(tree_of(module))
    assert "ImportFrom(module='deepbures" not in source
    assert "alias(name='deepbures" not in source


def test_a_job_loads_neither_pandas_nor_matplotlib(tmp_path):
    # Jobs start by the thousand: what they do not need they do not load.
    kinds = ", ".join(f"deepbures.experiment.kinds.{kind}" for kind in KINDS)
    run = [
        "run",
        "--cell",
        json.dumps({**SETTINGS, **SMALL}),
        "--seeds",
        "0-1",
        "--store",
        str(tmp_path),
        "--list",
        f"{tmp_path}/a",
    ]
    check = f"import sys, {kinds}; from deepbures.__main__ import main; main({run}); print(*sys.modules)"
    found = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=True)
    assert (tmp_path / "a").exists()
    assert {"pandas", "matplotlib", "snakemake", "jsonschema", "yaml"}.isdisjoint(found.stdout.split())
