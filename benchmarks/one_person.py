"""One real person simulated with the protocols of the person's own scans, against these scans.

Usage: python benchmarks/one_person.py BIDS WORK [--out .../one_person.json] [--picture docs/images/one-person.png]
BIDS: one participant with both scans, a T1-weighted image of the brain (derivatives/*/sub-*/anat/*_T1w.nii.gz), and its
tissue map (*_dseg.nii.gz: 1 fluid, 2 grey, 3 white matter). Needs antspyx; WORK keeps its registrations. The
T1-weighted image is registered to each scan, rigidly and then by a smooth warp, as distortion asks; with its inverse
the real scan comes to the person, on whom the simulated scan lies already.

Per modality, inside the brain: r; r of detail, after division by the local mean (SD 10 mm); r with the receive field of
the real scan put on the simulated one (SD 20 mm), since a coil is not part of a tissue map; sharpness, the SD of what a
Gaussian of 3 mm removes over the median, relative to the real scan (1: as sharp); and the medians of both scans, after
division by the local mean (SD 20 mm), where a tissue fills more than 95 % of a voxel. `template` has the same for a
person from the template, as all were before people were simulated from label maps. The real scan is then registered to
the simulated one, smooth warp included, so that its r are too high to be compared with those of the person.
"""

from __future__ import annotations

import argparse
import platform
from datetime import date
from pathlib import Path
from typing import Any

import ants
import detail
import matplotlib.pyplot as plt
import nibabel as nib
import numpy as np
from detail import local

from pdsynth.cohorts.bids import bids
from pdsynth.cohorts.cohort import Scan
from pdsynth.cohorts.simulated import anatomy as anatomy_module
from pdsynth.cohorts.simulated.acquisition import Acquisition, Exposure
from pdsynth.cohorts.simulated.anatomy import Anatomy, Person, draw_anatomy
from pdsynth.cohorts.simulated.heads import Head, read_head
from pdsynth.cohorts.simulated.scanner import Coil, Optics, native_grid
from pdsynth.cohorts.simulated.session import simulate_scans
from pdsynth.cohorts.simulated.sites import DmriProtocol, FmriProtocol
from pdsynth.cohorts.simulated.streams import Streams
from pdsynth.cohorts.simulated.tissue import TISSUES
from pdsynth.data.preprocessing import Preprocessing
from pdsynth.data.standardise import standardise
from pdsynth.files import read_json, write_json
from pdsynth.imaging.intensity import brain_mask
from pdsynth.imaging.nifti import Volume
from pdsynth.imaging.spatial import Grid, resample
from pdsynth.types import Diagnosis, Modality

LABELS = np.array([0, 24, 3, 2], np.int16)  # of background, fluid, grey and white matter, by FreeSurfer
ANATOMY_MM, PURE, WEAK_COIL = 2.0, 0.95, 0.15
FLUID_MM = 30.0  # farther from white matter than any cortex, and from the brain than any fluid
# FWHM of the point spread besides the voxel's, with which the simulated scans are as sharp as the real ones.
PSF_MM = {Modality.FMRI: 1.2, Modality.DMRI: 3.0}
HEIGHTS = (0.4, 0.55, 0.7)  # of the planes, as shares of the brain's extent
TSNR, SNR = 85.0, 25.0
NAMES = {Modality.FMRI: "BOLD", Modality.DMRI: "DWI"}
SEED = 0


def as_mapped() -> None:
    """Simulate the person of a map, not a relative, with the fluid that the map has and no other."""
    anatomy_module.VELOCITY_RMS_MM = anatomy_module.LOCAL_RMS_MM = 0.0
    anatomy_module.THICKNESS_MM = anatomy_module.RIM_MM = (FLUID_MM, FLUID_MM)


def t1w_and_labels(folder: Path) -> tuple[Path, Path]:
    """The T1-weighted image and the tissue map of the folder's only participant."""
    found = [sorted(folder.glob(f"derivatives/*/sub-*/anat/*_{suffix}.nii.gz")) for suffix in ("T1w", "dseg")]
    if [len(paths) for paths in found] != [1, 1]:
        raise SystemExit(f"{folder}: needs one derivatives/*/sub-*/anat/*_T1w.nii.gz and one *_dseg.nii.gz")
    return found[0][0], found[1][0]


def image_of(volume: Volume, path: Path) -> Any:
    """The volume as an ANTs image, by way of a file."""
    nib.save(nib.Nifti1Image(volume.data, volume.affine), path)
    return ants.image_read(str(path))


def registered(moving: Volume, fixed: Volume, work: Path) -> dict[str, Any]:
    """ANTs' transforms of a rigid registration and a smooth warp, by mutual information."""
    images = image_of(fixed, work / "fixed.nii.gz"), image_of(moving, work / "moving.nii.gz")
    rigid = ants.registration(*images, "Rigid", aff_metric="mattes", random_seed=1)
    warp = {"syn_metric": "mattes", "syn_sampling": 32, "flow_sigma": 4, "total_sigma": 1, "grad_step": 0.2}
    start = rigid["fwdtransforms"][0]
    return ants.registration(
        *images, "SyNOnly", initial_transform=start, reg_iterations=(40, 20, 10), random_seed=1, **warp
    )


def real_on_t1w(real: Volume, t1w: Volume, work: Path) -> Volume:
    """The brain of the real scan on the grid of the T1-weighted image."""
    kept = work / "on_t1w.nii.gz"
    if not kept.exists():
        work.mkdir(parents=True, exist_ok=True)
        stripped = Volume(real.data * brain_mask(real), real.affine)
        transforms = registered(t1w, stripped, work)["invtransforms"]
        images = image_of(t1w, work / "fixed.nii.gz"), image_of(real, work / "moving.nii.gz")
        moved = ants.apply_transforms(*images, transforms, whichtoinvert=[True, False], interpolator="linear")
        nib.save(nib.Nifti1Image(moved.numpy().astype(np.float32), t1w.affine), kept)
    return Volume(nib.load(kept).get_fdata(dtype=np.float32), t1w.affine)


def simulated(
    head: Head | None, protocols: tuple[FmriProtocol, DmriProtocol]
) -> tuple[Anatomy, dict[Modality, Volume]]:
    """The person's anatomy and the means of both scans, without distortion, on grids along the anatomy's axes."""
    person = Person(Diagnosis.NC, 74.0, "M", 0.0, 0.0, 0.0)
    anatomy = draw_anatomy(np.random.default_rng(SEED), person, ANATOMY_MM, head)
    exposures = []
    for protocol, psf_mm in zip(protocols, PSF_MM.values(), strict=True):
        native = native_grid(protocol.voxel_mm, 220, 160, np.array([0, -18.0, 6]), True)
        optics = Optics(Coil(WEAK_COIL, 25, (0, -12, 4)), (psf_mm,) * 3, 0.0)
        exposures.append(Exposure(native, np.eye(4), optics, TISSUES, 900))
    session = simulate_scans(Streams(SEED, 0), person, anatomy, Acquisition(*protocols, *exposures))
    dwi = session.dwi[..., session.bvals > 0].mean(-1, dtype=np.float32)
    return anatomy, {
        Modality.FMRI: Volume(session.bold.mean(-1, dtype=np.float32), exposures[0].native.affine),
        Modality.DMRI: Volume(dwi, exposures[1].native.affine),
    }


def protocols_of(scans: dict[Modality, Scan], real: dict[Modality, Volume]) -> tuple[FmriProtocol, DmriProtocol]:
    """The protocols of the sidecars and headers; the numbers of volumes are small, since only means are compared."""

    def ms(modality: Modality, name: str) -> float:
        return float(1000 * sidecar[modality][name])

    sidecar = {m: read_json(Path(str(scan.path).replace(".nii.gz", ".json"))) for m, scan in scans.items()}
    voxel = {m: tuple(float(edge) for edge in volume.spacing_mm) for m, volume in real.items()}
    f, d = Modality.FMRI, Modality.DMRI
    bval = float(np.loadtxt(scans[d].bval).max())
    flip = float(sidecar[f]["FlipAngle"])
    return (
        FmriProtocol(ms(f, "RepetitionTime"), ms(f, "EchoTime"), flip, voxel[f], 12, TSNR),
        DmriProtocol(ms(d, "RepetitionTime"), ms(d, "EchoTime"), voxel[d], bval, 1, 12, SNR),
    )


def picture(pairs: dict[Modality, tuple[np.ndarray, np.ndarray]], path: Path) -> None:
    """Per modality the simulated and the real scan on the same grid, in the same three axial planes of the brain."""
    figure, axes = plt.subplots(2, 6, figsize=(13.5, 5.2), facecolor="black")
    for row, (modality, volumes) in zip(axes, pairs.items(), strict=True):
        z = np.flatnonzero((volumes[1] > 0.3 * np.percentile(volumes[1], 99)).mean((0, 1)) > 0.05)
        for half, (name, data) in zip(
            (row[:3], row[3:]), zip(("SIMULATED", "real"), volumes, strict=True), strict=True
        ):
            for axis, share in zip(half, HEIGHTS, strict=True):
                plane = data[:, :, z[int(share * (len(z) - 1))]]
                axis.imshow(np.rot90(plane[::-1]), cmap="gray", vmin=0, vmax=np.percentile(data, 99.7))
                axis.axis("off")
            half[1].set_title(f"{NAMES[modality]}, {name}", color="white", fontsize=11)
    figure.tight_layout(pad=0.3)
    figure.savefig(path, dpi=75, facecolor="black")


def scores(simulated: Volume, real: np.ndarray, anatomy: Anatomy) -> dict[str, Any]:
    """The measures of the module's docstring for one modality; real is on the grid of the simulated scan."""
    spacing = simulated.spacing_mm
    grid = Grid.of(simulated)
    tissue = {name: resample(Volume(getattr(anatomy, name), anatomy.grid.affine), grid) for name in ("csf", "gm", "wm")}
    mask = (sum(tissue.values()) > 0.5) & (real > 0) & (simulated.data > 0)
    wide = [v / np.maximum(local(v, mask, 20, spacing), 1e-6) for v in (simulated.data, real)]
    found = detail.scores(simulated.data, real, mask, spacing)
    with_field = wide[0] * local(real, mask, 20, spacing)
    medians = {}
    for name, fraction in tissue.items():
        pure = mask & (fraction > PURE)
        medians[name] = {
            "simulated": round(float(np.median(wide[0][pure])), 3),
            "real": round(float(np.median(wide[1][pure])), 3),
            "voxels": int(pure.sum()),
        }
    return {
        "r": round(found["r"], 3),
        "r_detail": round(found["detail_r"], 3),
        "r_with_real_field": round(float(np.corrcoef(with_field[mask], real[mask])[0, 1]), 3),
        "sharpness": round(found["sharpness"], 2),
        "medians": medians,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, metavar="BIDS")
    parser.add_argument("work", type=Path)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "one_person.json")
    parser.add_argument("--picture", type=Path, default=Path("docs/images/one-person.png"))
    given = parser.parse_args()
    given.work.mkdir(parents=True, exist_ok=True)
    as_mapped()
    t1w_file, labels_file = t1w_and_labels(given.folder)
    labels, t1w = nib.load(labels_file), nib.load(t1w_file)
    head_file = given.work / "head.nii.gz"
    nib.save(nib.Nifti1Image(LABELS[np.asarray(labels.dataobj).astype(int)], labels.affine), head_file)
    head = read_head(head_file)
    session = next(session for _, session in bids(given.folder) if len(session.scans) == 2)
    real = {modality: standardise(scan, Preprocessing()).mean for modality, scan in session.scans.items()}
    protocols = protocols_of(session.scans, real)
    results: dict[str, dict[str, Any]] = {}
    shown: dict[Modality, tuple[np.ndarray, np.ndarray]] = {}
    anatomy, scans = simulated(head, protocols)
    for modality, scan in scans.items():
        on_t1w = real_on_t1w(real[modality], Volume(t1w.get_fdata(dtype=np.float32), t1w.affine), given.work / modality)
        here = resample(on_t1w, Grid.of(scan), head.to_person)
        results.setdefault("person", {})[modality.value] = scores(scan, here, anatomy)
        shown[modality] = (scan.data, here)
    anatomy, scans = simulated(None, protocols)
    for modality, scan in scans.items():
        work = given.work / f"template-{modality.value}"
        work.mkdir(exist_ok=True)
        stripped = [Volume(v.data * brain_mask(v), v.affine) for v in (real[modality], scan)]
        transforms = registered(*stripped, work)["fwdtransforms"]
        images = image_of(scan, work / "fixed.nii.gz"), image_of(real[modality], work / "moving.nii.gz")
        here = ants.apply_transforms(*images, transforms, interpolator="linear").numpy()
        results.setdefault("template", {})[modality.value] = scores(scan, here, anatomy)
    picture(shown, given.picture)
    about = {"date": date.today().isoformat(), "machine": platform.machine(), "data": "scans of one real volunteer"}
    write_json(given.out, about | results)
    for name, found in results.items():
        print(name, found, flush=True)


if __name__ == "__main__":
    main()
