"""Synthesis of real scans by a model that was trained on simulated scans only; each scan is hidden in turn.

Usage: python benchmarks/real_pair.py BIDS_FOLDER [--model default] [--out benchmarks/results/real_pair.json]
The folder has real participants with both scans. Each synthesised volume is written on its source's own grid, as by the
command line. It is read again, resampled to the standard grid by its source's transform, and compared with the real
scan, which was registered to the source. If the model's preprocessing divides scans by their receive field, so is the
volume that was read again, in the brain of its source. PSNR depends on the intensity scale, so that scores are given
twice: 1 is the 99.5th percentile, or 2.5 times the median, of each image in the brain of the target. Nothing is
rescaled with intensities of the target.
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
from pdsynth.data.prepare import prepare
from pdsynth.data.standardise import intensity_scale
from pdsynth.evaluation.metrics import dilate, psnr
from pdsynth.evaluation.metrics.intensity import voxel_r
from pdsynth.evaluation.metrics.structure import ssim
from pdsynth.imaging.intensity import TOP, RobustScale
from pdsynth.imaging.nifti import read_header, read_volume
from pdsynth.imaging.spatial import resample
from pdsynth.methods.conditioning import VoxelFeatures
from pdsynth.synthesis import Model
from pdsynth.types import Direction

SCALES = {
    "percentile": lambda image, brain: RobustScale.by_percentile(image, brain),
    "median": lambda image, brain: RobustScale(TOP * float(np.median(image[brain]))),
}


def scores(estimate: np.ndarray, real: np.ndarray, mask: np.ndarray) -> dict[str, float]:
    """PSNR in dB, SSIM and voxel r inside the mask, rounded."""
    measured = {"psnr_brain": psnr, "ssim_brain": ssim, "r": voxel_r}
    return {name: round(float(metric(estimate, real, mask)), 3) for name, metric in measured.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--model", default="default")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "real_pair.json")
    options = parser.parse_args()
    model = Model.load(options.model, "cpu")
    voxels = next(m for m in model.method.modules() if isinstance(m, VoxelFeatures))
    rows: dict[str, dict[str, dict[str, dict[str, float]]]] = {}
    with tempfile.TemporaryDirectory() as temporary:
        work = Path(temporary)
        preprocessing = model.preprocessing
        pairs = prepare(bids(options.folder), work / "prepared", preprocessing=preprocessing, split=(0, 0, 1))
        for row in range(len(pairs)):
            entry = pairs.table.iloc[row]
            for direction in Direction:
                source, target = direction.source, direction.target
                shell = float(entry["dmri_bval"])
                scan = options.folder / entry[f"{source}_path"]
                written = model.synthesize(scan, target, shell=shell).save(work / "out")[0]
                header = read_header(scan)
                synthesised = read_volume(written)
                assert synthesised.data.shape == header.shape[:3] and np.allclose(synthesised.affine, header.affine)
                output = resample(synthesised, pairs.grid, pairs.transform(source, row).matrix)
                if preprocessing.intensity == "flat-median":
                    output = intensity_scale(output, pairs.brain(source, row), preprocessing).apply(output)
                brain = pairs.brain(target, row)
                mask = dilate(brain)
                estimates = {
                    "pds": output,
                    "copy-source": pairs.volume(source, row),
                    "population-mean (of the model's SIMULATED training)": voxels.means[target.index, 0].numpy(),
                }
                for name, scale in SCALES.items():
                    real = pairs.volume(target, row)
                    real = scale(real, brain).apply(real)
                    scaled = {method: scale(image, brain).apply(image) for method, image in estimates.items()}
                    scaled["constant (the best one, known from the target)"] = np.full_like(real, real[mask].mean())
                    of_person = rows.setdefault(entry["participant_id"], {}).setdefault(name, {})
                    for method, image in scaled.items():
                        key = f"{direction}: {method}"
                        of_person[key] = scores(image, real, mask)
                        print(f"{entry['participant_id']}  {name:10s} {key:80s} {of_person[key]}")
    result = {
        "date": datetime.date.today().isoformat(),
        "machine": f"{platform.machine()}, {torch.get_num_threads()} threads, CPU",
        "model_sha256": model.sha256,
        "participants": rows,
    }
    options.out.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
