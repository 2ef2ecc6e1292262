"""One simulated session in memory: the person, both 4D scans and their ground truth."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pdsynth.cohorts.simulated import acquisition as acquisitions
from pdsynth.cohorts.simulated import bold, diffusion, truth
from pdsynth.cohorts.simulated.acquisition import Acquisition, Exposure
from pdsynth.cohorts.simulated.anatomy import Anatomy, Person, draw_anatomy, draw_person
from pdsynth.cohorts.simulated.heads import read_head
from pdsynth.cohorts.simulated.scanner import View, dropout, rician
from pdsynth.cohorts.simulated.sites import SITES
from pdsynth.cohorts.simulated.sites import quick as quick_site
from pdsynth.cohorts.simulated.streams import (
    ACQUISITION,
    ANATOMY,
    DMRI_NOISE,
    DMRI_PRIVATE,
    FMRI_NOISE,
    FMRI_PRIVATE,
    FMRI_STATE,
    PERSON,
    Streams,
)
from pdsynth.types import Diagnosis

SPIN_ECHO_DROPOUT = 0.35  # dropout strength of a spin echo relative to a gradient echo


@dataclass(frozen=True)
class Session:
    """A simulated session.

    person, anatomy and acquisition: those from which it is simulated. bold (x, y, z, t) and dwi (x, y, z, n) are int16,
    each on its own grid. bvals (n,) are in s/mm^2 and bvecs (n, 3) in FSL's convention. fmri_oracle and dmri_oracle (x,
    y, z) are the expected means of the run and of the volumes with b > 0, given the anatomy that both scans share; the
    99.5th percentile in the brain is about 1. They are None if oracle_draws was 0.
    """

    person: Person
    anatomy: Anatomy
    acquisition: Acquisition
    bold: np.ndarray
    dwi: np.ndarray
    bvals: np.ndarray
    bvecs: np.ndarray
    fmri_oracle: np.ndarray | None
    dmri_oracle: np.ndarray | None


def simulate_session(
    seed: int,
    subject: int,
    diagnosis: Diagnosis,
    site: str,
    grid_mm: float,
    quick: bool,
    randomise: bool,
    oracle_draws: int,
    severity: float | None = None,
    head: Path | None = None,
) -> Session:
    """Simulate one session; the result depends on the arguments alone.

    subject is the number of the person in the cohort with this seed. site is one of "oasis", "adni" and "hospital".
    grid_mm sets the working grid, that of the anatomy, whose voxels are 0.75 * grid_mm. quick shortens the site's
    protocols; randomise replaces them by random ones. The oracles, the expected mean volumes given the anatomy that
    both scans share, are means over oracle_draws redraws of the fields that they do not share; 0 computes none.
    severity (0..1) replaces the random severity of the diagnosis; all other random draws are unchanged. head: file of
    the label map from which the person is simulated, instead of the template. Raises KeyError for an unknown site.
    """
    streams = Streams(seed, subject)
    person = draw_person(streams.generator(PERSON), diagnosis, severity)
    anatomy = draw_anatomy(streams.generator(ANATOMY), person, grid_mm, None if head is None else read_head(head))
    generator = streams.generator(ACQUISITION)
    if randomise:
        acquisition = acquisitions.randomised(generator, quick)
    else:
        acquisition = acquisitions.at_site(generator, quick_site(SITES[site]) if quick else SITES[site])
    return simulate_scans(streams, person, anatomy, acquisition, oracle_draws)


def simulate_scans(
    streams: Streams, person: Person, anatomy: Anatomy, acquisition: Acquisition, oracle_draws: int = 0
) -> Session:
    """Simulate both scans of a person with a given anatomy and acquisition.

    streams: the random generators of noise, fluctuations, and the fields that only one scan has. oracle_draws: as in
    `simulate_session`.
    """
    run, fmri_oracle = _fmri(streams, person, anatomy, acquisition, oracle_draws)
    dwi, bvals, bvecs, dmri_oracle = _dmri(streams, person, anatomy, acquisition, oracle_draws)
    return Session(person, anatomy, acquisition, run, dwi, bvals, bvecs, fmri_oracle, dmri_oracle)


def _fmri(
    streams: Streams, person: Person, anatomy: Anatomy, acquisition: Acquisition, draws: int
) -> tuple[np.ndarray, np.ndarray | None]:
    protocol, exposure = acquisition.fmri_protocol, acquisition.fmri
    view = View(anatomy, exposure.native, exposure.to_template, exposure.optics)
    steady = dropout(anatomy, protocol.t_e, exposure.optics.dropout)
    private = streams.generator(FMRI_PRIVATE)
    signal = bold.mean_signal(anatomy, private, protocol, exposure.tissues, exposure.optics, steady)
    still = view.image(signal[None])[0]
    sigma = bold.thermal_sigma(still, view, anatomy, protocol.tsnr)
    run = bold.scan(
        anatomy, view, still, protocol, streams.generator(FMRI_STATE), streams.generator(FMRI_NOISE), person.severity,
        sigma,
    )  # fmt: skip
    oracle = truth.fmri_oracle(streams, anatomy, acquisition, view, steady, sigma, draws) if draws else None
    return _stored(run, still, exposure), oracle


def _dmri(
    streams: Streams, person: Person, anatomy: Anatomy, acquisition: Acquisition, draws: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray | None]:
    protocol, exposure = acquisition.dmri_protocol, acquisition.dmri
    view = View(anatomy, exposure.native, exposure.to_template, exposure.optics)
    micro = diffusion.microstructure(anatomy, person, streams.generator(DMRI_PRIVATE), exposure.optics)
    parts = diffusion.b0_parts(anatomy, protocol, exposure.tissues, exposure.optics.scalp)
    steady = dropout(anatomy, protocol.t_e, SPIN_ECHO_DROPOUT * exposure.optics.dropout)
    parts = {name: part * steady for name, part in parts.items()}
    bvals = np.array([0.0] * protocol.b0_volumes + [protocol.bval] * protocol.directions)
    bvecs = np.concatenate([np.zeros((protocol.b0_volumes, 3)), diffusion.directions(protocol.directions)])
    to_scan = np.linalg.inv(exposure.to_template[:3, :3])
    to_scan /= np.cbrt(np.linalg.det(to_scan))
    images = diffusion.weighted_images(anatomy, micro, parts, bvals, bvecs, to_scan, exposure.tissues)
    noise_free = view.image(images)
    wm = view.fractions(anatomy.wm[None])[0]
    level = float(np.median(noise_free[0][wm > 0.7])) if (wm > 0.7).any() else float(noise_free[0].max()) / 2
    sigma = level / protocol.snr
    noisy = rician(streams.generator(DMRI_NOISE), noise_free, sigma)
    oracle = None
    if draws:
        own_mean = images[bvals > 0].mean(0)
        oracle = truth.dmri_oracle(streams, anatomy, person, acquisition, view, parts, micro, own_mean, sigma, draws)
    return _stored(np.moveaxis(noisy, 0, -1), noise_free[0], exposure), bvals, bvecs * [-1, 1, 1], oracle


def _stored(signal: np.ndarray, reference: np.ndarray, exposure: Exposure) -> np.ndarray:
    """The signal as int16, scaled so that the 98th percentile of the reference becomes twice the site's scale.

    reference (x, y, z) is a volume without noise. The scale is reduced where values would exceed the range of int16.
    """
    factor = 2 * exposure.scale / max(float(np.percentile(reference, 98)), 1e-9)
    factor = min(factor, 32000 / max(float(signal.max()), 1e-9))  # below saturation
    return np.rint(signal * np.float32(factor)).astype(np.int16)


def means(session: Session) -> tuple[np.ndarray, np.ndarray]:
    """Mean of the BOLD run, and mean of the dMRI volumes with b > 0: (x, y, z) float32 each, on their own grids.

    The units are those of the stored integers.
    """
    return session.bold.mean(-1, dtype=np.float32), session.dwi[..., session.bvals > 0].mean(-1, dtype=np.float32)
