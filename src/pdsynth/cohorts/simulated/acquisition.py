"""The acquisition of one session: by the protocols of a site, or fully randomised (domain randomisation)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from pdsynth.cohorts.simulated.scanner import HEAD_CENTRE_MM, Coil, Optics, native_grid, pose
from pdsynth.cohorts.simulated.sites import DmriProtocol, FmriProtocol, Site
from pdsynth.cohorts.simulated.tissue import TISSUES, Tissues, varied
from pdsynth.imaging.spatial import Grid

Edges = tuple[float, float, float]  # of a voxel, in mm

POSE_DEG, POSE_MM, SCALE_SD = 1.7, 2.0, 0.03
BETWEEN_DEG, BETWEEN_MM = 0.6, 0.8  # the head moves between the two scans
SLAB_MM, FIELD_OF_VIEW_MM = 156.0, 240.0
SLAB_CENTRE_MM = np.array([0.0, -18.0, 6.0])
RELAXATION_SPREAD = 0.05
PSF_MM = (0.3, 2.5)  # FWHM besides that of a voxel; real scans are as sharp (benchmarks/realism.py)


@dataclass(frozen=True)
class Exposure:
    """Geometry and imperfections of one scan.

    native is the scan's voxel grid. to_template (4, 4) maps its world coordinates to the mm of the simulated anatomy,
    which are template mm unless the person is simulated from a real head. optics are the effects on the image: coil,
    distortion and blur. tissues are the MR constants by tissue. scale is the approximate grey-matter signal in stored
    units.
    """

    native: Grid
    to_template: np.ndarray
    optics: Optics
    tissues: Tissues
    scale: float


@dataclass(frozen=True)
class Acquisition:
    """How both scans of one session are acquired: protocol, geometry and imperfections of each.

    fmri and dmri are the geometry and imperfections.
    """

    fmri_protocol: FmriProtocol
    dmri_protocol: DmriProtocol
    fmri: Exposure
    dmri: Exposure


def at_site(generator: np.random.Generator, site: Site) -> Acquisition:
    """Draw the acquisition of one session with the site's protocols.

    The generator draws the person's pose, a small movement in each scan, and, for both scans together, the centre of
    the coil and the seed of a smooth sensitivity. Their phase-encoding blips are opposite, so that they are distorted
    in opposite directions.
    """
    head = pose(generator, POSE_DEG, POSE_MM, SCALE_SD)
    optics = Optics(
        coil=Coil(site.coil_strength, 25, (0.0, float(generator.normal(-12, 4)), float(generator.normal(4, 3)))),
        psf_mm=(site.psf_mm,) * 3,
        shift_mm=site.shift_mm,
        tilt_seed=int(generator.integers(2**31)),
    )
    exposures = []
    for voxel, sign, te_scale in ((site.fmri.voxel_mm, 1.0, 1.0), (site.dmri.voxel_mm, -1.0, 0.8)):
        to_template = np.linalg.inv(pose(generator, BETWEEN_DEG, BETWEEN_MM) @ head)
        native = native_grid(voxel, FIELD_OF_VIEW_MM, SLAB_MM, SLAB_CENTRE_MM, flip_x=True)
        scan_optics = replace(optics, shift_mm=sign * te_scale * optics.shift_mm)
        exposures.append(Exposure(native, to_template, scan_optics, TISSUES, site.scale))
    return Acquisition(site.fmri, site.dmri, *exposures)


def randomised(
    generator: np.random.Generator, quick: bool, voxel: Callable[[np.random.Generator, bool], Edges] | None = None
) -> Acquisition:
    """Draw the acquisition of one session: protocol, contrast, geometry and artefacts of each scan from wide ranges.

    quick: fewer volumes (8 instead of 40) and directions (6 instead of 30), and no voxel below 2.5 mm in plane. Pose,
    coil and smooth sensitivity are those of the session, with a movement and a strength of the coil for each scan. This
    is the idea of SynthSeg (Billot et al. 2023) with the signal equations of MRI. voxel(generator, quick), if given,
    draws the edges of a voxel in mm from other ranges.
    """
    g, draw_voxel = generator, voxel or _voxel
    head = pose(g, 5.0, 6.0, 0.06)
    fmri_protocol = FmriProtocol(
        t_r=float(g.uniform(600, 3200)),
        t_e=float(g.uniform(18, 42)),
        flip_deg=float(g.uniform(45, 95)),
        voxel_mm=draw_voxel(g, quick),
        volumes=8 if quick else 40,
        tsnr=float(g.uniform(25, 110)),
    )
    bval = g.uniform(800, 1200) if g.random() < 0.5 else np.exp(g.uniform(np.log(700), np.log(3000)))
    dmri_protocol = DmriProtocol(
        t_r=float(g.uniform(2500, 14500)),
        t_e=float(g.uniform(55, 115)),
        voxel_mm=draw_voxel(g, quick),
        bval=float(np.round(bval / 50) * 50),
        b0_volumes=1,
        directions=6 if quick else 30,
        snr=float(np.exp(g.uniform(np.log(12), np.log(60)))),
    )
    normalised = g.random() < 0.4
    strength = float(g.uniform(0, 0.3) if normalised else g.uniform(0.7, 2.0))
    centre = tuple(g.normal((0, -10, 4), (4, 8, 8)))
    scalp = float(g.uniform(0.3, 1.6)) if g.random() < 0.8 else 0.0
    shift = float(g.uniform(0, 16))
    tilt = float(g.uniform(0, 0.35))
    seed = int(g.integers(2**31))
    coil = Coil(
        strength,
        reach_mm=float(g.uniform(10, 35)),
        centre_mm=centre,
        elements=int(g.integers(20, 65)),
        size=float(g.uniform(0.8, 1.0)),
        lowest=float(g.uniform(-0.9, -0.5)),
    )
    optics = Optics(coil, (0, 0, 0), 0.0, scalp=scalp, tilt=tilt, tilt_seed=seed)
    exposures = []
    for protocol in (fmri_protocol, dmri_protocol):
        scan_optics = replace(
            optics,
            coil=replace(coil, strength=strength * float(g.uniform(0.7, 1.3))),
            psf_mm=tuple(g.uniform(*PSF_MM) * g.uniform(0.8, 1.25, 3)),
            shift_mm=shift * float(g.choice([-1, 1])) * float(g.uniform(0.6, 1.2)),
            dropout=float(g.uniform(0.4, 1.7)),
            ghost=float(g.uniform(0, 0.03)) if g.random() < 0.4 else 0.0,
        )
        to_template = np.linalg.inv(pose(g, 1.5, 2.0) @ head)
        exposures.append(
            Exposure(_geometry(g, protocol.voxel_mm, head), to_template, scan_optics, varied(g, RELAXATION_SPREAD),
                     float(np.exp(g.uniform(np.log(150), np.log(1500)))))
        )  # fmt: skip
    return Acquisition(fmri_protocol, dmri_protocol, *exposures)


def _voxel(g: np.random.Generator, quick: bool) -> Edges:
    """Draw voxel edges in mm: square in plane, with slices of at most 4.5 mm, .9 to 1.6 times as thick as the edge.

    Quick scans have at least 2.2 mm in plane, because small voxels cost time.
    """
    in_plane = float(np.round(g.uniform(2.2 if quick else 1.8, 3.6), 2))
    thick = float(np.round(min(in_plane * (1 if g.random() < 0.5 else g.uniform(0.9, 1.6)), 4.5), 2))
    return in_plane, in_plane, thick


def _geometry(g: np.random.Generator, voxel: tuple[float, float, float], head: np.ndarray) -> Grid:
    """Draw field of view and slab around the head; about one slab in seven cuts the brain at its top or bottom.

    voxel holds the edges in mm. head (4, 4) is the pose, from template mm to world mm.
    """
    centre = (head @ np.append(HEAD_CENTRE_MM, 1))[:3] + g.normal(0, 3, 3)
    slab = float(g.uniform(140, 170))
    if g.random() < 0.15:
        slab = float(g.uniform(100, 130))
        centre[2] += g.uniform(-15, 25)
    return native_grid(voxel, float(g.uniform(195, 245)), slab, centre, flip_x=bool(g.random() < 0.7))
