"""What a result depends on: the code of a module and of everything that it imports from this package."""

import ast
import functools
import hashlib
import re
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

_PACKAGE = Path(__file__).parents[2]
_NAME = __name__.partition(".")[0]
#: A string literal, or a comment: whichever starts first. Strings come in this order, as `"""` starts with `"`.
_STRING_OR_COMMENT = re.compile(
    r'("""(?:\\.|[^\\])*?"""|' + r"'''(?:\\.|[^\\])*?'''|" + r'"(?:\\.|[^"\\\n])*"|' + r"'(?:\\.|[^'\\\n])*')|#[^\n]*",
    re.DOTALL,
)


@functools.cache
def code_digest(*roots: str) -> str:
    """Digest of modules of this package, all those that they import, and the versions of NumPy and SciPy.

    Given to Snakemake as a parameter, it reruns what depends on an edited module and nothing else. It is taken from the
    source text without comments, docstrings and blank lines, so it is the same under every version of Python. `COST`,
    by which a kind of experiment estimates its time, is left out.

    Parameters
    ----------
    roots
        Names of modules below this package, such as `"losses"`.
    """
    digest = hashlib.sha256(f"numpy {version('numpy')} scipy {version('scipy')}\n".encode())
    for name in sorted(_reached(roots)):
        digest.update(f"{name}\n{_parsed(_sources(_PACKAGE)[name]).code}\n".encode())
    return digest.hexdigest()[:16]


def modules_of(package: str) -> list[str]:
    """Names of the modules in a package of this one, such as `plotting`."""
    return sorted(f"{package}.{path.stem}" for path in (_PACKAGE / package).glob("[!_]*.py"))


def _reached(roots: tuple[str, ...]) -> set[str]:
    """Names of the given modules and of those in this package that they import, directly or indirectly."""
    found: set[str] = set()
    waiting = list(roots)
    while waiting:
        name = waiting.pop()
        if name not in found:
            found.add(name)
            waiting += _parsed(_sources(_PACKAGE)[name]).imported(name)
    return found


class _Parsed:
    """A source file: its code without comments and docstrings, and its import statements."""

    def __init__(self, path: Path) -> None:
        text = path.read_text(encoding="utf-8")
        tree = ast.parse(text, str(path))
        self.path = path
        self._imports: list[ast.Import | ast.ImportFrom] = []
        lines = text.splitlines()
        for node in _statements(tree):
            if isinstance(node, ast.Import | ast.ImportFrom):
                self._imports.append(node)
            elif _says_nothing(node):
                lines[node.lineno - 1 : node.end_lineno] = [""] * ((node.end_lineno or node.lineno) - node.lineno + 1)
        code = _STRING_OR_COMMENT.sub(lambda match: match[1] or "", "\n".join(lines))
        self.code = "\n".join(filter(None, map(str.rstrip, code.splitlines())))

    def imported(self, name: str) -> Iterator[str]:
        """Names of modules of this package that it imports, when it is the module `name`."""
        here = [_NAME, *name.split(".")]
        if self.path.name != "__init__.py" or name == "__init__":
            here.pop()
        for node in self._imports:
            if isinstance(node, ast.Import):
                found = [alias.name.split(".") for alias in node.names]
            else:
                base = here[: len(here) - (node.level - 1)] if node.level else []
                base = [*base, *node.module.split(".")] if node.module else base
                found = [[*base, alias.name] for alias in node.names]
            yield from (_module_of(parts[1:]) for parts in found if parts[0] == _NAME)


def _module_of(parts: list[str]) -> str:
    """The module that a dotted name belongs to: the longest that exists, else the package itself."""
    names = (".".join(parts[:length]) for length in range(len(parts), 0, -1))
    return next((name for name in names if name in _sources(_PACKAGE)), "__init__")


@functools.cache
def _parsed_at(path: Path, changed: int, size: int) -> _Parsed:
    return _Parsed(path)


def _parsed(path: Path) -> _Parsed:
    status = path.stat()
    return _parsed_at(path, status.st_mtime_ns, status.st_size)


def _statements(node: ast.AST) -> Iterator[ast.stmt]:
    """All statements below a node; expressions, which hold none, are not entered."""
    for part in ("body", "orelse", "finalbody", "handlers", "cases"):
        for child in getattr(node, part, ()):
            if isinstance(child, ast.stmt):
                yield child
            yield from _statements(child)


def _says_nothing(node: ast.stmt) -> bool:
    """Whether it changes no result: a docstring, that of an attribute too, or a kind's `COST = …`."""
    if isinstance(node, ast.Expr):
        return isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
    return isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name) and node.targets[0].id == "COST"


@functools.cache
def _sources(package: Path) -> dict[str, Path]:
    """Source file of each module below a folder; that of a package is its `__init__.py`."""
    paths = {path: path.relative_to(package).with_suffix("").parts for path in package.rglob("*.py")}
    return {".".join(parts).removesuffix(".__init__"): path for path, parts in paths.items()}
