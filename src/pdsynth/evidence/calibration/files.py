"""The record of a calibration: an entry of the model's card, which `evaluate` copies into its manifest."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from pdsynth.results.records import from_json, to_json

ENTRY = "calibration"  # key in a model's card


@dataclass(frozen=True)
class Entry:
    """How the SD of a model was calibrated: participants and factors, as recorded in the model's card.

    cohort: name of the prepared folder. simulated: whether these participants are simulated. scale: factor of the SD by
    direction of synthesis ("fmri_to_dmri", "dmri_to_fmri"), over all calibrations of the model together. The other
    fields are of the last calibration. coverage_90: share of voxels inside the 90 % interval by direction, for
    participants left out of the estimate; None if it cannot be estimated, such as for too few participants.
    scans_sha256: SHA-256 of the calibration scans, on which `pdsynth evaluate` refuses to score; empty in a manifest.
    """

    cohort: str
    simulated: bool
    n_participants: int
    scale: dict[str, float]
    coverage_90: dict[str, float | None] = field(default_factory=dict)
    scans_sha256: list[str] = field(default_factory=list)

    @classmethod
    def of(cls, card: Mapping[str, Any]) -> Entry | None:
        """Read the calibration of a model from its card (record of the training), or from a manifest's copy.

        None if the model was not calibrated.
        """
        content = card.get(ENTRY)
        return None if content is None else from_json(cls, {"coverage_90": {}, "scans_sha256": [], **content})

    def in_card(self, card: Mapping[str, Any]) -> dict[str, Any]:
        """A copy of a model's card (record of the training) with this calibration, which replaces an earlier one."""
        return {**card, ENTRY: to_json(self)}
