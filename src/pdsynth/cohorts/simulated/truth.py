"""Oracles of a simulated pair: the expected mean volume of one scan given the anatomy and protocols of the session.

The other scan contains no further information about it, so that no estimator from the other scan can have a smaller
expected squared error.
"""

from __future__ import annotations

import numpy as np

from pdsynth.cohorts.simulated import bold, diffusion
from pdsynth.cohorts.simulated.acquisition import Acquisition
from pdsynth.cohorts.simulated.anatomy import Anatomy, Person
from pdsynth.cohorts.simulated.scanner import View, rician_mean
from pdsynth.cohorts.simulated.streams import DMRI_PRIVATE, FMRI_PRIVATE, Streams


def fmri_oracle(
    streams: Streams,
    anatomy: Anatomy,
    acquisition: Acquisition,
    view: View,
    steady: np.ndarray,
    sigma: float,
    draws: int,
) -> np.ndarray:
    """The expected mean of the BOLD run, given the anatomy that dMRI shares: E[mean BOLD | shared anatomy].

    Returns (x, y, z) float32. It is the mean over `draws` (1 or more) redraws of the fields that are private to fMRI.
    Each redraw is scaled so that its 99.5th percentile in the brain is 1. view maps the working grid to the scan's
    voxels. steady (X, Y, Z) is the share of the signal that remains after dropout, and sigma the SD of the receiver
    noise.
    """
    protocol, exposure = acquisition.fmri_protocol, acquisition.fmri
    generators = [streams.generator(FMRI_PRIVATE, k) for k in range(1, draws + 1)]
    images = [bold.mean_signal(anatomy, g, protocol, exposure.tissues, exposure.optics, steady) for g in generators]
    return _mean_of_scaled(view, np.stack(images), anatomy, sigma)


def dmri_oracle(
    streams: Streams,
    anatomy: Anatomy,
    person: Person,
    acquisition: Acquisition,
    view: View,
    parts: dict[str, np.ndarray],
    own: diffusion.Microstructure,
    own_mean: np.ndarray,
    sigma: float,
    draws: int,
) -> np.ndarray:
    """The expected mean of b > 0, given the anatomy that fMRI shares: E[mean of b > 0 | shared anatomy].

    Returns (x, y, z) float32. It is the mean over `draws` (1 or more) redraws of the fields that are private to dMRI.
    Each redraw is scaled so that its 99.5th percentile in the brain is 1. view maps the working grid to the scan's
    voxels. sigma is the SD of the receiver noise. parts are the signals of the tissues at b = 0 (`b0_parts`) after
    dropout; own are the maps of the scan, and own_mean (X, Y, Z) is its noise-free mean over its directions, both on
    the working grid. Redraws use the closed-form mean over all directions. The mean over the few directions of the scan
    differs from it. The redraws are therefore multiplied by the ratio of own_mean to the closed-form mean, both for the
    scan's own maps.
    """
    exposure, bval = acquisition.dmri, acquisition.dmri_protocol.bval
    powder = diffusion.powder_image(own, parts, bval, exposure.tissues)
    ratio = own_mean / np.maximum(powder, 1e-6 * max(float(powder.max()), 1e-9))
    images = []
    for k in range(1, draws + 1):
        micro = diffusion.microstructure(anatomy, person, streams.generator(DMRI_PRIVATE, k), exposure.optics)
        images.append(ratio * diffusion.powder_image(micro, parts, bval, exposure.tissues))
    return _mean_of_scaled(view, np.stack(images), anatomy, sigma)


def _mean_of_scaled(view: View, images: np.ndarray, anatomy: Anatomy, sigma: float) -> np.ndarray:
    """Mean of the redraws after the scanner; each is scaled by its 99.5th percentile in the brain."""
    magnitudes = rician_mean(view.image(images), sigma)
    brain = view.fractions(anatomy.brain[None])[0] > 0.5
    scales = np.percentile(magnitudes[:, brain], 99.5, axis=1) if brain.any() else magnitudes.max((1, 2, 3))
    return np.asarray((magnitudes / scales[:, None, None, None]).mean(0), np.float32)
