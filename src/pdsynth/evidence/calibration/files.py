"""The record of a calibration: an entry of the model's card, which `evaluate` copies into its manifest."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from pdsynth.results.records import from_json, to_json

ENTRY = "calibration"  # key in a model's card


@dataclass(frozen=True)
class Entry:
    """The calibration participants of a model, and its calibration factors.

    cohort: name of the prepared folder. simulated: whether these participants are simulated. scale: calibration factor
    of the SD by direction of synthesis, over all calibrations of the model together. coverage_90: coverage of 90 %
    intervals by direction, for participants left out of the estimate; None if there are too few. scans_sha256: digests
    of the calibration scans; `evaluate` refuses to score on these scans. The manifest does not contain the digests.
    """

    cohort: str
    simulated: bool
    n_participants: int
    scale: dict[str, float]
    coverage_90: dict[str, float | None] = field(default_factory=dict)
    scans_sha256: list[str] = field(default_factory=list)

    @classmethod
    def of(cls, card: Mapping[str, Any]) -> Entry | None:
        """The entry of a model's card (record of the training), or of the card's copy in a manifest.

        None if the model was not calibrated.
        """
        content = card.get(ENTRY)
        return None if content is None else from_json(cls, {"coverage_90": {}, "scans_sha256": [], **content})

    def in_card(self, card: Mapping[str, Any]) -> dict[str, Any]:
        """A copy of a model's card (record of the training) with this entry."""
        return {**card, ENTRY: to_json(self)}
