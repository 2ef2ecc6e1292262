"""Files of the claim on diagnosis: table5.tsv, table9.tsv and power.tsv."""

from __future__ import annotations

from dataclasses import dataclass
from math import nan

from pdsynth.results.tables import TableFile
from pdsynth.statistics.resampling import UNKNOWN, Estimate

COMMAND = "pdsynth diagnose"
PERMUTED = "permuted labels"  # the control that gives the accuracy by chance


@dataclass(frozen=True, kw_only=True)
class SchemeScores:
    """Scores of an elastic-net classifier in one scheme with the scans of one method (see `diagnose`).

    data: "SIMULATED" or "real". method: "" for a control. scheme: name of the choice of training and test scans. n:
    number of participants. accuracy to confusion: see `scores`. paper: accuracy in the paper's Table V, with the Wilson
    interval of 53 cases; nan if the paper does not give it. against: name of the control. difference: accuracy minus
    that of the control. p, p_holm: exact McNemar test, and corrected over the schemes of the method.
    svm_balanced_accuracy: balanced accuracy of a linear SVM in place of the elastic net.
    """

    data: str = ""
    method: str
    scheme: str
    n: int
    accuracy: Estimate
    balanced_accuracy: Estimate
    f1: float
    recall: float
    precision: float
    auc: float
    brier: float
    confusion: str
    paper: Estimate
    against: str
    difference: Estimate
    p: float
    p_holm: float = nan
    svm_balanced_accuracy: Estimate = UNKNOWN


@dataclass(frozen=True, kw_only=True)
class PairedScores(SchemeScores):
    """`SchemeScores` with `gain`: accuracy minus that of the method's counterpart in the same scheme.

    The counterpart is the same method without the pattern loss. gain_p, gain_p_holm: as p and p_holm. nan for rows of
    the counterpart itself and of controls.
    """

    gain: Estimate = UNKNOWN
    gain_p: float = nan
    gain_p_holm: float = nan


@dataclass(frozen=True)
class Power:
    """A difference in accuracy (0 to 1): participants needed for a power of 80 %, and the power of this sample.

    Both are given for two classifiers with independent errors, and for two that share half of their errors.
    """

    difference: float
    needed_independent: int
    needed_half_shared: int
    power_independent: float
    power_half_shared: float


SCHEME_SCORES = TableFile("table5.tsv", SchemeScores, COMMAND)
PATTERN_LOSS = TableFile("table9.tsv", PairedScores, COMMAND)
POWER = TableFile("power.tsv", Power, COMMAND)
