"""Discovers the claims, and writes the report and the cards with what they found.

A claim is a package of `pdsynth.evidence` with a module `section` that has what `report.sections.Claim` names. Nothing
else lists the claims: a new package is in the report as soon as it is there.
"""

from __future__ import annotations

import pkgutil
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import cast

from pdsynth import evidence
from pdsynth.report import cards, page
from pdsynth.report.sections import Claim


def claims() -> list[Claim]:
    """The module `section` of every claim, by the names of their packages."""
    packages = (info.name for info in pkgutil.iter_modules(evidence.__path__) if info.ispkg)
    names = (f"{evidence.__name__}.{package}.section" for package in packages)
    return [cast(Claim, import_module(name)) for name in names if find_spec(name)]


def write_report(results: str | Path) -> Path:
    """Write report.html into a results folder; returns its path. Raises InputError where a result file is missing."""
    return page.write_report(results, claims())


def write_cards(results: str | Path) -> list[Path]:
    """Write checklists and cards into a results folder; returns their paths. Raises InputError as `write_report`."""
    return cards.write_cards(results, claims())
