"""Synthesis of real scans by a model that was trained on simulated scans only; each scan is hidden in turn.

Usage: python benchmarks/real_pair.py BIDS_FOLDER [--model default] [--out benchmarks/results/real_pair.json]
The folder has real participants with both scans. Each synthesised volume is written on its source's own grid, as by the
command line. It is read again, resampled to the standard grid by its source's transform, and compared with the real
scan, which was registered to the source. Nothing is rescaled with statistics of the target.
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
from pdsynth.evaluation.metrics import dilate, psnr
from pdsynth.evaluation.metrics.intensity import voxel_r
from pdsynth.evaluation.metrics.structure import ssim
from pdsynth.imaging.nifti import read_header, read_volume
from pdsynth.imaging.spatial import resample
from pdsynth.methods.conditioning import VoxelFeatures
from pdsynth.synthesis import Model
from pdsynth.types import Direction


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
    rows: dict[str, dict[str, dict[str, float]]] = {}
    with tempfile.TemporaryDirectory() as temporary:
        work = Path(temporary)
        pairs = prepare(bids(options.folder), work / "prepared", split=(0, 0, 1))
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
                real = pairs.volume(target, row)
                mask = dilate(pairs.brain(target, row))
                mean = voxels.means[target.index, 0].numpy()
                estimates = {
                    "pds": resample(synthesised, pairs.grid, pairs.transform(source, row).matrix),
                    "copy-source": pairs.volume(source, row),
                    "population-mean (of the model's SIMULATED training)": mean,
                    "constant (the best one, known from the target)": np.full_like(real, real[mask].mean()),
                }
                rows.setdefault(entry["participant_id"], {})
                for method, estimate in estimates.items():
                    key = f"{direction}: {method}"
                    rows[entry["participant_id"]][key] = scores(np.clip(estimate, 0, 1), real, mask)
                    print(f"{entry['participant_id']}  {key:80s} {rows[entry['participant_id']][key]}")
    result = {
        "date": datetime.date.today().isoformat(),
        "machine": f"{platform.machine()}, {torch.get_num_threads()} threads, CPU",
        "model_sha256": model.sha256,
        "participants": rows,
    }
    options.out.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
