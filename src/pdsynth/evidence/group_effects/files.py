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
    """Row of group_effects.tsv: the difference of two groups in one region of one modality, with synthesised scans.

    target: the modality. region: r1, r2 and so on, with its name and brain network. x, y, z: centre of the region, mm
    (MNI). difference: first group minus the second within sites, in the units of the scans, with a 95 % interval, from
    the real scans and the synthesised ones, which are corrected by their error in participants who have both. p: its
    two-sided t test; q: false discovery rate over regions (Benjamini and Hochberg). d: the difference in SD of real
    scans within groups and sites. real_alone, real_alone_p, real_alone_q: difference, p and q from real scans alone.
    trust: weight of the synthesised scans, 0 if they are not used. worth: number of real scans that would narrow the
    interval as much as one synthesised scan; below 0 if synthesised scans widen it, and 0 if it cannot be estimated. p,
    q and d are nan in a region where real scans do not vary.
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
    """Row of group_effects_summary.tsv: the differences of two groups in all regions of one modality.

    target: the modality. n_real, n_both, n_synthesised: participants of the two groups with a real scan, with a real
    and a synthesised one, and with a synthesised scan only. used: whether synthesised scans have any weight in a
    region. worth: number of real scans that would narrow the interval as much as one synthesised scan; below 0 if
    synthesised scans widen it. width: width of the interval divided by that of real scans alone. Both are medians over
    the regions where real scans vary. regions_real_alone, regions: numbers of regions with a false discovery rate q <
    0.05 from real scans alone, and with synthesised scans.
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
    """Row of completed_effects.tsv: the difference AD minus NC if half of the real scans are hidden.

    direction: of synthesis. arm: the use of the scans: "complete-cases" (the remaining real scans only), "as if real"
    (a synthesised scan replaces each hidden one and counts as real) or "rectified" (synthesised scans are corrected by
    their error in participants who have both). method: the method that synthesised the scans; "" for "complete-cases".
    n_left, n_hidden: numbers of real scans that remain and that are hidden. slope: of these differences on those of all
    scans, over regions; 1 means that they are kept in full. rmse: root mean square difference between the two, in SD of
    real scans within groups and sites. width: of the interval, relative to complete-cases; below 1 is narrower. worth:
    number of real scans that one synthesised scan replaces, below 0 if synthesised scans widen the interval, and 0 if
    too few participants have both scans. width and worth are medians over regions, and nan except for "rectified".
    Results are averages over random choices of the hidden scans, and nan if a group has too few participants.
    """

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
