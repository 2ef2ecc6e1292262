"""Relaxation and diffusion constants of the tissues at 3 T, and the signal equations."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from scipy import special


@dataclass(frozen=True)
class Tissue:
    """MR constants of a tissue: T1, T2, T2* in ms, proton density relative to water, diffusivity in mm^2/s."""

    t1: float
    t2: float
    t2_star: float
    density: float
    diffusivity: float = 0.0


# Values at 3 T from the literature, with two exceptions. The density (literature: .71), T2 (70 ms) and T2* (46 ms) of
# white matter were fitted by hand to the BOLD and DWI of one real person, where white matter is darker than those
# values give. A possible cause, which was not tested, is magnetisation transfer, which is not simulated. The T2 of grey
# matter (literature: 71 to 110 ms) was fitted to another person, who was simulated with the protocols of the person's
# own scans (benchmarks/one_person.py). Fat is suppressed: its density is low.
Tissues = dict[str, Tissue]
TISSUES: Tissues = {
    "gm": Tissue(1400, 78, 50, 0.84, 0.8e-3),
    "wm": Tissue(850, 74, 45, 0.63),
    "csf": Tissue(2800, 1200, 500, 1.0, 3.0e-3),
    "scalp": Tissue(1200, 50, 25, 0.55, 1.2e-3),
    "fat": Tissue(350, 60, 30, 0.12, 0.05e-3),
    "eye": Tissue(4000, 1000, 45, 1.0, 2.8e-3),
}

PARALLEL = 1.85e-3  # diffusivity along fibres, mm^2/s; a tensor fit at b 1000 then gives an MD of .71e-3
STATIC_FRACTION = 0.35  # fraction of grey matter with slow diffusion: at b 2500 it is brighter than exp(-b D)
STATIC_RATIO = 0.4  # diffusivity of the slow pool relative to the tissue's mean
FLUID_T2_STAR = 60.0, 400.0  # ms, in `varied`: pulsation and the tissue around shorten it in real scans


def varied(generator: np.random.Generator, spread: float) -> Tissues:
    """The tissues with T1, T2, T2* and density each multiplied by an independent factor, uniform in 1 +- spread.

    T2* of fluid is uniform in FLUID_T2_STAR instead. The diffusivities are unchanged.
    """

    def draw(value: float) -> float:
        return float(value * generator.uniform(1 - spread, 1 + spread))

    def t2_star(name: str, value: float) -> float:
        return float(generator.uniform(*FLUID_T2_STAR)) if name == "csf" else draw(value)

    return {
        name: replace(t, t1=draw(t.t1), t2=draw(t.t2), t2_star=t2_star(name, t.t2_star), density=draw(t.density))
        for name, t in TISSUES.items()
    }


def gradient_echo(tissue: Tissue, t_r: float, t_e: float, flip_deg: float) -> float:
    """Signal of a spoiled gradient echo in the steady state (Ernst), relative to that of fully relaxed water.

    PD sin(a) (1 - E1) / (1 - cos(a) E1) exp(-TE / T2*), with the density PD, the flip angle a (flip_deg, degrees), and
    E1 = exp(-TR / T1). The times TR (t_r) and TE (t_e) are in ms.

    >>> round(gradient_echo(Tissue(1000, 80, 50, 1.0), 1e9, 0, 90), 6)
    1.0
    """
    e1 = np.exp(-t_r / tissue.t1)
    alpha = np.deg2rad(flip_deg)
    steady = np.sin(alpha) * (1 - e1) / (1 - np.cos(alpha) * e1)
    return float(tissue.density * steady * np.exp(-t_e / tissue.t2_star))


def spin_echo(tissue: Tissue, t_r: float, t_e: float) -> float:
    """Spin-echo signal without diffusion weighting, relative to that of fully relaxed water.

    PD (1 - exp(-TR / T1)) exp(-TE / T2), with the density PD. The times TR (t_r) and TE (t_e) are in ms.
    """
    return float(tissue.density * (1 - np.exp(-t_r / tissue.t1)) * np.exp(-t_e / tissue.t2))


def slow_and_fast(diffusivity: np.ndarray | float) -> tuple[np.ndarray | float, np.ndarray | float]:
    """Diffusivities of the slow and the fast isotropic pool of grey matter, whose weighted mean is `diffusivity`.

    The slow pool has the weight 0.35, and 0.4 times `diffusivity`.
    """
    slow = STATIC_RATIO * diffusivity
    return slow, (diffusivity - STATIC_FRACTION * slow) / (1 - STATIC_FRACTION)


def grey_matter_decay(bval: float, diffusivity: np.ndarray | float) -> np.ndarray:
    """Signal of grey matter at bval (s/mm^2) relative to b = 0.

    It is the weighted sum of two exponentials, one for each pool of `slow_and_fast`. diffusivity (mm^2/s) is the
    weighted mean of the two pools.
    """
    slow, fast = slow_and_fast(diffusivity)
    return np.asarray(STATIC_FRACTION * np.exp(-bval * slow) + (1 - STATIC_FRACTION) * np.exp(-bval * fast), np.float32)


def white_matter_decay(bval: float, fraction: np.ndarray, cosine_squared: np.ndarray) -> np.ndarray:
    """Signal of one fibre at bval (s/mm^2) relative to b = 0: a stick and an axially symmetric tensor.

    With the intra-axonal fraction f and the squared cosine c of the angle between gradient and fibre, it is f exp(-b
    dpar c) + (1 - f) exp(-b (dperp + (dpar - dperp) c)), where dpar = PARALLEL (1.85e-3 mm^2/s) and dperp = dpar (1 -
    f).
    """
    along = bval * PARALLEL * cosine_squared
    across = bval * PARALLEL * (1 - fraction)
    return fraction * np.exp(-along) + (1 - fraction) * np.exp(-across - fraction * along)


def white_matter_powder(bval: float, fraction: np.ndarray) -> np.ndarray:
    """Mean of `white_matter_decay`, the signal of one fibre at bval (s/mm^2) relative to b = 0, over all directions.

    fraction is the intra-axonal fraction. A compartment (stick or tensor) whose exponent varies with the squared cosine
    by k contributes sqrt(pi) / 2 erf(sqrt(k)) / sqrt(k).
    """

    def axial(k: np.ndarray | np.floating) -> np.ndarray:
        root = np.sqrt(np.maximum(k, 1e-9))
        return np.asarray(np.sqrt(np.pi) / 2 * special.erf(root) / root)

    stick = axial(np.float32(bval * PARALLEL))
    tensor = np.exp(-bval * PARALLEL * (1 - fraction)) * axial(bval * PARALLEL * fraction)
    return np.asarray(fraction * stick + (1 - fraction) * tensor, np.float32)
