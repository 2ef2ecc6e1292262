"""Imports the modules of a package, so that a new module need not be added to a list."""

from __future__ import annotations

from importlib import import_module
from pkgutil import iter_modules
from types import ModuleType


def modules_of(package: str) -> list[ModuleType]:
    """Import all modules of a package, in the order of their names, without its subpackages.

    An error of an import is not caught, so that its traceback names the module.

    >>> [module.__name__ for module in modules_of("pdsynth.diffusion")]
    ['pdsynth.diffusion.sampling', 'pdsynth.diffusion.schedule']
    """
    found = iter_modules(import_module(package).__path__, f"{package}.")
    return [import_module(each.name) for each in sorted(found, key=lambda each: each.name) if not each.ispkg]
