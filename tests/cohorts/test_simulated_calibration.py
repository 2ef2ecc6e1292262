"""Simulated scans against what was measured on real ones.

Reference medians relative to grey matter and correlations: one volunteer, Siemens Prisma 3T, BOLD TR 1 s and DWI
b 2500 without vendor normalisation (neurolabusc/dcm_qa_xa30 @54a9f42, BSD-2-Clause); spectra of the same scans.
They are facts, so the files are needed by one test only. The simulation was tuned by hand on this one pair, so these
tests guard the tuning; they are no evidence on other scanners. The real classes came from a tensor fit, the simulated
ones from the true tissue, which is one reason for the wide tolerances.
"""

from __future__ import annotations

import itertools
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from scipy import ndimage

from pdsynth.cohorts.simulated import session as sessions
from pdsynth.cohorts.simulated.scanner import View
from pdsynth.cohorts.simulated.session import Session, means, simulate_session
from pdsynth.cohorts.simulated.sites import DmriProtocol, FmriProtocol, Site
from pdsynth.imaging.nifti import Volume
from pdsynth.imaging.spatial import Grid, resample
from pdsynth.types import Diagnosis

REAL = {"bold_wm": 0.85, "b0_wm": 0.78, "dwi_wm": 1.23, "dwi_csf": 0.07, "b0_csf": 1.48}
REAL_COPY = (0.42, 0.55)  # mean BOLD with mean b 2500: two measurements of the same pair with different brain masks
REAL_SPECTRUM = {
    "bold": [-1.15, -2.02, -2.55, -2.94],
    "b0": [-0.99, -1.77, -2.22, -2.58],
    "dwi": [-0.91, -1.66, -2.10, -2.47],
}
BANDS_PER_MM = (0.008, 0.02, 0.04, 0.06, 0.08, 0.10)
LIKE_REAL = Site(
    "like-real",
    FmriProtocol(1000, 30, 60, (3.38, 3.38, 3.4), 20, 60),
    DmriProtocol(3516, 68, (3.0, 3.0, 3.0), 2500, 1, 20, 45),
    coil_strength=1.4,
    psf_mm=2.0,
    shift_mm=16,
    scale=500,
)


@pytest.fixture(scope="module")
def pairs() -> list[Session]:
    patch = pytest.MonkeyPatch()
    patch.setitem(sessions.SITES, "like-real", LIKE_REAL)
    made = [
        simulate_session(5, i, Diagnosis.NC, "like-real", grid_mm=4.0, quick=False, randomise=False, oracle_draws=0)
        for i in range(3)
    ]
    patch.undo()
    return made


def classes(session: Session, fmri: bool) -> dict[str, np.ndarray]:
    exposure = session.acquisition.fmri if fmri else session.acquisition.dmri
    view = View(session.anatomy, exposure.native, exposure.to_template, exposure.optics)
    gm, wm, csf, brain = view.fractions(
        np.stack([session.anatomy.gm, session.anatomy.wm, session.anatomy.csf, session.anatomy.brain])
    )
    return {"gm": gm > 0.7, "wm": wm > 0.8, "csf": csf > 0.8, "brain": brain > 0.7}


def ratio(volume: np.ndarray, masks: dict[str, np.ndarray], name: str) -> float:
    return float(np.median(volume[masks[name]]) / np.median(volume[masks["gm"]]))


def test_tissue_contrast_is_that_of_real_scans(pairs: list[Session]) -> None:
    found: dict[str, list[float]] = {k: [] for k in REAL}
    for session in pairs:
        bold, dwi = means(session)
        b0 = session.dwi[..., 0].astype(np.float32)
        there, here = classes(session, fmri=True), classes(session, fmri=False)
        found["bold_wm"].append(ratio(bold, there, "wm"))
        found["b0_wm"].append(ratio(b0, here, "wm"))
        found["dwi_wm"].append(ratio(dwi, here, "wm"))
        found["dwi_csf"].append(ratio(dwi, here, "csf"))
        found["b0_csf"].append(ratio(b0, here, "csf"))
    median = {k: float(np.median(v)) for k, v in found.items()}
    for name, tolerance in {"bold_wm": 0.12, "b0_wm": 0.18, "dwi_wm": 0.22, "dwi_csf": 0.1, "b0_csf": 0.9}.items():
        assert median[name] == pytest.approx(REAL[name], abs=tolerance), (name, median)


def test_copying_the_source_has_the_error_of_real_scans(pairs: list[Session]) -> None:
    copies = []
    for session in pairs:
        bold, dwi = means(session)
        inside = classes(session, fmri=False)["brain"]
        grid = Grid(dwi.shape, session.acquisition.dmri.native.affine)
        there = resample(Volume(bold, session.acquisition.fmri.native.affine), grid)
        copies.append(np.corrcoef(there[inside], dwi[inside])[0, 1])
    assert REAL_COPY[0] - 0.1 < np.mean(copies) < REAL_COPY[1] + 0.1


def spectrum(volume: np.ndarray, spacing: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """log10 of mean power in bands of spatial frequency, relative to the lowest."""
    window = ndimage.gaussian_filter(ndimage.binary_erosion(mask).astype(np.float32), 1)
    shape = (96, 96, 64)
    power = np.square(np.abs(np.fft.fftn((volume - volume[mask].mean()) / volume[mask].std() * window, s=shape)))
    axes = np.meshgrid(*[np.fft.fftfreq(n, s) for n, s in zip(shape, spacing, strict=True)], indexing="ij")
    radius = np.sqrt(sum(np.square(a) for a in axes))
    bands = itertools.pairwise(BANDS_PER_MM)
    mean = np.array([power[(radius >= low) & (radius < high)].mean() for low, high in bands])
    return np.log10(mean / mean[0])[1:]


def test_spatial_spectrum_is_that_of_real_scans(pairs: list[Session]) -> None:
    for session in pairs:
        bold, dwi = means(session)
        volumes = {"bold": bold, "b0": session.dwi[..., 0].astype(np.float32), "dwi": dwi}
        for name, volume in volumes.items():
            fmri = name == "bold"
            native = (session.acquisition.fmri if fmri else session.acquisition.dmri).native
            ours = spectrum(volume, native.spacing_mm, classes(session, fmri)["brain"])
            np.testing.assert_allclose(ours, REAL_SPECTRUM[name], atol=0.5, err_msg=name)


def test_receive_field_and_tail_cover_the_real_volumes(real_data: Path) -> None:
    """The randomised intensity distribution brackets every real mean volume: its median relative to p99.5."""
    found = []
    for subject in range(16):
        made = simulate_session(
            9, subject, Diagnosis.NC, "adni", grid_mm=8.0, quick=True, randomise=True, oracle_draws=0
        )
        found.append([_median_level(volume) for volume in means(made)])
    low, high = np.min(found, axis=0), np.max(found, axis=0)
    real = {
        0: ["bids-real/sub-xa30/func/sub-xa30_task-fa_bold"],
        1: ["bids-real/sub-xa30/dwi/sub-xa30_dir-AP_dwi", "odd/dwi_toshiba"],
    }
    for column, names in real.items():
        for name in names:
            data = np.asanyarray(nib.load(real_data / f"{name}.nii.gz").dataobj).astype(np.float32)
            level = _median_level(data[..., 1:].mean(-1))
            assert low[column] < level < high[column], (name, level)


def _median_level(volume: np.ndarray) -> float:
    bright = volume > 0.4 * np.percentile(volume, 95)
    return float(np.median(volume[bright]) / np.percentile(volume[bright], 99.5))
