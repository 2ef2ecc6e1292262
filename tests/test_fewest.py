"""How many participants each verb needs: the how-to page says what the program asks."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from pdsynth.adaptation.adapt import FEWEST as ADAPT
from pdsynth.adaptation.adapt import FEWEST_SINGLE
from pdsynth.cli.results import _refuse_too_few
from pdsynth.data.pairs import Pairs
from pdsynth.data.splits import FEWEST as EVALUATE
from pdsynth.evidence.calibration.compute import fewest
from pdsynth.options import EvaluateOptions
from pdsynth.types import InputError


def test_the_page_states_the_least_number_of_participants() -> None:
    page = (Path(__file__).parents[1] / "docs" / "how-to" / "measure.md").read_text()
    assert f"| `evaluate` | {EVALUATE} in the test split" in page
    assert f"| `adapt` | {ADAPT}, or else {FEWEST_SINGLE} scans of each modality" in page
    assert f"| `calibrate` | {fewest()}, better" in page


@pytest.mark.parametrize(
    ("rows", "message"),
    [  # the first 6 of the 10 participants are of the training split, the last 4 of the test split
        ([0], "1 participant with both scans, and a model is scored by 2 or more. Remedy: add participants"),
        ([0, 9], "2 participants with both scans, but 1 in the split 'test', where 2 are needed. Remedy: .*0,0,1, and"),
        (range(7), "7 participants with both scans, but 1 in the split 'test', .*--split 0.5,0,0.5"),
        (range(6, 10), "in the training split, on whom the controls are fitted. Remedy: evaluate with --no-controls"),
    ],
)
def test_one_message_says_how_too_few_participants_can_be_scored(rows, message: str, prepared: Pairs) -> None:
    some = prepared.where(np.isin(np.arange(10), list(rows)))
    with pytest.raises(InputError, match=message):
        _refuse_too_few(some, EvaluateOptions())


def test_enough_participants_are_scored(prepared: Pairs) -> None:
    _refuse_too_few(prepared, EvaluateOptions())
    _refuse_too_few(prepared.where(prepared.table["split"] == "test"), EvaluateOptions(controls=False))
