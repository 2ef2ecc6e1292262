"""Code and pages number the paper's equations as the paper does, and the pages list every departure from them."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from equations import MEANING, fits, numbers, references
from pdsynth.methods.pds_paper import readings
from pdsynth.recipes import RECIPES, settings_of

ROOT = Path(__file__).parents[1]
MAP, DEPARTURES = (ROOT / "docs" / f"{name}.md" for name in ("paper-map", "departures"))
TEXTS = sorted([*ROOT.glob("src/**/*.py"), *ROOT.glob("docs/**/*.md"), ROOT / "README.md", ROOT / "CHANGELOG.md"])
ALL = [(path, *found) for path in TEXTS for found in references(path.read_text())]


def test_every_reference_to_an_equation_fits_the_name_beside_it():
    wrong = [
        f"{path.relative_to(ROOT)}: {clause} ({sorted(named)})"
        for path, clause, named, name in ALL
        if not fits(named, name)
    ]
    assert wrong == []


def test_there_are_references_to_check():
    assert sum(name is not None for *_, name in ALL) > 30
    assert {path.name for path, *_, name in ALL if name} >= {"pds_paper.py", "pds.py", "refinement.py", "paper-map.md"}


@pytest.mark.parametrize(
    "wrong",
    [
        "L_s1 = L1 + L_mic + L_PA (Eq. 17).",
        "L_s2 = L_tis of both directions + L_mic (Eqs. 18-20).",
        "Stage 2 refines drafts with tissue and\n    microstructure losses (Eqs. 12-16, 18-20).",
        "Squared error of z_0-hat, likelihood of its SD, and L_mic and L_PA on x_0-hat (Eq. 17).",
        "That minimises\n    L_tis (Eq. 18) over the training participants",
        "| Eq. 17, L_s1 | `noise_loss` |",
        "| Eqs. 18-20, L_s2 | `refinement_loss` |",
        "one in closed form, L_tis (Eq. 18) alone; L_mic and L_PA act in stage 1.",
        "the sampler (Eq. 21)",
    ],
)
def test_the_numbers_that_stood_here_before_are_found_wrong(wrong):
    assert not all(fits(named, name) for _, named, name in references(wrong))


@pytest.mark.parametrize(
    "right",
    [
        "L_s1 = L1 + L_mic + L_PA (Eqs. 17-19).",
        "L_s2 (Eq. 20), which holds L_tis (Eqs. 12-13) and L_mic (Eqs. 14-16).",
        "of DDIM (Song et al. 2021, Eqs. 12 and 16), as the views are",
    ],
)
def test_right_numbers_are_taken(right):
    assert all(fits(named, name) for _, named, name in references(right))


def test_the_map_has_a_row_for_each_equation():
    rows = re.findall(r"^\| Eqs?\. ([\d-]+), ([^|]+) \|", MAP.read_text(), re.M)
    assert {number: meaning for which, meaning in rows for number in numbers(which)} == MEANING


def rows_of(title: str) -> list[list[str]]:
    section = DEPARTURES.read_text().split(f"## {title}\n")[1].split("\n## ")[0]
    lines = [line for line in section.splitlines() if line.startswith("| ")][1:]
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines]


def test_each_reading_has_one_row_with_all_its_values_the_texts_first():
    written = {}
    for row in rows_of("Readings of the text"):
        values = re.findall(r"`(\w+)=(\w+)`", row[2])
        (setting,) = {name for name, _ in values}
        assert setting not in written and row[3]
        written[setting] = tuple(value for _, value in values)
    assert written == readings()


def test_each_row_quotes_the_text_and_marks_what_small_takes():
    small = settings_of(RECIPES["pds-paper"], "small")
    for row in rows_of("Readings of the text"):
        values = re.findall(r"`(\w+)=(\w+)`(\*?)", row[2])
        chosen = [value for _, value, mark in values if mark]
        assert chosen == [small.get(values[0][0], values[0][1])], row[2]


def test_every_setting_that_the_pages_write_is_one():
    """NAME=VALUE as the pages write it, on pds-paper."""
    text = DEPARTURES.read_text() + MAP.read_text()
    written = re.findall(r"`(?:--set )?([a-z]\w*)=([\w.]+)`", text)
    assert len(written) > 20
    for name, value in written:
        settings_of(RECIPES["pds-paper"], changes={name: value})


def test_departures_of_pds_cover_each_equation():
    named = set()
    for row in rows_of("Departures of `pds`"):
        for match in re.findall(r"Eqs?\. (\d+(?:(?:-|, )\d+)*)", row[0]):
            named |= numbers(match)
    assert named == set(MEANING)
