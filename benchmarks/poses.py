"""How well the pose of a head is recognised: the misfit of the template brain in all 24 poses, for many scans.

Usage: python benchmarks/poses.py COHORT [FOLDER_OR_FILE ...] [--every 10] [--out benchmarks/results/poses.json]
COHORT is a SIMULATED cohort, of which every tenth participant is used; the other paths hold real scans whose headers
are right, with BIDS names or with `dwi` or `b0` in the name of a diffusion scan.

A wrong header that turns a head by a pose exchanges the misfits of the poses, and changes nothing else: the image is
the same. Therefore one scan gives the result for its right header and for all 23 wrong ones.

- gap: misfit of the best wrong pose minus that of the right one. The header is refused if another pose is better by
  more than WRONG, and flagged if it is not worse by more than -DOUBTFUL.
- false_alarms, flagged: right headers that would be refused, or flagged.
- caught: wrong headers that would be refused; y_flip, z_flip and y_and_z_flip are named, with those that exchange axes.
- neighbours: correlation of neighbouring voxels of the brain along the best axis (`plausible.check_brain`).
- seconds: of `check_pose` on one core.
"""

from __future__ import annotations

import argparse
import datetime
import json
import platform
import time
from pathlib import Path
from typing import Any

import numpy as np

from pdsynth.cohorts.scans import single_scan
from pdsynth.data.means import scan_means
from pdsynth.data.preprocessing import Preprocessing
from pdsynth.imaging.intensity import bright_piece
from pdsynth.imaging.nifti import Volume, read_header
from pdsynth.imaging.plausible import LEAST_CORRELATION, neighbours
from pdsynth.imaging.poses import DOUBTFUL, POSES, WRONG, check_pose, pose_misfits
from pdsynth.imaging.segments import segment_means
from pdsynth.types import InputError

FLIPS = {"y_flip": (-1, -1, 1), "z_flip": (-1, 1, -1), "y_and_z_flip": (1, -1, -1)}  # as rotations, up to left-right


def reference(path: Path) -> Volume:
    """The volume whose pose is judged: the mean fMRI or b0; the mean of a file without b-values."""
    try:
        return scan_means(single_scan(path), Preprocessing()).reference
    except InputError:
        header = read_header(path)
        return Volume(segment_means(path, [np.arange(min(2, header.n_volumes))])[0], header.affine)


def measured(path: Path) -> dict[str, Any]:
    """The entries of one scan."""
    volume = reference(path)
    started = time.process_time()
    try:
        check_pose(volume)
    except ValueError as error:
        print("REFUSED", path.name, error)
    seconds = time.process_time() - started
    found = pose_misfits(volume)
    brain = bright_piece(np.maximum(volume.data, 0), volume.spacing_mm)
    return {
        "misfits": [round(float(m), 4) for m in found],
        "gap": round(float(found[1:].min() - found[0]), 4),
        "neighbours": round(max(neighbours(volume.data, brain)), 3),
        "seconds": round(seconds, 3),
    }


def summary(rows: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Counts of false alarms and of caught wrong headers over scans."""
    misfits = np.array([row["misfits"] for row in rows.values()])
    gaps = np.array([row["gap"] for row in rows.values()])
    wrong = {name: next(i for i, p in enumerate(POSES) if np.array_equal(p, np.diag(f))) for name, f in FLIPS.items()}
    better = misfits[:, 1:] - misfits.min(1, keepdims=True)  # for a header that is wrong by each pose
    caught = better > WRONG
    return {
        "scans": len(rows),
        "false_alarms": int((-gaps > WRONG).sum()),
        "flagged": int(((-gaps > DOUBTFUL) & (-gaps <= WRONG)).sum()),
        "wrong_headers": int(caught.size),
        "caught": int(caught.sum()),
        "flagged_wrong": int(((better > DOUBTFUL) & ~caught).sum()),
        **{f"caught_{name}": int(caught[:, place - 1].sum()) for name, place in wrong.items()},
        "caught_with_exchanged_axes": int(np.delete(caught, [p - 1 for p in wrong.values()], axis=1).sum()),
        "with_exchanged_axes": int(caught.size - len(wrong) * len(rows)),
        "smallest_gap": float(gaps.min()),
        "least_neighbours": min(row["neighbours"] for row in rows.values()),
        "median_seconds": float(np.median([row["seconds"] for row in rows.values()])),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cohort", type=Path)
    parser.add_argument("real", type=Path, nargs="*")
    parser.add_argument("--every", type=int, default=10)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "poses.json")
    options = parser.parse_args()
    people = sorted(options.cohort.glob("sub-*"))[:: options.every]
    simulated = [path for person in people for path in sorted(person.rglob("*.nii.gz"))]
    groups: dict[str, list[Path]] = {
        "SIMULATED fMRI": [path for path in simulated if "bold" in path.name],
        "SIMULATED dMRI": [path for path in simulated if "dwi" in path.name],
        "real": [
            file for path in options.real for file in (sorted(path.rglob("*.nii.gz")) if path.is_dir() else [path])
        ],
    }
    result: dict[str, Any] = {
        "date": datetime.date.today().isoformat(),
        "machine": f"{platform.machine()}, 1 thread, CPU",
        "margins": {"WRONG": WRONG, "DOUBTFUL": DOUBTFUL, "LEAST_CORRELATION": LEAST_CORRELATION},
    }
    for name, paths in groups.items():
        rows = {}
        for path in paths:
            rows[path.name.removesuffix(".nii.gz")] = measured(path)
            print(name, path.name, rows[path.name.removesuffix(".nii.gz")]["gap"], flush=True)
        if rows:
            result[name] = summary(rows) | {"gaps": {scan: row["gap"] for scan, row in rows.items()}}
            options.out.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
