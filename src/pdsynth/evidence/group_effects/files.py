"""Files of the claim on group effects: group_effects.tsv, its summary and figures, and completed_effects.tsv."""

from __future__ import annotations

from dataclasses import dataclass

from pdsynth.results.tables import TableFile
from pdsynth.statistics.resampling import Estimate
from pdsynth.types import Direction, Modality

FIGURE = "group_effects_{}.png"
COMPLETE, AS_IF_REAL, RECTIFIED = "complete-cases", "as if real", "rectified"  # arms of completed_effects.tsv


@dataclass(frozen=True)
class RegionEffect:
    """A region of a target (x, y, z in mm): the rectified difference of the groups in the scans' units, and its tests.

    q: false discovery rate over regions (Benjamini and Hochberg); d: the difference in SD; real_alone: the difference
    of real scans alone; trust, worth: see `RectifiedDifference`.
    """

    target: Modality
    region: str
    name: str
    network: str
    x: float
    y: float
    z: float
    difference: Estimate
    p: float
    q: float
    d: float
    real_alone: Estimate
    real_alone_p: float
    real_alone_q: float
    trust: float
    worth: float


@dataclass(frozen=True)
class TargetSummary:
    """A target: numbers of scans, medians over regions, and regions with q < .05.

    used: whether synthesised scans have any weight; width: of the interval, against that of real scans alone.
    """

    target: Modality
    n_real: int
    n_both: int
    n_synthesised: int
    used: bool
    worth: float
    width: float
    regions_real_alone: int
    regions: int


@dataclass(frozen=True)
class CompletedEffect:
    """An arm in a direction, where half of the real scans are hidden (see `complete_effects`)."""

    direction: Direction
    arm: str
    method: str
    n_left: int
    n_hidden: int
    slope: Estimate
    rmse: float
    width: Estimate
    worth: Estimate


BY_REGION = TableFile("group_effects.tsv", RegionEffect, "pdsynth effects")
SUMMARY = TableFile("group_effects_summary.tsv", TargetSummary, "pdsynth effects")
COMPLETED = TableFile("completed_effects.tsv", CompletedEffect, "pdsynth roi")
