"""Time for indexing a BIDS dataset of 5,000 participants and 20,000 files into a cohort.

Usage: python benchmarks/indexing.py [--out benchmarks/results/indexing.json]

On a machine with other work, the wall time is longer than the time of the processor, which is reported too.

The dataset is made on the fly in a temporary folder: per participant one fMRI and one dMRI scan of a few kB, a .bval
and a .bvec file. Each of three readings classifies every file, reads every header and every gradient table.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import tempfile
import time
from datetime import date
from pathlib import Path
from statistics import median

import nibabel as nib
import numpy as np

from pdsynth.cohorts.bids import bids

SUBJECTS, READINGS, LIMIT_SECONDS = 5000, 3, 10.0


def make_dataset(root: Path, subjects: int = SUBJECTS) -> Path:
    """Write a dataset with two small scans and gradient tables per participant, each in files of its own."""
    root.mkdir(parents=True)
    series = nib.Nifti1Image(np.ones((48, 48, 24, 4), np.int16), np.diag([4.0, 4.0, 4.0, 1.0]))
    nib.save(series, root / "scan.nii.gz")
    content = (root / "scan.nii.gz").read_bytes()
    (root / "scan.nii.gz").unlink()
    for number in range(subjects):
        name = f"sub-{number:05d}"
        for kind, stem in (("func", f"{name}_task-rest_bold"), ("dwi", f"{name}_dwi")):
            folder = root / name / kind
            folder.mkdir(parents=True)
            (folder / f"{stem}.nii.gz").write_bytes(content)
        (folder / f"{stem}.bval").write_text("0 1000 1000 1000\n")
        (folder / f"{stem}.bvec").write_text("0 1 0 0\n0 0 1 0\n0 0 0 1\n")
    return root


def index_seconds(root: Path, subjects: int = SUBJECTS) -> dict[str, float]:
    """Wall and CPU time for reading a dataset of `make_dataset`; the values are over READINGS readings."""
    wall, processor = [], []
    for _ in range(READINGS):
        start, start_processor = time.perf_counter(), time.process_time()
        cohort = bids(root)
        wall.append(time.perf_counter() - start)
        processor.append(time.process_time() - start_processor)
        assert len(cohort.subjects) == subjects and not cohort.rejected
        assert len(cohort.used) == 4 * subjects and not cohort.not_needed
    return {
        "subjects": subjects,
        "files": 4 * subjects,
        "median_seconds": round(median(wall), 2),
        "slowest_seconds": round(max(wall), 2),
        "median_processor_seconds": round(median(processor), 2),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "indexing.json")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        result = {
            "date": date.today().isoformat(),
            "machine": f"{os.cpu_count()}-core {platform.machine().replace('_', '-')}",
            "limit_seconds": LIMIT_SECONDS,
            "load_average": round(os.getloadavg()[0], 1),  # processes that shared the cores while this one began
            "index": index_seconds(make_dataset(Path(temporary) / "bids")),
        }
    options.out.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
