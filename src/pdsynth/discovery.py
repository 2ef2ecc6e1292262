"""Modules that are loaded by their names: those of a package, and the one that shows objects in a notebook."""

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


class Pictured:
    """An object that a notebook shows as HTML. The function for its class is in `pdsynth.notebook`.

    That module needs the pictures of the report, and is therefore loaded when an object is shown, and not before.
    """

    def _repr_html_(self) -> str:
        return str(import_module("pdsynth.notebook").html(self))
