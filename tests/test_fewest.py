"""How many participants each verb needs: the how-to page says what the program asks."""

from __future__ import annotations

from pathlib import Path

from pdsynth.adaptation.adapt import FEWEST as ADAPT
from pdsynth.adaptation.adapt import FEWEST_SINGLE
from pdsynth.data.splits import FEWEST as EVALUATE
from pdsynth.evidence.calibration.compute import fewest


def test_the_page_states_the_least_number_of_participants() -> None:
    page = (Path(__file__).parents[1] / "docs" / "how-to" / "measure.md").read_text()
    assert f"| `evaluate` | {EVALUATE} in the test split" in page
    assert f"| `adapt` | {ADAPT}, or else {FEWEST_SINGLE} scans of each modality" in page
    assert f"| `calibrate` | {fewest()}, better" in page
