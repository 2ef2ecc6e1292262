"""Files of the claim on diagnosis: table5.tsv, table9.tsv and power.tsv."""

from __future__ import annotations

import json
from dataclasses import dataclass
from math import nan
from typing import Annotated

from pydantic import AfterValidator

from pdsynth.results.tables import TableFile
from pdsynth.statistics.resampling import UNKNOWN, Estimate

COMMAND = "pdsynth diagnose"
PERMUTED = "permuted labels"  # the control that gives the accuracy by chance


def _by_class(confusion: str) -> str:
    """The text, if it is a JSON object with one entry per class. Raises ValueError."""
    if not isinstance(classes := json.loads(confusion), dict) or not classes:
        raise ValueError("it is not an object with one entry per class")
    return confusion


@dataclass(frozen=True, kw_only=True)
class SchemeScores:
    """Row of table5.tsv: scores of an elastic-net classifier for one choice of training and test scans (scheme).

    data: "SIMULATED" or "real". method: the method that synthesised the scans; "" for a control. scheme: "S1" to "S9",
    or the name of a control, such as "real fMRI". n: number of participants. accuracy, balanced_accuracy: with 95 %
    intervals; f1, recall, precision: macro averages; auc: macro average, one versus rest; brier: mean squared distance
    of the probabilities from the truth, 0 to 2; confusion: JSON text with the counts of predicted classes by real
    class. paper: accuracy in the paper's Table V, with the Wilson interval of 53 cases; nan if the paper does not give
    it.

    against: name of the control. difference: accuracy minus that of the control, with a 95 % interval. p, p_holm: exact
    McNemar test of no difference, and corrected over the schemes of the method. In the row of a control, against is ""
    and the others are nan. svm_balanced_accuracy: balanced accuracy of a linear SVM in place of the elastic net.
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
    confusion: Annotated[str, AfterValidator(_by_class)]
    paper: Estimate
    against: str
    difference: Estimate
    p: float
    p_holm: float = nan
    svm_balanced_accuracy: Estimate = UNKNOWN


@dataclass(frozen=True, kw_only=True)
class PairedScores(SchemeScores):
    """Row of table9.tsv: as a row of table5.tsv, with the accuracy gained by a loss on region means (pattern loss).

    See `SchemeScores` for the other fields; a scheme is a choice of training and test scans. gain: accuracy minus that
    of the same method trained without this loss, in the same scheme, with a 95 % interval. gain_p, gain_p_holm: exact
    McNemar test, and corrected over the schemes of the method. All three are nan in rows of the method without this
    loss and of controls.
    """

    gain: Estimate = UNKNOWN
    gain_p: float = nan
    gain_p_holm: float = nan


@dataclass(frozen=True)
class Power:
    """Row of power.tsv: statistical power of a comparison of two classifiers on the same participants.

    difference: in accuracy, 0 to 1. needed_independent, needed_half_shared: participants needed for a power of 80 %, if
    the errors of the classifiers are independent, and if the share of people on whom only one of them is right is
    halfway between that of independent errors and that of errors on the same people (half shared). power_independent,
    power_half_shared: power with the participants of this run, 0 to 1.
    """

    difference: float
    needed_independent: int
    needed_half_shared: int
    power_independent: float
    power_half_shared: float


SCHEME_SCORES = TableFile("table5.tsv", SchemeScores, COMMAND)
PATTERN_LOSS = TableFile("table9.tsv", PairedScores, COMMAND)
POWER = TableFile("power.tsv", Power, COMMAND)
