"""Leaves pictures and results of fewer than five people out of a report for sharing, and folders out of names."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import compress

from pdsynth.recipes import RECIPES
from pdsynth.report.sections import Section, Table
from pdsynth.results.entries import DEFAULT, LABEL, recipe_of

FEWEST = 5  # people in a result that is shared
COHORT = re.compile(r"(?<=participants) \(cohort .*\)(?=\.$)", re.DOTALL)  # the end of a note; a name may hold ")"


def released(people: Sequence[int], within: Sequence[str]) -> list[bool]:
    """Whether each group of participants is large enough to be shared, in the order of the groups.

    people: number of participants of each group. within: for each group, the division to which it belongs, such as
    "site". A group needs five people. If the groups that a division leaves out have fewer than five people together,
    its smallest other group is left out too; otherwise their results would follow from those of all participants.

    >>> released([9, 3, 6], ["site"] * 3)
    [True, False, False]
    >>> released([9, 3, 4], ["site"] * 3)
    [True, False, False]
    """
    shared = [number >= FEWEST for number in people]
    for division in set(within):
        groups = sorted((i for i, name in enumerate(within) if name == division), key=people.__getitem__)
        hidden = [i for i in groups if not shared[i]]
        if hidden and sum(people[i] for i in hidden) < FEWEST and len(hidden) < len(groups):
            shared[groups[len(hidden)]] = False
    return shared


def shareable(sections: Iterable[Section]) -> tuple[list[Section], list[str]]:
    """The sections without pictures and without rows of fewer than five people, and the titles of those left out.

    A section of which a sentence rests on fewer than five people is left out, and so is a table that has no row left.
    """
    shared, left_out = [], []
    for section in sections:
        if section.people is not None and section.people < FEWEST:
            left_out.append(section.title)
        else:
            tables = [table for each in section.tables if (table := _table(each)).rows]
            shared.append(replace(section, tables=tables, figures=()))
    return shared, left_out


def short_names(methods: Iterable[str]) -> dict[str, str]:
    """Names without folders, by name, for the methods whose name has a folder: "run (pds)" becomes "pds (2)".

    The number is the position among all methods, from 1. The shipped model keeps its name. Results of an earlier
    version have the recipe first, as in "pds (run/model)".

    >>> short_names(["default (pds)", "run (pds)"])
    {'run (pds)': 'pds (2)'}
    """
    found = ((name, LABEL.fullmatch(name), number) for number, name in enumerate(methods, 1))
    return {
        name: f"{_recipe(match['recipe'], match['given'])} ({number})"
        for name, match, number in found
        if match and match["given"] != DEFAULT
    }


def without_cohort(note: str) -> str:
    """A note of a manifest without the name of the prepared folder on which a model was trained.

    >>> without_cohort("run (pds) was trained on 10 SIMULATED participants (cohort clinic-a (2)).")
    'run (pds) was trained on 10 SIMULATED participants.'
    """
    return COHORT.sub("", note)


def _recipe(*parts: str) -> str:
    return next((part for part in parts if recipe_of(part)[0] in RECIPES), "model")


def _table(table: Table) -> Table:
    shared = released(table.people, table.within) if table.people else [True] * len(table.rows)
    return replace(
        table,
        rows=list(compress(table.rows, shared)),
        marked=list(compress(table.marked, shared)),
        notes=list(compress(table.notes, shared)),
    )
