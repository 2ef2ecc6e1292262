"""Make the template to which a dMRI without an fMRI is registered: the mean b0 of SIMULATED people in MNI space.

Usage: python benchmarks/b0_template.py [--subjects 36] [--seed 77]
Each dMRI is registered through its fMRI, as in a training pair. Its b0 is divided by the receive field, resampled to
the default grid, and averaged over the people. Voxels outside the brain of half of the people are 0. The file is part
of the package: `pdsynth.imaging.template.b0_template` reads it. `placement.py` measures what it changes.
"""

from __future__ import annotations

import argparse
import gzip
import tempfile
from pathlib import Path

import nibabel as nib
import numpy as np

from pdsynth.cohorts.bids import bids
from pdsynth.cohorts.simulated.cohort import simulate
from pdsynth.data.preprocessing import Preprocessing
from pdsynth.data.standardise import standardise
from pdsynth.imaging.intensity import flatten
from pdsynth.imaging.nifti import Volume
from pdsynth.imaging.spatial import resample
from pdsynth.imaging.template import B0_TEMPLATE
from pdsynth.types import Modality


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--subjects", type=int, default=36)
    parser.add_argument("--seed", type=int, default=77)
    given = parser.parse_args()
    preprocessing = Preprocessing()
    grid = preprocessing.grid
    total, inside = np.zeros(grid.shape), np.zeros(grid.shape)
    with tempfile.TemporaryDirectory() as temporary:
        study = simulate(Path(temporary) / "people", given.subjects, seed=given.seed, quick=True, truth=False)
        for _, session in bids(study):
            fmri = standardise(session.scans[Modality.FMRI], preprocessing)
            dmri = standardise(session.scans[Modality.DMRI], preprocessing, partner=fmri)
            brain, to_grid = Volume(dmri.native_brain, dmri.reference.affine), dmri.transform.matrix
            total += resample(flatten(dmri.reference, dmri.native_brain), grid, to_grid)
            inside += resample(brain, grid, to_grid)
    mean = np.where(inside > given.subjects / 2, total, 0)
    image = nib.Nifti1Image(np.rint(255 * mean / mean.max()).astype(np.uint8), grid.affine)
    image.header["descrip"] = b"mean b0 of SIMULATED people in MNI space"
    with B0_TEMPLATE.open("wb") as raw, gzip.GzipFile("", "wb", fileobj=raw, mtime=0) as file:
        file.write(image.to_bytes())
    print(f"{B0_TEMPLATE}: {B0_TEMPLATE.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main()
