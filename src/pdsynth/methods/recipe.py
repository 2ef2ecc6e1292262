"""A recipe: a named configuration of a method. It is selected by `--recipe NAME` and has a row in the result tables.

A module of `pdsynth.methods` defines its recipes in a function `recipes() -> Iterator[Recipe]`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from pdsynth.types import Modality


class Role(StrEnum):
    """The role of a recipe in a comparison of methods. Controls and the ceiling are rows of every table of results.

    CONTROL: a simple method: a score that it reaches does not need a complex one. CEILING: an upper limit of the
    scores, which uses the truth of a simulated cohort. BASELINE: another method that the paper compares with its own.
    OURS: the paper's method, and its variants with a part changed or left out.
    """

    CONTROL = "control"  # a simple method: a score that it reaches does not need a complex one
    CEILING = "ceiling"  # an upper limit of the scores, which uses the truth of a simulated cohort
    BASELINE = "baseline"  # another method that the paper compares with its own
    OURS = "ours"  # the paper's method, and its variants with a part changed or left out


@dataclass(frozen=True)
class Recipe:
    """A named configuration of a method, which `--recipe` selects.

    name: of the recipe. summary: in words. method: name of the method. role: control, ceiling, baseline or ours (see
    `Role`). steps: number of training steps; 0 for a method that is fitted in closed form. tables: numbers of the
    paper's tables that have a row for it; controls and the ceiling are in every table. paper: the values that the paper
    prints there, (PSNR in dB, SSIM in %) over the whole volume, by synthesised modality; empty if it prints none.
    settings: values other than the method's defaults. small: changes of the settings for a CPU's budget (`--size
    small`); empty if there is no small size. precision: Lightning's name of the arithmetic, such as "bf16-mixed"; on a
    device that is slow at it, another is used.
    """

    name: str
    summary: str
    method: str
    role: Role
    tables: tuple[int, ...] = ()
    paper: Mapping[Modality, tuple[float, float]] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)
    steps: int = 0
    small: dict[str, Any] = field(default_factory=dict)
    precision: str = "bf16-mixed"
