"""File of the claim on completion: completion.tsv."""

from __future__ import annotations

from dataclasses import dataclass
from math import nan

from pdsynth.results.tables import TableFile
from pdsynth.statistics.resampling import UNKNOWN, Estimate


@dataclass(frozen=True, kw_only=True)
class Arm:
    """Row of completion.tsv: accuracy of diagnosis for one way to deal with missing scans.

    data: "SIMULATED" or "real". arm: the way: "complete-cases", "mean", "one-scan", "real" (no scan is missing) or
    "synthesised". method: the method that synthesised the scans, or "". n: number of participants. Accuracies are
    shares, 0 to 1. over_mean, over_complete_cases, over_one_scan: balanced accuracy minus that of the alternative
    "mean", "complete-cases" or "one-scan", with the p value of a paired permutation test and its Holm correction over
    the three alternatives; nan if arm is not "synthesised".
    """

    data: str = ""
    arm: str
    method: str
    n: int
    accuracy: Estimate
    balanced_accuracy: Estimate
    over_mean: Estimate = UNKNOWN
    over_mean_p: float = nan
    over_complete_cases: Estimate = UNKNOWN
    over_complete_cases_p: float = nan
    over_one_scan: Estimate = UNKNOWN
    over_one_scan_p: float = nan
    over_mean_p_holm: float = nan
    over_complete_cases_p_holm: float = nan
    over_one_scan_p_holm: float = nan


COMPLETE, MEAN, ONE_SCAN, SYNTHESISED = "complete-cases", "mean", "one-scan", "synthesised"  # arms
RIVALS = {"over_mean": MEAN, "over_complete_cases": COMPLETE, "over_one_scan": ONE_SCAN}  # alternatives to synthesis
ARMS = TableFile("completion.tsv", Arm, "pdsynth diagnose")
