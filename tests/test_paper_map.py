"""The paper's map names code that exists."""

from __future__ import annotations

import re
from pathlib import Path
from pkgutil import resolve_name

import pytest

from pdsynth.recipes import RECIPES

TEXT = (Path(__file__).parents[1] / "docs" / "paper-map.md").read_text()
PACKAGES = "methods|losses|diffusion|networks|atlas|training|evaluation|evidence|statistics|report|cohorts"
DOTTED = sorted(
    set(
        re.findall(
            rf"`((?:{PACKAGES})\.[\w.]+)`",
            TEXT,
        )
    )
)


@pytest.mark.parametrize("name", DOTTED)
def test_a_dotted_name_is_there(name):
    assert callable(resolve_name(f"pdsynth.{name}")) or name.count(".") == 1  # a method's file, where a row is a family


def test_every_baseline_of_the_paper_has_a_recipe():
    named = set(re.findall(r"`([a-z-]+)`", TEXT.split("## Tables")[1].split("##")[0]))
    assert named >= {"unet", "gan", "pgan", "sagan", "psagan", "u-ddim", "sa-ddpm", "ldm", "dit", "adm", "pds"}
    assert {n for n in named if n in RECIPES or "-" in n} <= set(RECIPES)


def test_every_recipe_of_pds_has_a_place():
    named = set(re.findall(r"`([a-z0-9-]+)`", TEXT))
    assert {name for name in RECIPES if name.startswith("pds")} <= named
