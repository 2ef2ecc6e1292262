"""A named run of a method: what stands behind `--recipe NAME`, a row of the tables and a line of the report.

A file of `pdsynth.methods` gives its own by a function `recipes() -> Iterator[Recipe]`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from pdsynth.types import Modality


class Role(StrEnum):
    """What a recipe is compared as. Controls and the ceiling are rows of every table."""

    CONTROL = "control"  # takes away one excuse for a good score
    CEILING = "ceiling"  # knows the truth of a simulated cohort
    BASELINE = "baseline"  # another method that the paper compares with its own
    OURS = "ours"  # the paper's method, and the same with a part changed or left out


@dataclass(frozen=True)
class Recipe:
    """A run that can be named on the command line. steps: 0 for a method that is fitted in closed form.

    tables: numbers of the paper's tables that have a row for it. paper: what the paper prints in that row, PSNR in dB
    and SSIM in % over the whole volume, by the modality that is synthesised; empty where it prints nothing.
    small: what changes for a CPU's budget (`--size small`), the wiring being the same; empty where nothing does.
    precision is Lightning's word for a device that is fast at it; `resolve_precision` says what else stands in.
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
