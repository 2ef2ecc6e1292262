"""Finds what lies in a package, so that a new file there needs no list of files to name it."""

from __future__ import annotations

from importlib import import_module
from pkgutil import iter_modules
from types import ModuleType


def modules_of(package: str) -> list[ModuleType]:
    """Import every module of a package, in the order of their names; packages inside it are left out.

    Raises what an import raises: a broken file is named by its traceback.

    >>> [module.__name__ for module in modules_of("pdsynth.diffusion")]
    ['pdsynth.diffusion.sampling', 'pdsynth.diffusion.schedule']
    """
    found = iter_modules(import_module(package).__path__, f"{package}.")
    return [import_module(each.name) for each in sorted(found, key=lambda each: each.name) if not each.ispkg]
