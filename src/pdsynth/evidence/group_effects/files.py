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
    """The rectified difference of the groups in one region of one target, in the units of the scans, and its tests.

    x, y, z: centre of the region, mm. q: false discovery rate over regions (Benjamini and Hochberg). d: the difference
    in SD of real scans. real_alone: the difference from real scans alone. trust, worth: see `RectifiedDifference`.
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
    """Summary of one target: numbers of scans, medians over regions, and numbers of regions with q < 0.05.

    n_real, n_both, n_synthesised: participants with a real scan, with both, and with a synthesised scan only. used:
    whether synthesised scans have any weight. width: width of the interval relative to that of real scans alone.
    regions_real_alone, regions: numbers of regions with real scans alone, and with synthesised scans.
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
    """Results of one arm in one direction if half of the real scans are hidden (see `complete_effects`)."""

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
