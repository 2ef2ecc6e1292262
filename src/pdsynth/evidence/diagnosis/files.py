"""Files of the claim on diagnosis: table5.tsv, table9.tsv and power.tsv."""

from __future__ import annotations

from dataclasses import dataclass
from math import nan

from pdsynth.results.tables import TableFile
from pdsynth.statistics.resampling import UNKNOWN, Estimate

COMMAND = "pdsynth diagnose"
PERMUTED = "permuted labels"  # the control that shows chance


@dataclass(frozen=True, kw_only=True)
class SchemeScores:
    """A scheme with a method's scans, or a control (method ""): scores of an elastic-net classifier (see `diagnose`).

    data: "SIMULATED" or "real"; confusion: JSON text, of each real class the count of each predicted one; paper: the
    accuracy in the paper's Table V; against: the control; difference: accuracy less the control's; asks: the question.
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
    asks: str = ""


@dataclass(frozen=True, kw_only=True)
class PairedScores(SchemeScores):
    """The same beside a counterpart; gain: accuracy less the counterpart's in the same scheme."""

    gain: Estimate = UNKNOWN
    gain_p: float = nan
    gain_p_holm: float = nan


@dataclass(frozen=True)
class Power:
    """A difference of accuracy: participants needed for a power of 80 %, and the power of those at hand.

    The two classifiers' errors are independent, or half of them are shared.
    """

    difference: float
    needed_independent: int
    needed_half_shared: int
    power_independent: float
    power_half_shared: float


SCHEME_SCORES = TableFile("table5.tsv", SchemeScores, COMMAND)
PATTERN_LOSS = TableFile("table9.tsv", PairedScores, COMMAND)
POWER = TableFile("power.tsv", Power, COMMAND)
