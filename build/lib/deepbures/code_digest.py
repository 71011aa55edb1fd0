"""What a result depends on: the code of a module and all that it imports."""

from __future__ import annotations

import ast
import functools
import hashlib
from importlib.metadata import version
from pathlib import Path

_PACKAGE = Path(__file__).parent


@functools.cache
def code_digest(*roots: str) -> str:
    """Digest of modules of this package, all those they import, and the versions of NumPy and SciPy.

    Docstrings and comments are left out, and so is `COST`, a kind's share in estimates of time.

    Given to Snakemake as a parameter, it reruns what depends on an edited module and nothing else.
    """
    digest = hashlib.sha256(f"numpy {version('numpy')} scipy {version('scipy')}\n".encode())
    for name in sorted(set().union(*map(_imported, roots))):
        tree = ast.parse(_source(name).read_text(encoding="utf-8"))
        digest.update(f"{name}\n{ast.dump(_stripped(tree))}\n".encode())
    return digest.hexdigest()[:16]


def modules_of(package: str) -> list[str]:
    """Names of the modules in a package of this one, such as `plotting`."""
    return sorted(f"{package}.{path.stem}" for path in (_PACKAGE / package).glob("[!_]*.py"))


def _imported(root: str) -> set[str]:
    """Names of the modules in this package that `root` imports, directly or not, and its own."""
    found: set[str] = set()
    waiting = [root]
    while waiting:
        name = waiting.pop()
        if name in found:
            continue
        found.add(name)
        folder = name.split(".")
        if _source(name).name != "__init__.py":
            folder.pop()
        for node in ast.walk(ast.parse(_source(name).read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and node.level:
                base = folder[: len(folder) - (node.level - 1)]
                if node.module:
                    waiting.append(".".join([*base, node.module]))
                else:
                    waiting += [".".join([*base, alias.name]) for alias in node.names if _exists([*base, alias.name])]
    return found


def _exists(parts: list[str]) -> bool:
    return _PACKAGE.joinpath(*parts).with_suffix(".py").exists() or _PACKAGE.joinpath(*parts, "__init__.py").exists()


def _source(name: str) -> Path:
    package = _PACKAGE.joinpath(*name.split("."), "__init__.py")
    return package if package.exists() else _PACKAGE.joinpath(*name.split(".")).with_suffix(".py")


def _stripped(tree: ast.Module) -> ast.Module:
    """The tree without what no result depends on."""
    tree.body = [node for node in tree.body if not _is_cost(node)]
    for node in ast.walk(tree):
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef)) and ast.get_docstring(node, clean=False):
            node.body = node.body[1:]
    return tree


def _is_cost(node: ast.stmt) -> bool:
    targets = node.targets if isinstance(node, ast.Assign) else []
    return any(isinstance(target, ast.Name) and target.id == "COST" for target in targets)
