"""Diffusion-weighted images: two-compartment white matter along the bundles, grey matter, fluid and scalp."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pdsynth.cohorts.simulated.anatomy import Anatomy, Person
from pdsynth.cohorts.simulated.fields import random_field
from pdsynth.cohorts.simulated.scanner import Optics, coil_field
from pdsynth.cohorts.simulated.sites import DmriProtocol
from pdsynth.cohorts.simulated.tissue import (
    TISSUES,
    Tissues,
    grey_matter_decay,
    spin_echo,
    white_matter_decay,
    white_matter_powder,
)

FRACTION = 0.62  # intra-axonal fraction of the white-matter signal
FRACTION_SD, FRACTION_FWHM_MM = 0.06, 16.0
GREY_SD, GREY_FWHM_MM = 0.06, 16.0
IRON_T2 = 0.35  # share by which iron-rich nuclei shorten T2
LESION_T2 = 0.35  # increase of the logarithm of the b0 signal in a white-matter hyperintensity


@dataclass(frozen=True)
class Microstructure:
    """Maps (X, Y, Z) from which one dMRI scan is computed, on the grid of the simulated anatomy, not that of the scan.

    coil: receive sensitivity, with mean near 1 in the head. fraction: intra-axonal share of the white-matter signal,
    0.15 to 0.9. diffusivity: that of grey matter, in mm^2/s.
    """

    coil: np.ndarray
    fraction: np.ndarray
    diffusivity: np.ndarray


def microstructure(anatomy: Anatomy, person: Person, private: np.random.Generator, optics: Optics) -> Microstructure:
    """Draw the maps of a dMRI scan: the values expected from anatomy, age and severity, with random fields.

    private draws these fields, which the fMRI of the session does not share, and the position of the head in the coil.
    optics gives the coil.
    """
    spread = random_field(private, anatomy.grid, FRACTION_FWHM_MM)[0]
    grey = random_field(private, anatomy.grid, GREY_FWHM_MM)[0]
    return Microstructure(
        coil=coil_field(private, anatomy.grid, optics, jitter=2.0),
        fraction=np.clip(expected_fraction(anatomy, person) + FRACTION_SD * spread, 0.15, 0.9),
        diffusivity=np.float32(expected_diffusivity(person)) * (1 + np.float32(GREY_SD) * grey),
    )


def expected_fraction(anatomy: Anatomy, person: Person) -> np.ndarray:
    """Intra-axonal fraction of the white-matter signal that age, severity and lesions predict, (X, Y, Z)."""
    loss = 0.22 * person.severity * anatomy.vulnerable + 0.25 * anatomy.lesion
    return np.asarray(FRACTION - 0.02 * person.decades - loss, np.float32)


def expected_diffusivity(person: Person) -> float:
    """Diffusivity of grey matter that the severity predicts, in mm^2/s."""
    return TISSUES["gm"].diffusivity * (1 + 0.10 * person.severity)


def b0_parts(anatomy: Anatomy, protocol: DmriProtocol, tissues: Tissues, scalp: float) -> dict[str, np.ndarray]:
    """Signal of every tissue without diffusion weighting and coil sensitivity: name -> (X, Y, Z).

    The names are gm, wm, csf, scalp, fat and eye. The signal is relative to that of fully relaxed water. protocol and
    tissues give the times and MR constants. scalp scales the signal of scalp, fat and eye; with 0 they are left out.
    """
    level = {name: spin_echo(t, protocol.t_r, protocol.t_e) for name, t in tissues.items()}
    iron = np.exp(-protocol.t_e / tissues["gm"].t2 * IRON_T2 / (1 - IRON_T2) * anatomy.iron)
    parts = {
        "gm": level["gm"] * anatomy.gm * iron,
        "wm": level["wm"] * anatomy.wm * iron * np.exp(LESION_T2 * anatomy.lesion),
        "csf": level["csf"] * anatomy.csf,
    }
    if scalp:
        parts |= {name: scalp * level[name] * getattr(anatomy, name) for name in ("scalp", "fat", "eye")}
    return parts


def weighted_images(
    anatomy: Anatomy,
    micro: Microstructure,
    parts: dict[str, np.ndarray],
    bvals: np.ndarray,
    bvecs: np.ndarray,
    to_scan: np.ndarray,
    tissues: Tissues,
) -> np.ndarray:
    """Noise-free images of n gradients on the working grid, (n, X, Y, Z), with the coil sensitivity.

    micro: maps of the scan. parts: signal of each tissue without diffusion weighting and coil, by name, from
    `b0_parts`. tissues: the MR constants. bvals (n,) are in s/mm^2. bvecs (n, 3) are unit vectors in the scan's world,
    or zero; to_scan (3, 3) rotates the template's axes into that world.
    """  # fmt: skip
    white_matter = np.flatnonzero(parts["wm"].ravel() > 1e-4 * max(parts["wm"].max(), 1e-9))
    fraction = micro.fraction.ravel()[white_matter]
    wm = parts["wm"].ravel()[white_matter] * micro.coil.ravel()[white_matter]
    share = anatomy.share.ravel()[white_matter]
    fibres = np.einsum(
        "ij,pjn->pin", to_scan.astype(np.float32), anatomy.directions.reshape(2, 3, -1)[:, :, white_matter]
    )
    out = np.empty((len(bvals), *anatomy.grid.shape), np.float32)
    isotropic_part: dict[float, np.ndarray] = {}
    for k, (bval, bvec) in enumerate(zip(bvals, bvecs, strict=True)):
        if bval not in isotropic_part:
            isotropic_part[bval] = isotropic(micro, parts, float(bval), tissues)
        out[k] = isotropic_part[bval]
        cosines = np.square(np.tensordot(bvec.astype(np.float32), fibres, axes=(0, 1)))
        decay = share * white_matter_decay(bval, fraction, cosines[0])
        decay += (1 - share) * white_matter_decay(bval, fraction, cosines[1])
        out[k].ravel()[white_matter] += wm * decay
    return out


def isotropic(micro: Microstructure, parts: dict[str, np.ndarray], bval: float, tissues: Tissues) -> np.ndarray:
    """Signal of all tissues except white matter at one b-value (s/mm^2), times the coil sensitivity: (X, Y, Z).

    micro: maps of the scan. parts: signal of each tissue without diffusion weighting and coil, by name, from
    `b0_parts`. tissues: the diffusivities.
    """
    signal = parts["gm"] * grey_matter_decay(bval, micro.diffusivity)
    for name in ("csf", "scalp", "fat", "eye"):
        if name in parts:
            signal = signal + parts[name] * np.float32(np.exp(-bval * tissues[name].diffusivity))
    return np.asarray(signal * micro.coil, np.float32)


def powder_image(micro: Microstructure, parts: dict[str, np.ndarray], bval: float, tissues: Tissues) -> np.ndarray:
    """Mean signal over all gradient directions at one b-value (s/mm^2), (X, Y, Z), in closed form.

    It includes the coil sensitivity. micro: maps of the scan. parts: signal of each tissue without diffusion weighting
    and coil, by name, from `b0_parts`. tissues: the diffusivities.
    """
    white_matter = np.flatnonzero(parts["wm"].ravel() > 1e-4 * max(parts["wm"].max(), 1e-9))
    out = isotropic(micro, parts, bval, tissues)
    wm = parts["wm"].ravel()[white_matter] * micro.coil.ravel()[white_matter]
    out.ravel()[white_matter] += wm * white_matter_powder(bval, micro.fraction.ravel()[white_matter])
    return out


def directions(n: int) -> np.ndarray:
    """n unit vectors spread over a half sphere, (n, 3): for n = 6 those of an icosahedron, else a Fibonacci spiral."""
    if n == 6:
        golden = (1 + np.sqrt(5)) / 2
        three = np.array([(0, 1, golden), (1, golden, 0), (golden, 0, 1)])
        six = np.concatenate([three, three * [(1, -1, 1), (-1, 1, 1), (1, 1, -1)]])
        return np.asarray(six / np.linalg.norm(six, axis=1, keepdims=True))
    z = 1 - (np.arange(n) + 0.5) / n
    longitude = np.pi * (3 - np.sqrt(5)) * np.arange(n)
    ring = np.sqrt(1 - z**2)
    return np.stack([ring * np.cos(longitude), ring * np.sin(longitude), z], axis=1)
