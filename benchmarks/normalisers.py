"""Spread of tissue intensities over real scans, by intensity scale: which one makes scans of several scanners alike.

Usage: python benchmarks/normalisers.py DATA [--out benchmarks/results/normalisers.json]
DATA has real scans in any subfolders: BOLD and other EPI series, b0 and DWI of several scanners. Each scan is
registered to the template; grey matter, white matter and fluid are where the tissue maps exceed LIMITS. A scale
divides the scan by one number; "flat" first divides it by its receive field, its own blur in the brain. The result
has, for each kind of scan, the SD over scans of the logarithm of the median of each tissue (0: alike); the difference
of that of white matter between two scans of one person and session; and the median of each scan relative to its
99.5th percentile, which shows how much a limit would clip.
"""

from __future__ import annotations

import argparse
import platform
from collections.abc import Callable
from datetime import date
from pathlib import Path

import numpy as np
from scipy.stats import gaussian_kde

from pdsynth.cohorts.scans import single_scan
from pdsynth.data.means import scan_brain, scan_means
from pdsynth.data.preprocessing import Preprocessing
from pdsynth.data.standardise import place, standard_brain
from pdsynth.files import write_json
from pdsynth.imaging.intensity import flatten
from pdsynth.imaging.nifti import Volume
from pdsynth.imaging.spatial import resample
from pdsynth.imaging.template import tissue_template
from pdsynth.types import Modality

NO_SCANS = ("anatomies", "atlases", "templates", "derivatives")  # folders
LIMITS = {"gm": 0.7, "wm": 0.9, "csf": 0.6}  # least share of the tissue in the template
NEVER = {"dwi_partial-slab", "bold_header-zooms"}  # wrong header, or a slab
PAIRS = [
    ("sub-xa30_dir-AP", "sub-xa30_dir-PA"),
    ("canon2020_DTI_AP", "canon2020_DTI_PA"),
    ("sub-xa30_task", "sub-xa30_dir-AP"),
    ("sub-philips_task", "sub-philips_dwi"),
]


def mode(values: np.ndarray) -> float:
    """The most frequent intensity above a third of the median, by a kernel estimate on 5,000 values."""
    chosen = np.random.default_rng(0).choice(values, min(len(values), 5000), replace=False)
    at = np.linspace(np.median(values) / 3, np.percentile(values, 99), 400)
    return float(at[gaussian_kde(chosen)(at).argmax()])


SCALES: dict[str, Callable[[np.ndarray], float]] = {
    "p99.5": lambda v: float(np.percentile(v, 99.5)),
    "p95": lambda v: float(np.percentile(v, 95)),
    "mean": lambda v: float(v.mean()),
    "median": lambda v: float(np.median(v)),
    "mode": mode,
}


def kind(path: Path, bval: float | None) -> str:
    """bold, dwi or b0."""
    if "b0" in path.name or "se-epi" in path.name:
        return "b0"
    return "dwi" if bval else "bold"


def scans(folder: Path) -> list[tuple[str, str, dict[str, dict[str, float]]]]:
    """Name, kind, and for each scale the tissue medians, the median and the 99.5th percentile of every real scan."""
    found = []
    preprocessing = Preprocessing(mask="computed")
    tissues = tissue_template(preprocessing.grid)
    for path in sorted(folder.rglob("*.nii*")):
        if set(NO_SCANS) & set(path.parts) or path.name.startswith(tuple(NEVER)):
            continue
        modality = Modality.DMRI if "dwi" in path.as_posix() else Modality.FMRI
        try:
            scan = single_scan(path, modality)
            read = scan_means(scan, preprocessing, 1)
            brain = scan_brain(scan, read.reference, preprocessing)
            transform = place(scan, read.reference, brain, preprocessing)
            inside, _ = standard_brain(read.reference, brain, preprocessing, transform)
        except ValueError as error:
            print("left out:", error)
            continue
        values = {}
        for name, volume in {"": read.means[0], "flat ": flatten(read.means[0], brain)}.items():
            on_grid = resample(Volume(volume.data, volume.affine), preprocessing.grid, transform.matrix)
            voxels = on_grid[inside]
            for scale, by in SCALES.items():
                unit = by(voxels)
                values[name + scale] = {
                    **{
                        t: float(np.median(on_grid[inside & (tissues[t] > limit)]) / unit)
                        for t, limit in LIMITS.items()
                    },
                    "p99.5": float(np.percentile(voxels, 99.5) / unit),
                    "median": float(np.median(voxels) / unit),
                }
        found.append((path.name, kind(path, read.bval), values))
        shown = [{k: round(v, 2) for k, v in values[scale].items()} for scale in ("median", "flat median")]
        print(path.name, kind(path, read.bval), *shown, flush=True)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "normalisers.json")
    options = parser.parse_args()
    found = scans(options.data)
    spread: dict[str, dict[str, dict[str, float]]] = {}
    within: dict[str, dict[str, float]] = {}
    for scale in found[0][2]:
        for of in ("bold", "dwi", "b0"):
            rows = [values[scale] for _, k, values in found if k == of]
            spread.setdefault(scale, {})[of] = {
                t: round(float(np.std(np.log([r[t] for r in rows]))), 3) for t in LIMITS
            }
        for first, second in PAIRS:
            a, b = (next(v[scale] for name, _, v in found if name.startswith(start)) for start in (first, second))
            within.setdefault(f"{first} / {second}", {})[scale] = round(abs(float(np.log(a["wm"] / b["wm"]))), 3)
        print(scale, spread[scale])
    ratios = {name: round(values["median"]["median"] / values["median"]["p99.5"], 3) for name, _, values in found}
    write_json(
        options.out,
        {
            "date": date.today().isoformat(),
            "machine": platform.machine(),
            "data": "real scans",
            "scans": len(found),
            "sd_of_log_tissue_median": spread,
            "difference_within_a_person_white_matter": within,
            "median_over_p99.5": ratios,
            "flat_median_over_p99.5": {
                n: round(v["flat median"]["median"] / v["flat median"]["p99.5"], 3) for n, _, v in found
            },
        },
    )


if __name__ == "__main__":
    main()
