"""What a result depends on: the code of a module and all that it imports."""

from __future__ import annotations

import ast
import functools
import hashlib
import re
from importlib.metadata import version
from pathlib import Path
from types import CodeType

_PACKAGE = Path(__file__).parent
#: A relative import, in one line or in parentheses; and a kind's share in estimates of time.
_RELATIVE_IMPORT = re.compile(r"^[ \t]*(from \.[^(\n]*(?:\([^)]*\))?[^\n]*)$", re.MULTILINE)
_COST = re.compile(r"^COST = .*$", re.MULTILINE)


@functools.cache
def code_digest(*roots: str) -> str:
    """Digest of modules of this package, all those they import, and the versions of NumPy and SciPy.

    It is computed from what they compile to under this version of Python: docstrings, comments and layout are left out,
    and so is `COST`, a kind's share in estimates of time. (Compiling, in C, takes a fifth of the time of walking
    through syntax trees, and every process of a study would have to do it.)

    Given to Snakemake as a parameter, it reruns what depends on an edited module and nothing else.
    """
    digest = hashlib.sha256(f"numpy {version('numpy')} scipy {version('scipy')}\n".encode())
    for name in sorted(set().union(*map(_imported, roots))):
        text = _COST.sub("", _source(name).read_text(encoding="utf-8"))
        digest.update(f"{name}\n{_meaning(compile(text, name, 'exec', dont_inherit=True, optimize=2))}\n".encode())
    return digest.hexdigest()[:16]


def modules_of(package: str) -> list[str]:
    """Names of the modules in a package of this one, such as `plotting`."""
    return sorted(f"{package}.{path.stem}" for path in (_PACKAGE / package).glob("[!_]*.py"))


def _imported(root: str) -> set[str]:
    """Names of `root` and of the modules in this package that it imports, directly or indirectly."""
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
        for statement in _RELATIVE_IMPORT.findall(_source(name).read_text(encoding="utf-8")):
            for node in ast.parse(statement).body:
                if isinstance(node, ast.ImportFrom) and node.level:
                    base = folder[: len(folder) - (node.level - 1)]
                    if node.module:
                        waiting.append(".".join([*base, node.module]))
                    else:
                        names = (alias.name for alias in node.names)
                        waiting += [".".join([*base, one]) for one in names if _exists([*base, one])]
    return found


def _exists(parts: list[str]) -> bool:
    return _PACKAGE.joinpath(*parts).with_suffix(".py").exists() or _PACKAGE.joinpath(*parts, "__init__.py").exists()


def _source(name: str) -> Path:
    package = _PACKAGE.joinpath(*name.split("."), "__init__.py")
    return package if package.exists() else _PACKAGE.joinpath(*name.split(".")).with_suffix(".py")


def _meaning(code: CodeType) -> str:
    """Everything in a code object except its line numbers."""
    return repr(
        (
            *(code.co_name, code.co_flags, code.co_argcount, code.co_posonlyargcount, code.co_kwonlyargcount),
            *(code.co_names, code.co_varnames, code.co_freevars, code.co_cellvars),
            *(code.co_code, code.co_exceptiontable),
            [_constant(value) for value in code.co_consts],
        )
    )


def _constant(value: object) -> str:
    if isinstance(value, CodeType):
        return _meaning(value)
    if isinstance(value, frozenset):  # its order is that of hashes, which differ between processes
        return f"frozenset {sorted(map(repr, value))}"
    if isinstance(value, tuple):
        return f"({', '.join(map(_constant, value))},)"
    return repr(value)
