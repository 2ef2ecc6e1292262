"""What the detail of the source adds to synthesised volumes at the source's resolution: real and SIMULATED pairs.

Usage: python benchmarks/detail.py NAME=BIDS [NAME=BIDS ...] [--model default] [--people 10] [--out .../detail.json]
Each BIDS folder has participants with both scans, one of which is hidden in turn. The hidden scan is registered rigidly
to the source and resampled to its grid; distortions are not corrected. Inside the source's brain, and for the output
without detail, with that of the regression on the source, and with that of the networks too: r; r of detail, after
division by the local mean (SD 10 mm); sharpness, the SD of what a Gaussian of 3 mm removes over the median, relative to
the hidden scan (1: as sharp); and PSNR, each volume divided by its median, relative to the 99.5th percentile of the
hidden scan.
"""

from __future__ import annotations

import argparse
import platform
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import numpy as np
from scipy import ndimage

import pdsynth.synthesis
from pdsynth.cohorts.bids import bids
from pdsynth.cohorts.cohort import Scan
from pdsynth.data.preprocessing import SHELL
from pdsynth.data.standardise import Standardised, standardise
from pdsynth.files import write_json
from pdsynth.imaging.detail import source_detail
from pdsynth.imaging.nifti import Volume
from pdsynth.imaging.spatial import resample
from pdsynth.synthesis import Model
from pdsynth.types import Direction, Modality


def local(values: np.ndarray, mask: np.ndarray, sd_mm: float, spacing_mm: np.ndarray) -> np.ndarray:
    """The weighted mean around each voxel over a mask."""
    sigma = sd_mm / spacing_mm
    weight = np.maximum(ndimage.gaussian_filter(mask.astype(np.float32), sigma), 1e-3)
    return np.asarray(ndimage.gaussian_filter(np.where(mask, values, 0).astype(np.float32), sigma) / weight)


def scores(output: np.ndarray, real: np.ndarray, mask: np.ndarray, spacing_mm: np.ndarray) -> dict[str, float]:
    """The measures of the module's docstring."""

    def fine(v: np.ndarray) -> np.ndarray:
        return np.clip(v / np.maximum(local(v, mask, 10, spacing_mm), 1e-6), 0, 3)[mask]

    def edge(v: np.ndarray) -> float:
        return float(np.std((v - local(v, mask, 3, spacing_mm))[mask]) / np.median(v[mask]))

    a, b = (np.clip(v[mask] / np.median(v[mask]), 0, 3) for v in (output, real))
    top = np.percentile(real[mask], 99.5) / np.median(real[mask])
    return {
        "r": float(np.corrcoef(output[mask], real[mask])[0, 1]),
        "detail_r": float(np.corrcoef(fine(output), fine(real))[0, 1]),
        "sharpness": edge(output) / edge(real),
        "psnr_median": float(20 * np.log10(top) - 10 * np.log10(np.square(a - b).mean())),
    }


@dataclass(frozen=True)
class Pair:
    """Both scans of a session as a model standardises them; the dMRI is registered rigidly to the fMRI.

    shell: b-value of the dMRI in s/mm^2.
    """

    scans: dict[Modality, Scan]
    standard: dict[Modality, Standardised]
    shell: float

    @classmethod
    def of(cls, scans: dict[Modality, Scan], model: Model) -> Pair:
        fmri = standardise(scans[Modality.FMRI], model.preprocessing)
        dmri = standardise(scans[Modality.DMRI], model.preprocessing, partner=fmri)
        return cls(scans, {Modality.FMRI: fmri, Modality.DMRI: dmri}, dmri.bval or SHELL)

    def hidden(self, direction: Direction) -> np.ndarray:
        """The mean of the target scan on the source's grid, (x, y, z)."""
        source, target = self.standard[direction.source], self.standard[direction.target]
        return resample(target.mean, source.native, source.transform.inverse().matrix @ target.transform.matrix)

    def synthesised(self, model: Model, direction: Direction) -> Volume:
        """The volume that the model makes of the source alone."""
        return model.synthesize(self.scans[direction.source], direction.target, shell=self.shell).volume


def compared(model: Model, pair: Pair, direction: Direction) -> dict[str, dict[str, float]]:
    """The scores of one person and direction: without detail, with the regression's, with the networks' too."""
    real = pair.hidden(direction)
    mask = pair.standard[direction.source].native_brain & (real > 0)
    found = {}
    networks = model.method.detail
    for name, regression, refined in (
        ("without", _nothing, None),
        ("regression", source_detail, None),
        ("networks", source_detail, networks),
    ):
        pdsynth.synthesis.source_detail, model.method.detail = regression, refined
        volume = pair.synthesised(model, direction)
        found[name] = scores(volume.data, real, mask, volume.spacing_mm)
    model.method.detail = networks
    return found


def _nothing(estimate: Volume, source: Volume, brain: np.ndarray) -> np.ndarray:
    return np.zeros_like(estimate.data)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="+", metavar="NAME=BIDS")
    parser.add_argument("--model", default="default")
    parser.add_argument("--people", type=int, default=10)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "detail.json")
    options = parser.parse_args()
    model = Model.load(options.model, "cpu")
    results: dict[str, dict[str, dict[str, dict[str, float]]]] = {}
    for given in options.folders:
        name, folder = given.split("=", 1)
        sessions = [session for _, session in bids(Path(folder)) if len(session.scans) == 2][: options.people]
        pairs = [Pair.of(session.scans, model) for session in sessions]
        for direction in Direction:
            rows = [compared(model, pair, direction) for pair in pairs]
            means = {
                way: {k: round(float(np.mean([row[way][k] for row in rows])), 3) for k in rows[0][way]}
                for way in rows[0]
            }
            results.setdefault(name, {})[direction.value] = means
            print(name, direction, len(rows), means, flush=True)
    about = {"date": date.today().isoformat(), "machine": platform.machine(), "model_sha256": model.sha256}
    write_json(options.out, about | {"means": results})


if __name__ == "__main__":
    main()
