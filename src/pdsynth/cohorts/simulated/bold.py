"""BOLD scans: the gradient-echo image, the fields that are private to it, and its fluctuations over time."""

from __future__ import annotations

import numpy as np
from scipy import ndimage
from scipy.spatial.transform import Rotation

from pdsynth.cohorts.simulated.anatomy import Anatomy
from pdsynth.cohorts.simulated.fields import random_field
from pdsynth.cohorts.simulated.priors import NETWORKS
from pdsynth.cohorts.simulated.scanner import Optics, View, coil_field, rician
from pdsynth.cohorts.simulated.sites import FmriProtocol
from pdsynth.cohorts.simulated.tissue import Tissues, gradient_echo

IRON_SD, IRON_FWHM_MM = 0.06, 18.0
VEIN_FWHM_MM, VEIN_DEPTH = 7.0, 0.35
IRON_T2_STAR = 0.45  # share by which iron-rich nuclei shorten T2*
FLUCTUATION = 0.008  # BOLD amplitude relative to the mean
BETWEEN, OPPOSED = 0.12, -0.25  # correlation between networks; default mode against dorsal attention
WITHIN = 0.55  # share of a region's variance that comes from its network
WITHIN_BY_SEVERITY = 0.25
CORNER_HZ, HIGH_PASS_HZ = 0.06, 0.008
CARDIAC_HZ, RESPIRATION_HZ = 1.1, 0.28
MOTION_MM, MOTION_DEG = 0.03, 0.03  # SD of the random walk of the head, per volume


def mean_signal(
    anatomy: Anatomy,
    private: np.random.Generator,
    protocol: FmriProtocol,
    tissues: Tissues,
    optics: Optics,
    steady: np.ndarray,
) -> np.ndarray:
    """Noise-free signal on the working grid, (X, Y, Z), relative to that of fully relaxed water.

    It includes the coil sensitivity. private draws the fields that the dMRI of the session does not share: iron, veins
    and the position of the head in the coil. protocol gives the times and the flip angle. steady (X, Y, Z) is the share
    of the signal that remains after `dropout`, which is the same for every draw of private. tissues holds the MR
    constants by tissue; optics holds the coil and the scale of the scalp's signal.
    """
    iron = IRON_SD * random_field(private, anatomy.grid, IRON_FWHM_MM)[0]
    veins = np.clip(random_field(private, anatomy.grid, VEIN_FWHM_MM)[0] - 1.2, 0, 1) * VEIN_DEPTH
    coil = coil_field(private, anatomy.grid, optics, jitter=2.0)
    level = {k: gradient_echo(t, protocol.t_r, protocol.t_e, protocol.flip_deg) for k, t in tissues.items()}
    rate = protocol.t_e / tissues["gm"].t2_star
    decay = np.exp(-rate * (iron + IRON_T2_STAR / (1 - IRON_T2_STAR) * anatomy.iron))
    signal = (level["gm"] * anatomy.gm * (1 - veins) + level["wm"] * anatomy.wm) * decay
    signal += level["csf"] * anatomy.csf
    signal *= 1 - anatomy.rim_loss
    if optics.scalp:
        signal += optics.scalp * (
            level["scalp"] * anatomy.scalp + level["fat"] * anatomy.fat + level["eye"] * anatomy.eye
        )
    return np.asarray(signal * steady * coil, np.float32)


def scan(
    anatomy: Anatomy,
    view: View,
    still: np.ndarray,
    protocol: FmriProtocol,
    state: np.random.Generator,
    noise: np.random.Generator,
    severity: float,
    sigma: float,
) -> np.ndarray:
    """The 4D run (x, y, z, volumes) float32, from the image without motion or noise, still (x, y, z).

    view maps the maps of the anatomy to the voxels of the scan. protocol gives the repetition time and the number of
    volumes. state draws networks, physiology, drift and motion; noise draws the receiver noise of SD sigma, in units of
    still. severity (0..1) strengthens the coupling within networks.
    """
    t_r, n = protocol.t_r / 1000, protocol.volumes
    gm, csf = view.fractions(np.stack([anatomy.gm, anatomy.csf]))
    brain = np.flatnonzero((gm + csf).ravel() > 0.05)
    labels = _native_labels(anatomy, view).ravel()[brain]
    courses = region_courses(state, anatomy.region_network, n, t_r, severity)
    relative_change = FLUCTUATION * gm.ravel()[brain, None] * courses[labels]
    time = np.arange(n) * t_r
    cardiac = np.sin(2 * np.pi * CARDIAC_HZ * time + state.uniform(0, 6.3)).astype(np.float32)
    breath = np.sin(2 * np.pi * RESPIRATION_HZ * time + state.uniform(0, 6.3)).astype(np.float32)
    relative_change += 0.01 * csf.ravel()[brain, None] * cardiac + 0.003 * breath
    ramp = np.linspace(-1, 1, n, dtype=np.float32)
    relative_change += 0.004 * state.normal() * ramp + 0.003 * state.normal() * (ramp**2 - 1 / 3)
    motion = np.cumsum(state.normal(0, 1, (n, 6)), axis=0) * ([MOTION_DEG] * 3 + [MOTION_MM] * 3)
    out = np.empty((*still.shape, n), np.float32)
    for k in range(n):
        volume = still.copy()
        volume.ravel()[brain] *= 1 + relative_change[:, k]
        out[..., k] = rician(noise, apply_motion(volume, motion[k], view.native.spacing_mm), sigma)
    return out


def apply_motion(volume: np.ndarray, motion: np.ndarray, spacing_mm: np.ndarray) -> np.ndarray:
    """The volume (x, y, z), resampled after a rigid motion about the centre of its grid, float32.

    motion (6,): rotations about the axes x, y and z in degrees, then shifts along them in mm. The result at a position
    is the volume at the moved position; beyond the grid, the value at its edge. spacing_mm (3,): edges of a voxel.
    """
    rotation = Rotation.from_euler("xyz", motion[:3], degrees=True).as_matrix()
    matrix = rotation * spacing_mm / spacing_mm[:, None]
    centre = (np.asarray(volume.shape) - 1) / 2
    offset = centre - matrix @ centre + motion[3:] / spacing_mm
    return np.asarray(ndimage.affine_transform(volume, matrix, offset, order=1, mode="nearest", output=np.float32))


def region_courses(
    generator: np.random.Generator, network: np.ndarray, n: int, t_r: float, severity: float
) -> np.ndarray:
    """Time courses with an expected variance of 1, (1 + regions, n) float32.

    Row 0 stands for voxels without a region and is zero; row 1 + i is that of region i. network: index in NETWORKS of
    each region. n: number of samples, 2 or more. t_r: time between two samples in seconds. severity: 0..1. The course
    of a region is a weighted sum of its network's course and an independent one. The weight of the network grows with
    severity in all networks, as the paper that this package reproduces says of AD.
    """
    k = len(NETWORKS)
    correlation = np.full((k, k), BETWEEN) + (1 - BETWEEN) * np.eye(k)
    default, attention = NETWORKS.index("DefaultMode"), NETWORKS.index("DorsalAttention")
    correlation[default, attention] = correlation[attention, default] = OPPOSED
    networks = np.linalg.cholesky(correlation) @ slow_noise(generator, k, n, t_r)
    share = np.full(len(network), np.clip(WITHIN + WITHIN_BY_SEVERITY * severity, 0, 1))
    independent = slow_noise(generator, len(network), n, t_r)
    courses = np.sqrt(share)[:, None] * networks[network] + np.sqrt(1 - share)[:, None] * independent
    return np.concatenate([np.zeros((1, n)), courses]).astype(np.float32)


def slow_noise(generator: np.random.Generator, rows: int, n: int, t_r: float) -> np.ndarray:
    """Gaussian noise (rows, n) with a Lorentzian power spectrum (corner 0.06 Hz) and an expected variance of 1.

    Frequencies below 0.008 Hz are left out, so that the mean over time is 0. n: number of samples, 2 or more. t_r: the
    time between two of them, in seconds.
    """
    frequency = np.fft.rfftfreq(n, t_r)
    power = 1 / (1 + np.square(frequency / CORNER_HZ))
    power[frequency < HIGH_PASS_HZ] = 0
    weights = np.full(len(power), 2.0)
    weights[0] = 1
    if n % 2 == 0:
        weights[-1] = 1
    gain = np.sqrt(power * n / max((weights * power).sum(), 1e-9))
    return np.asarray(np.fft.irfft(np.fft.rfft(generator.standard_normal((rows, n))) * gain, n))


def _native_labels(anatomy: Anatomy, view: View) -> np.ndarray:
    """Region labels on the scan's voxels: the label of the working voxel with the largest interpolation weight."""
    heaviest = view.matrix.data.reshape(-1, 8).argmax(1)
    column = view.matrix.indices.reshape(-1, 8)[np.arange(len(heaviest)), heaviest]
    labels = np.zeros(int(np.prod(view.native.shape)), np.int16)
    labels[view.rows] = anatomy.regions.ravel()[column]
    return labels.reshape(view.native.shape)


def thermal_sigma(still: np.ndarray, view: View, anatomy: Anatomy, tsnr: float) -> float:
    """SD of the receiver noise with which grey matter has the temporal SNR (mean over SD) tsnr, in units of still.

    still (x, y, z) is the image without motion or noise, on the scan's voxels. The signal of grey matter is the median
    over voxels with more than 60 % of it, or half of the maximum if there are none.
    """
    gm = view.fractions(anatomy.gm[None])[0]
    return float(np.median(still[gm > 0.6])) / tsnr if (gm > 0.6).any() else float(still.max()) / tsnr / 2
