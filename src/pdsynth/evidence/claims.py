"""Discovers the claims, and writes the report and the cards with their sections and facts.

A claim is a package of `pdsynth.evidence` with a module `section` that has the interface `report.sections.Claim`. There
is no list of claims elsewhere: a new package is part of the report without further changes.
"""

from __future__ import annotations

import pkgutil
from collections.abc import Sequence
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import cast

from pdsynth import evidence
from pdsynth.report import cards, page
from pdsynth.report.sections import Claim


def claims() -> list[Claim]:
    """The modules that give sections to the report and facts to the cards, sorted by name.

    They are the module `section` of every package of `pdsynth.evidence`.
    """
    packages = (info.name for info in pkgutil.iter_modules(evidence.__path__) if info.ispkg)
    names = (f"{evidence.__name__}.{package}.section" for package in packages)
    return [cast(Claim, import_module(name)) for name in names if find_spec(name)]


def write_report(results: str | Path, participants: Sequence[str] = (), for_sharing: bool = False) -> Path:
    """Write report.html into a results folder, with the sections of all evidence in it; returns the path of the page.

    participants, for_sharing: see `report.page.write_report`. Raises InputError if metrics.json, metrics.tsv or another
    required file is missing or damaged.
    """
    return page.write_report(results, claims(), participants, for_sharing)


def write_cards(results: str | Path) -> list[Path]:
    """Write two reporting checklists, a model card and a data card into a results folder; returns their paths.

    Raises InputError if metrics.json or metrics.tsv is missing or cannot be read.
    """
    return cards.write_cards(results, claims())
