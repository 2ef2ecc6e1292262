"""The missing scans that a page shows: synthesised volumes with no real one, in the space of their source scans."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import inf, isfinite
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

from pdsynth.cohorts.scans import single_scan
from pdsynth.data.means import scan_means
from pdsynth.data.preprocessing import UNRECORDED, Preprocessing
from pdsynth.imaging.intensity import TOP
from pdsynth.imaging.nifti import ROUND_TRIP
from pdsynth.outcomes import REPAIR, least_round_trip
from pdsynth.report import words
from pdsynth.report.pictures import View
from pdsynth.report.shown import DEVIATION_END, LEAST_ENDS, SIGNAL_END, upper_end
from pdsynth.results.folder import Synthesised
from pdsynth.types import Direction, InputError

MOST_FILLED = 2  # per synthesised modality
SHOWN_SIGNAL = 0.02  # voxels of a synthesised volume above this signal count as brain


@dataclass(frozen=True)
class Filled:
    """A missing scan that was synthesised, with all that the report shows of it.

    file: path of the volume in the results folder. direction: of the synthesis. volume: (X, Y, Z), with axes to the
    right, front and top. brain: bool, the voxels of the volume that count as brain. source: the mean of the source scan
    on the same grid, in the unit of the volume; None if the scan was not found. deviation: the SD; None if it was not
    written. view: the box around the brain, cut at its centre. round_trip: PSNR in dB of the source that was
    synthesised back; None if it was not measured. least: the limit below which the source is to be checked, in dB; None
    if the volume's model has none.
    """

    file: str
    direction: Direction
    volume: np.ndarray
    brain: np.ndarray
    source: np.ndarray | None
    deviation: np.ndarray | None
    view: View
    round_trip: float | None
    least: float | None

    @property
    def scores(self) -> list[str]:
        """Texts about its quality: that no real scan exists, and the PSNR of the round trip if it was measured."""
        known = ["no real scan to compare with"]
        if self.round_trip is not None:
            low = f" (below {self.least} dB)" if self.least is not None and self.round_trip < self.least else ""
            known.append(f"round trip {words.number(self.round_trip, 2)} dB{low}")
        return known


def filled(synthesised: Sequence[Synthesised], root: Path, most: int = MOST_FILLED) -> list[Filled]:
    """The synthesised scans with the lowest round trip, up to `most` of each modality, with their volumes.

    Scans without a round trip follow by path. root: the folder to which the paths are relative.
    """
    scans: list[Synthesised] = []
    for target in dict.fromkeys(each.target for each in synthesised):
        scans += sorted((each for each in synthesised if each.target is target), key=_round_trip)[:most]
    return [_read(scan, scan.image.relative_to(root).as_posix()) for scan in scans]


def limits(scans: Sequence[Filled]) -> dict[str, float]:
    """Upper ends of the colour scales for these scans, as `shown.limits` has them for a results folder.

    They are the 99.5th percentile of sources and volumes and the 99th of the SD, in the brain; the largest is taken.
    """
    ends = dict(LEAST_ENDS)
    for scan in scans:
        for volume in (scan.source, scan.volume):
            if volume is not None:
                ends["signal"] = max(ends["signal"], upper_end(volume[scan.brain], *SIGNAL_END))
        if scan.deviation is not None:
            ends["deviation"] = max(ends["deviation"], upper_end(scan.deviation[scan.brain], *DEVIATION_END))
    return ends


def verdict(round_trip: float | None, least: float | None, doubtful: bool) -> str:
    """One or two sentences on whether a volume may be used, by its round trip (PSNR, dB); empty if not measured.

    least: see `least_round_trip`. doubtful: whether there are doubts about the source scan.

    >>> print(verdict(24.11, 23, False))
    No fault was found: its round trip has 24.11 dB, and the limit is 23 dB. This does not prove that it is right.
    """
    if round_trip is None:
        return ""
    known = f"its round trip has {words.number(round_trip, 2)} dB"
    if least is None:
        return f"No limit is known for this model: {known}. Compare it with those of scans that you trust."
    if round_trip < least:
        return f"Check the source scan: {known}, below {least} dB. {REPAIR}"
    if doubtful:
        return f"Do not use this volume before you have measured the model on such doubtful scans, although {known}."
    return f"No fault was found: {known}, and the limit is {least} dB. This does not prove that it is right."


def _round_trip(scan: Synthesised) -> float:
    """PSNR in dB of the source that was synthesised back, as the sidecar records it; infinity if it does not."""
    recorded = scan.sidecar.get(ROUND_TRIP)
    return float(recorded) if isinstance(recorded, int | float) else inf


def _read(scan: Synthesised, file: str) -> Filled:
    volume, affine = canonical(nib.Nifti1Image.from_filename(scan.image))
    brain = volume > SHOWN_SIGNAL
    source = _source_mean(scan)
    if source is not None and source.shape != volume.shape:
        source = None
    if source is not None and brain.any():
        source = source / max(_unit(source[brain], scan.sidecar), np.finfo(np.float32).tiny)
    deviation = None if scan.deviation is None else canonical(nib.Nifti1Image.from_filename(scan.deviation))[0] * brain
    trust = _round_trip(scan)
    return Filled(
        file=file,
        direction=Direction.to(scan.target),
        volume=volume,
        brain=brain,
        source=source,
        deviation=deviation,
        view=View.around(brain, affine, None),
        round_trip=trust if isfinite(trust) else None,
        least=least_round_trip(str(scan.sidecar.get("ModelSHA256"))),
    )


def _unit(intensities: np.ndarray, sidecar: dict[str, Any]) -> float:
    """The intensity of a source that is 1 in the volume synthesised from it, from its intensities in the brain.

    sidecar: of the volume, with the settings of the preparation. The receive field is in source and volume.
    """
    recorded = sidecar.get("Preprocessing")
    settings = UNRECORDED | (recorded if isinstance(recorded, dict) else {})
    if settings["intensity"] == "percentile":
        return float(np.percentile(intensities, Preprocessing().percentile))
    return TOP * float(np.median(intensities))


def _source_mean(scan: Synthesised) -> np.ndarray | None:
    """The mean of the source scan as in preparation (fMRI: steady volumes; dMRI: one shell), (X, Y, Z) in RAS order.

    None if the file of the scan was not found or cannot be used.
    """
    if scan.source is None:
        return None
    try:
        mean = scan_means(single_scan(scan.source), Preprocessing()).means[0]
    except InputError:
        return None
    return canonical(nib.Nifti1Image(mean.data, mean.affine))[0]


def canonical(image: nib.Nifti1Image) -> tuple[np.ndarray, np.ndarray]:
    """Data (X, Y, Z) and affine, with the axes in the order right, anterior, superior."""
    turned = nib.as_closest_canonical(image)
    return np.asarray(turned.dataobj, np.float32), turned.affine
