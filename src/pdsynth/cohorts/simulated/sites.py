"""The three scanner sites with the protocols of the paper's Table I, and the severity and age of the groups."""

from __future__ import annotations

from dataclasses import dataclass, replace

from pdsynth.types import Diagnosis


@dataclass(frozen=True)
class FmriProtocol:
    """Gradient-echo EPI of a resting-state run. Times in ms, voxel edges in mm (in plane, in plane, slice).

    t_r, t_e: repetition and echo time. flip_deg: flip angle in degrees. volumes: number of volumes. tsnr: temporal SNR
    (mean over SD) of grey matter by receiver noise alone.
    """

    t_r: float
    t_e: float
    flip_deg: float
    voxel_mm: tuple[float, float, float]
    volumes: int
    tsnr: float  # temporal SNR of grey matter


@dataclass(frozen=True)
class DmriProtocol:
    """Diffusion-weighted spin-echo EPI. Times in ms, voxel edges in mm (in plane, in plane, slice), b in s/mm^2.

    t_r, t_e: repetition and echo time. b0_volumes, directions: number of volumes with b = 0, and of those with b =
    bval, one per direction. snr: that of white matter in one b0 volume.
    """

    t_r: float
    t_e: float
    voxel_mm: tuple[float, float, float]
    bval: float
    b0_volumes: int
    directions: int
    snr: float  # of white matter in one b0 volume


@dataclass(frozen=True)
class Site:
    """A scanner with its two protocols. coil_strength is 0 for a fully normalised image, and 1 for the raw coil array.

    psf_mm is the FWHM of the point spread in addition to the voxel's. shift_mm is the distortion of the fMRI along the
    phase axis for a field of one unit; that of the dMRI is 0.8 times as large. scale is the approximate grey-matter
    signal in stored units, those of the integers on disk.
    """

    name: str
    fmri: FmriProtocol
    dmri: DmriProtocol
    coil_strength: float
    psf_mm: float  # FWHM of the point spread in addition to the voxel's
    shift_mm: float  # distortion for a field of one unit
    scale: float


SITES = {
    "oasis": Site(
        "oasis",
        FmriProtocol(2200, 27, 90, (4.0, 4.0, 4.0), 164, 70),
        DmriProtocol(14500, 112, (4.0, 4.0, 4.0), 1000, 2, 24, 18),
        coil_strength=0.8, psf_mm=2.0, shift_mm=14, scale=900,
    ),
    "adni": Site(
        "adni",
        FmriProtocol(3000, 30, 80, (3.3, 3.3, 3.3), 140, 85),
        DmriProtocol(9050, 68, (3.3, 3.3, 3.3), 1000, 5, 41, 25),
        coil_strength=0.4, psf_mm=1.5, shift_mm=10, scale=600,
    ),
    "hospital": Site(
        "hospital",
        FmriProtocol(2000, 30, 90, (4.5, 4.5, 4.5), 180, 60),
        DmriProtocol(6800, 93, (4.5, 4.5, 4.5), 1000, 1, 30, 16),
        coil_strength=0.6, psf_mm=2.0, shift_mm=17, scale=1500,
    ),
}  # fmt: skip

# Entries of Table I that are impossible as scan parameters, each with the value that the simulation uses.
PAPER_SLIPS = [
    {"site": "adni", "field": "dMRI echo time (ms)", "paper_value": 3, "used_value": 68},
    {"site": "oasis", "field": "phase field of view", "paper_value": "per cent, in mm", "used_value": "240 mm"},
]

SEVERITY = {Diagnosis.NC: (0.10, 0.06), Diagnosis.MCI: (0.45, 0.16), Diagnosis.AD: (0.85, 0.12)}  # mean, SD
AGE_YEARS = (74.0, 6.0)  # mean, SD


def site_name(style: str) -> str:
    """The name of a site in a cohort, by its style, a key of `SITES`; it says that no scan is from such a site.

    >>> site_name("adni")
    'adni-like'
    """
    return f"{style}-like"


def quick(site: Site, volumes: int = 12, directions: int = 12) -> Site:
    """The same site with few volumes and directions: about a tenth of the work for similar mean volumes.

    volumes, directions: the most that the fMRI and the dMRI have. The dMRI has one b0 volume.
    """
    return replace(
        site,
        fmri=replace(site.fmri, volumes=min(volumes, site.fmri.volumes)),
        dmri=replace(site.dmri, b0_volumes=1, directions=min(directions, site.dmri.directions)),
    )
