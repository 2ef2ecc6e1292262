"""Markdown pages about a run: two reporting checklists, a model card, a data card and a text for a methods section."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from importlib.resources import files
from pathlib import Path
from typing import Any

import yaml

from pdsynth.report import words
from pdsynth.report.boilerplate import complete, of_evaluation
from pdsynth.report.facts import PRIMARY, WORST, facts, groups_of, participants_of, sort_key
from pdsynth.report.rendering import render
from pdsynth.report.sections import Claim
from pdsynth.results.folder import Results
from pdsynth.types import NA, Direction

NOT_ADDRESSED = "not addressed"
CHECKLISTS = ("claim", "tripod_ai")
CARDS = ("model_card", "data_card")
COLUMNS = ("split", "site", "diagnosis", "sex")


@dataclass(frozen=True)
class Item:
    """One item of a reporting guideline, with the sentences that answer it.

    number, section: of the item in the published guideline. asks: the requested information. says: sentences with the
    names of facts in braces, such as "{people} were scored."; a sentence is printed only if all its facts are known.
    """

    number: str
    section: str
    asks: str
    says: tuple[str, ...] = ()


@dataclass(frozen=True)
class Checklist:
    """A reporting guideline: its title, its publication (source), and its items in our own words."""

    title: str
    source: str
    items: tuple[Item, ...]

    @classmethod
    def read(cls, name: str) -> Checklist:
        """Read a guideline by its name in the package: "claim" (44 items) or "tripod_ai" (27 items, in 52 parts)."""
        content = yaml.safe_load(files("pdsynth.report").joinpath("templates", f"{name}.yaml").read_text("utf-8"))
        items = [
            Item(str(entry["item"]), section, entry["asks"], tuple(entry.get("says", [])))
            for section, entries in content["sections"].items()
            for entry in entries
        ]
        return cls(content["title"], content["source"], tuple(items))


def write_cards(results: str | Path, claims: Iterable[Claim]) -> list[Path]:
    """Write two checklists, two cards and a text for a methods section into a results folder; returns their paths.

    claim.md and tripod_ai.md are reporting checklists: CLAIM (Tejani et al. 2024) and TRIPOD+AI (Collins et al. 2024);
    model_card.md follows Mitchell et al. 2019. The others are data_card.md, and methods.md with references.bib. The
    pages use only the files of the folder, and the same files give the same bytes. claims: modules, each of which reads
    its own result files of the folder and returns facts. Information that the files lack is "not addressed". Raises
    InputError if metrics.json or metrics.tsv is missing or cannot be read.
    """
    run = Results.read(results)
    known = facts(run, claims)
    fill = partial(answer, known={name: plain(value) for name, value in known.items()})
    shared = {"simulated": run.simulated, "fill": fill}
    pages = []
    for name in CHECKLISTS:
        checklist = Checklist.read(name)
        rows = [(item, fill(*item.says)) for item in checklist.items]
        addressed = sum(text != NOT_ADDRESSED for _, text in rows)
        context = shared | {"checklist": checklist, "rows": rows, "addressed": addressed}
        pages.append(render(run.root / f"{name}.md", "checklist.md.j2", False, context))
    tables = {"groups": _groups(run), "failures": _failures(run), "counts": _counts(run), "reasons": _reasons(run)}
    for name in CARDS:
        pages.append(render(run.root / f"{name}.md", f"{name}.md.j2", False, shared | tables))
    return pages + of_evaluation(run.manifest, run.model, known).write(run.root, run.simulated)


def answer(*sentences: str, known: Mapping[str, str]) -> str:
    """Fill in the sentences whose facts are all known, joined by a space; "not addressed" if there is no such sentence.

    sentences: texts with the names of facts in braces. known: the facts, as text by name.

    >>> answer("{people} were scored.", "Funded by {funder}.", known={"people": "12"})
    '12 were scored.'
    >>> answer("Funded by {funder}.", known={"people": "12"})
    'not addressed'
    """
    return " ".join(complete(sentences, known)) or NOT_ADDRESSED


def plain(text: str) -> str:
    r"""Escape the text of a file for Markdown, on one line.

    >>> plain("a|b <i>\n`x`")
    'a\\|b \\<i> \\`x\\`'
    """
    return re.sub(r"([\\`*|<\[])", r"\\\1", " ".join(text.split()))


def _groups(run: Results) -> list[dict[str, Any]]:
    return [
        {
            "direction": words.DIRECTIONS[direction],
            "by": group.by,
            "name": plain(group.name),
            "n": group.n,
            "psnr": words.number(group.mean, 2),
            "worst": group.worst,
        }
        for direction in Direction
        for group in groups_of(run, direction)
    ]


def _failures(run: Results) -> Iterator[dict[str, str]]:
    """The participants with the lowest PSNR in each direction of synthesis, in ascending order."""
    for direction in Direction:
        for person in participants_of(run, direction).head(WORST).fillna(NA).to_dict("records"):
            names = {key: plain(str(person[key])) for key in ("participant_id", "site", "diagnosis")}
            yield names | {"direction": words.DIRECTIONS[direction], "psnr": words.number(person[PRIMARY], 2)}


def _counts(run: Results) -> list[dict[str, Any]]:
    ordered = sorted(run.data.get("groups", []), key=lambda group: [sort_key(group[column]) for column in COLUMNS])
    return [{key: plain(str(value)) for key, value in group.items()} for group in ordered]


def _reasons(run: Results) -> list[tuple[str, int]]:
    return [(plain(reason), n) for reason, n in (run.data.get("rejected") or {}).items()]
