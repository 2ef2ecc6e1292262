"""Position of a dMRI registered alone and registered in a pair, and the shipped model's output for each position.

Usage: python benchmarks/placement.py [BIDS_FOLDER ...] [--subjects 12] [--out benchmarks/results/placement.json]
In a pair, the dMRI is registered to MNI space through its session's fMRI. At synthesis there is no fMRI, and the dMRI
is registered to the template directly. Both positions are computed for SIMULATED participants and for the pairs in the
given folders.

- displacement_mm: distance between the two positions of a voxel, mean over the brain; shift_x_mm, shift_y_mm,
  shift_z_mm: its mean along each axis, alone minus paired. If the positions differ by a bias, the shifts of all
  participants are similar.
- input_rms: difference of the two volumes on the grid, root mean square in the brain (range 0..1).
- input_ssim: SSIM of one volume against the other.
- output_rms: difference of the two fMRI volumes that the shipped model synthesises, resampled to the scan's own grid.
- psnr_paired, psnr_alone: PSNR of these two against the real fMRI, in the brain of the dMRI, dB.
"""

from __future__ import annotations

import argparse
import datetime
import json
import platform
import tempfile
from pathlib import Path

import numpy as np
import torch

from pdsynth.cohorts.bids import bids
from pdsynth.cohorts.cohort import Session
from pdsynth.cohorts.simulated.cohort import simulate
from pdsynth.data.batch import source_batch
from pdsynth.data.standardise import Standardised, standardise
from pdsynth.evaluation.metrics import dilate, psnr
from pdsynth.evaluation.metrics.structure import ssim
from pdsynth.imaging.nifti import Volume
from pdsynth.imaging.spatial import resample
from pdsynth.synthesis import Model
from pdsynth.types import Direction, Modality


def native_output(model: Model, source: Standardised) -> np.ndarray:
    """The fMRI that the model synthesises from a dMRI, on the dMRI's own grid."""
    batch = source_batch(source.volume, source.brain, Direction.DMRI_TO_FMRI, source.bval or 1000.0)
    with torch.inference_mode():
        output = model.method.estimate(batch, Direction.DMRI_TO_FMRI)[0][0, 0].numpy()
    return resample(Volume(output, model.grid.affine), source.native, source.transform.inverse().matrix)


def measured(model: Model, session: Session) -> dict[str, float]:
    """The entries of the module's docstring, for one session with both scans."""
    fmri = standardise(session.scans[Modality.FMRI], model.preprocessing)
    dmri = session.scans[Modality.DMRI]
    paired, alone = standardise(dmri, model.preprocessing, partner=fmri), standardise(dmri, model.preprocessing)
    native = paired.reference.affine
    points = np.argwhere(paired.native_brain) @ native[:3, :3].T + native[:3, 3]
    positions = [points @ s.transform.matrix[:3, :3].T + s.transform.matrix[:3, 3] for s in (paired, alone)]
    outputs = [native_output(model, source) for source in (paired, alone)]
    mask = dilate(paired.native_brain)
    back = paired.transform.inverse().matrix
    real = resample(Volume(fmri.volume, model.grid.affine), paired.native, back)
    shift = (positions[1] - positions[0]).mean(0)
    found = {
        "displacement_mm": np.linalg.norm(positions[0] - positions[1], axis=1).mean(),
        **{f"shift_{axis}_mm": along for axis, along in zip("xyz", shift, strict=True)},
        "input_rms": np.sqrt(np.square(paired.volume - alone.volume)[paired.brain].mean()),
        "input_ssim": ssim(alone.volume, paired.volume, dilate(paired.brain)),
        "output_rms": np.sqrt(np.square(outputs[0] - outputs[1])[paired.native_brain].mean()),
        "psnr_paired": psnr(outputs[0], real, mask),
        "psnr_alone": psnr(outputs[1], real, mask),
    }
    return {name: round(float(value), 4) for name, value in found.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", type=Path, nargs="*")
    parser.add_argument("--subjects", type=int, default=12)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "placement.json")
    options = parser.parse_args()
    model = Model.load("default", "cpu")
    result: dict[str, object] = {
        "date": datetime.date.today().isoformat(),
        "machine": f"{platform.machine()}, {torch.get_num_threads()} threads, CPU",
        "model_sha256": model.sha256,
        "preprocessing": model.preprocessing.model_dump(),
    }
    with tempfile.TemporaryDirectory() as temporary:
        study = simulate(Path(temporary), options.subjects, seed=31, quick=True, truth=False)
        for name, folder in [("SIMULATED", study), *((folder.name, folder) for folder in options.folders)]:
            rows = {}
            for subject, session in bids(folder):
                if not session.missing:
                    rows[subject.participant_id] = measured(model, session)
                    print(name, subject.participant_id, rows[subject.participant_id], flush=True)
            names = next(iter(rows.values()))
            table = {n: [row[n] for row in rows.values()] for n in names}
            result[name] = {
                "participants": len(rows),
                "median": {n: round(float(np.median(values)), 4) for n, values in table.items()},
                "largest displacement_mm": max(table["displacement_mm"]),
                "rows": rows,
            }
    options.out.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
