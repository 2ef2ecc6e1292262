"""The digest of the code behind a result, so that one table contains only rows of the same code."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator
from functools import lru_cache
from hashlib import sha256
from importlib.util import find_spec
from pathlib import Path

PACKAGE = "pdsynth"
SHOWN = "pdsynth.progress"  # it only shows how far a work is
RECIPES = "recipes"  # the function of a method's module that names its runs


@lru_cache(maxsize=64)
def code_digest(*modules: str) -> str:
    """SHA-256 (hexadecimal) of the code of some modules of pdsynth, to notice a change that may change results.

    modules: their full names. All modules of pdsynth that they import by statements, directly or not, are included;
    modules that are discovered at run time are not, nor is the one that shows progress. Comments, docstrings, layout
    and the function `recipes` of a module do not change the digest: the settings of a run are compared separately, and
    a new recipe does not affect other recipes. A change of a file after the first call in a process is not noticed.
    Another version of Python may give another digest of the same code. Raises ModuleNotFoundError if a module does not
    exist.

    >>> code_digest("pdsynth.types") == code_digest("pdsynth.types"), len(code_digest("pdsynth.types"))
    (True, 64)
    """
    digest = sha256()
    for name, tree in sorted(_reached(modules).items()):
        digest.update(f"{name}\0{ast.dump(tree)}\0".encode())
    return digest.hexdigest()


def _reached(modules: Iterable[str]) -> dict[str, ast.Module]:
    """The parsed modules and the modules that they import.

    Modules that a package discovers at run time are not included, because the results of one method do not depend on
    other methods.
    """
    found: dict[str, ast.Module] = {}
    left = list(modules)
    while left:
        name = left.pop()
        if name not in found and name != SHOWN:
            found[name] = _that_acts(ast.parse(_file(name).read_bytes()))
            left += _imported(found[name])
    return found


def _imported(tree: ast.Module) -> Iterator[str]:
    """Modules of pdsynth in all import statements of a module."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.startswith(f"{PACKAGE}."))
        elif isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == PACKAGE:
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                if _is_module(inner):
                    yield inner
                elif node.module != PACKAGE:  # only the version is imported from the package itself
                    yield str(node.module)


def _is_module(name: str) -> bool:
    try:
        return find_spec(name) is not None
    except ModuleNotFoundError:  # the name is a class or function, and its module is not a package
        return False


def _file(name: str) -> Path:
    spec = find_spec(name)
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError(f"there is no module {name!r}", name=name)
    return Path(spec.origin)


def _that_acts(tree: ast.Module) -> ast.Module:
    """The module without docstrings and without the function that names its runs."""
    tree.body = [node for node in tree.body if not (isinstance(node, ast.FunctionDef) and node.name == RECIPES)]
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            match node.body:
                case [ast.Expr(ast.Constant(str())), *rest]:
                    node.body = rest
    return tree
