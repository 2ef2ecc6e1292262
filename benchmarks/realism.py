"""How well a classifier of patches tells simulated scans from real ones: 0.5 is not at all, 1 is always.

Usage: python benchmarks/realism.py DATA NAME=SIMULATED [NAME=SIMULATED ...] [--out benchmarks/results/realism.json]
DATA has real scans, and each SIMULATED is a BIDS dataset of `pdsynth simulate --randomise 1 --quick`. All mean volumes
are resampled to 3 mm, divided by their receive field, and scaled by their median in the brain. A patch is 7 x 7 x 7
voxels inside the brain. Gradient boosting on fixed statistics of a patch is trained on all real scanners but one and on
half of the simulated people, and tested on that scanner and the other half. The area under the ROC curve is averaged
over the real scanners; its interval is a bootstrap over them. The statistics and the classifier were fixed before any
simulator was tuned by them.

The control takes six real people of one scanner for the simulated ones. Only b0 images of several people of a scanner
are there, so that this comparison is of b0s (`dmri_b0`), for six and for all simulated people too.
"""

from __future__ import annotations

import argparse
import platform
from datetime import date
from pathlib import Path

import numpy as np
from scipy import ndimage
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.metrics import roc_auc_score

from pdsynth.cohorts.scans import single_scan
from pdsynth.data.means import scan_brain, scan_means
from pdsynth.data.preprocessing import Preprocessing
from pdsynth.files import write_json
from pdsynth.imaging.intensity import flatten
from pdsynth.imaging.nifti import Volume
from pdsynth.imaging.spatial import Grid, resample
from pdsynth.types import Modality

EDGE_MM, PATCH, PATCHES = 3.0, 7, 300  # patches per scan
# One name per real scanner: scans of one scanner are left out together.
SCANNERS = {
    Modality.FMRI: {
        "Prisma, multiband": ["sub-xa30_task-fa_bold"],
        "Ingenia Elition": ["sub-philips_task-rest_bold"],
        "oneback": ["bold_156vol_task-oneback"],
        "Prisma, mosaic": ["mosaic-cmrr_bold", "mosaic-ep2d_bold"],
    },
    Modality.DMRI: {
        "Prisma, b 2500": ["sub-xa30_dir-AP_dwi", "sub-xa30_dir-PA_dwi"],
        "Ingenia Elition": ["sub-philips_dwi"],
        "Siemens, b 1000": ["dwi_siemens_b1000"],
        "Toshiba": ["dwi_toshiba"],
        "Canon": ["canon2020_DTI_AP-ortho_dwi", "canon2020_DTI_PA-ortho-HT_dwi"],
        "Achieva": ["philips-bangalore_dwi"],
    },
}


SCANNERS_B0 = SCANNERS[Modality.DMRI] | {"Prisma, Oxford": ["prisma-oxford_b0"]}
CONTROL, CONTROL_SCANS = "one real scanner", "afq_*_b0"


def flat(path: Path, modality: Modality, b0: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """The flat mean volume of a scan, or its b0, on a 3 mm grid of its own, and its brain mask, (x, y, z) each."""
    preprocessing = Preprocessing(mask="computed")
    scan = single_scan(path, modality)
    read = scan_means(scan, preprocessing, 1)
    brain = scan_brain(scan, read.reference, preprocessing)
    mean = flatten(read.reference if b0 else read.means[0], brain)
    native = Grid.of(mean)
    affine = native.affine @ np.diag([*(EDGE_MM / native.spacing_mm), 1.0])
    x, y, z = (int(n * s / EDGE_MM) for n, s in zip(native.shape, native.spacing_mm, strict=True))
    blur = np.sqrt(np.maximum(EDGE_MM**2 - native.spacing_mm**2, 0)) * 0.77 / 2.355 / native.spacing_mm
    data = resample(Volume(ndimage.gaussian_filter(mean.data, blur), native.affine), Grid((x, y, z), affine))
    mask = resample(Volume(brain, native.affine), Grid((x, y, z), affine)) > 0.5
    return data / np.median(data[mask]), mask


def statistics(data: np.ndarray, mask: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """Statistics of random patches that lie in the brain for nine tenths, (PATCHES, 17)."""
    share = ndimage.uniform_filter(mask.astype(np.float32), PATCH)
    half = PATCH // 2
    centres = np.argwhere(share > 0.9)
    centres = centres[((centres >= half) & (centres < np.array(data.shape) - half)).all(1)]
    rows = []
    for centre in centres[generator.permutation(len(centres))[:PATCHES]]:
        patch = data[tuple(slice(c - half, c + half + 1) for c in centre)]
        gradient = np.sqrt(sum(np.square(g) for g in np.gradient(patch)))
        centred = patch - patch.mean()
        variance = max(float(centred.var()), 1e-9)
        lag = [
            float((np.take(centred, range(PATCH - k), a) * np.take(centred, range(k, PATCH), a)).mean() / variance)
            for k in (1, 2)
            for a in range(3)
        ]
        fine = ndimage.laplace(patch).std()
        rows.append(
            [patch.mean(), patch.std(), *np.percentile(patch, (2, 25, 50, 75, 98)), gradient.mean(), gradient.std(),
             fine, float((centred**3).mean() / variance**1.5), *lag]
        )  # fmt: skip
    return np.array(rows)


def area(real: dict[str, np.ndarray], simulated: list[np.ndarray]) -> dict[str, object]:
    """The area under the curve for each real scanner that is left out, their mean and its 95 % interval."""
    areas = {}
    for left_out, tested in real.items():
        others = np.concatenate([rows for name, rows in real.items() if name != left_out])
        first, second = np.concatenate(simulated[::2]), np.concatenate(simulated[1::2])
        x = np.concatenate([others, first])
        y = np.concatenate([np.ones(len(others)), np.zeros(len(first))])
        weight = np.where(y == 1, len(first) / len(others), 1)
        model = HistGradientBoostingClassifier(max_iter=100, max_leaf_nodes=15, random_state=0).fit(x, y, weight)
        p = model.predict_proba(np.concatenate([tested, second]))[:, 1]
        truth = np.r_[np.ones(len(tested)), np.zeros(len(second))]
        areas[left_out] = round(float(roc_auc_score(truth, p)), 3)
    values = np.array(list(areas.values()))
    drawn = np.random.default_rng(0).choice(values, (2000, len(values))).mean(1)
    return {
        "mean": round(float(values.mean()), 3),
        "ci95": np.percentile(drawn, (2.5, 97.5)).round(3).tolist(),
        "scanners": areas,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("simulated", nargs="+", metavar="NAME=SIMULATED")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "realism.json")
    options = parser.parse_args()
    generator = np.random.default_rng(0)
    results: dict[str, dict[str, object]] = {}
    folders = dict(each.split("=", 1) for each in options.simulated)
    for image, modality, scanners in (
        ("fmri", Modality.FMRI, SCANNERS[Modality.FMRI]),
        ("dmri", Modality.DMRI, SCANNERS[Modality.DMRI]),
        ("dmri_b0", Modality.DMRI, SCANNERS_B0),
    ):

        def patches(path: Path, image: str = image, modality: Modality = modality) -> np.ndarray:
            return statistics(*flat(path, modality, image == "dmri_b0"), generator)

        real = {
            name: np.concatenate([patches(next(options.data.rglob(f"{stem}.nii.gz"))) for stem in stems])
            for name, stems in scanners.items()
        }
        suffix = "bold" if modality is Modality.FMRI else "dwi"
        people = {
            name: [patches(path) for path in sorted(Path(folder).glob(f"sub-*/*/*_{suffix}.nii.gz"))]
            for name, folder in folders.items()
        }
        if image == "dmri_b0":
            control = [patches(path) for path in sorted(options.data.rglob(f"{CONTROL_SCANS}.nii.gz"))]
            six = {f"{name}, {len(control)} people": each[: len(control)] for name, each in people.items()}
            people = {CONTROL: control} | six | people
        for name, each in people.items():
            found = area(real, each) | {"people": len(each)}
            results.setdefault(name, {})[image] = found
            print(name, image, found, flush=True)
    about = {"date": date.today().isoformat(), "machine": platform.machine(), "data": "real and SIMULATED scans"}
    write_json(options.out, about | {"area_under_the_curve": results})


if __name__ == "__main__":
    main()
