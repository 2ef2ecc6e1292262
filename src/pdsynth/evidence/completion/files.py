"""File of the claim on completion: completion.tsv."""

from __future__ import annotations

from dataclasses import dataclass
from math import nan

from pdsynth.results.tables import TableFile
from pdsynth.statistics.resampling import UNKNOWN, Estimate


@dataclass(frozen=True, kw_only=True)
class Arm:
    """Row of completion.tsv: accuracy of diagnosis for one way to deal with missing scans.

    data: "SIMULATED" or "real". arm: the way: "complete-cases" (training on participants with both scans), "mean" (the
    mean replaces a missing scan), "one-scan" (one classifier per modality), "real" (no scan is missing) or
    "synthesised" (a synthesised scan replaces a missing one). method: the method that synthesised the scans, or "". n:
    number of participants. Accuracies are shares, 0 to 1, averaged over random choices of the missing scans, with 95 %
    intervals over participants; the balanced one is the mean over diagnoses.

    over_mean, over_complete_cases, over_one_scan: balanced accuracy minus that of the alternative "mean",
    "complete-cases" or "one-scan". Of each, ..._p is the p value of a paired permutation test, and ..._p_holm its Holm
    correction over the three alternatives. All are nan if arm is not "synthesised".
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
