"""Figures of group differences on the brain, from real scans alone and with synthesised scans."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from pdsynth.evidence.group_effects.compute import FOUND, GroupEffects
from pdsynth.evidence.group_effects.files import FIGURE
from pdsynth.report import words
from pdsynth.report.plots import brain_figure
from pdsynth.types import Modality

NAMES = ("real scans alone", "with synthesised scans")


def draw(out: Path, effects: GroupEffects, contrast: Sequence[str], simulated: bool) -> None:
    """Write one figure per modality: group differences by region, from real scans alone and with synthesised ones.

    out: folder; the files are group_effects_fmri.png and group_effects_dmri.png. effects: the differences of two
    groups. contrast: these groups. Differences are the first group minus the second, in SD of real scans within groups
    and sites. A ring marks regions with a false discovery rate below 0.05. simulated: whether the title says SIMULATED.
    """
    first, second = contrast
    for target in Modality:
        rows = [row for row in effects.regions if row.target is target]
        centres = pd.DataFrame([(row.x, row.y, row.z) for row in rows], columns=["x", "y", "z"])
        both = np.array([row.d for row in rows])
        values = dict(zip(NAMES, (effects.real_alone_d[target], both), strict=True))
        q = ([row.real_alone_q for row in rows], [row.q for row in rows])
        ringed = {name: np.array(each) < FOUND for name, each in zip(NAMES, q, strict=True)}
        title = f"{'SIMULATED. ' if simulated else ''}{first} minus {second}, {words.MODALITIES[target]}"
        unit = "difference in SD of real scans within groups and sites; ring: false discovery rate below 0.05"
        brain_figure(centres, values, title, unit, out / FIGURE.format(target), ringed=ringed)
