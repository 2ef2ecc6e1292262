"""Relaxation and diffusion constants of the tissues at 3T, and the two signal equations."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from scipy import special


@dataclass(frozen=True)
class Tissue:
    """T1, T2, T2* in ms; proton density relative to water; isotropic diffusivity in mm^2/s."""

    t1: float
    t2: float
    t2_star: float
    density: float
    diffusivity: float = 0.0


# 3T values as specified, except that white matter's density (specified .71), T2 (70 ms) and T2* (46 ms) were fitted by
# hand to one real BOLD and DWI pair, where white matter is darker than they give. One possible cause, not tested, is
# magnetisation transfer, which is not simulated. Fat is suppressed (its density here is what is left of it).
Tissues = dict[str, Tissue]
TISSUES: Tissues = {
    "gm": Tissue(1400, 85, 50, 0.84, 0.8e-3),
    "wm": Tissue(850, 74, 45, 0.63),
    "csf": Tissue(2800, 1200, 500, 1.0, 3.0e-3),
    "scalp": Tissue(1200, 50, 25, 0.55, 1.2e-3),
    "fat": Tissue(350, 60, 30, 0.12, 0.05e-3),
    "eye": Tissue(4000, 1000, 45, 1.0, 2.8e-3),
}

PARALLEL = 1.85e-3  # diffusivity along fibres, mm^2/s; set so that a tensor fit at b 1000 finds an MD of .71e-3
STATIC_FRACTION = 0.35  # of grey matter whose diffusion is slow: real b2500 grey matter is brighter than exp(-b D)
STATIC_RATIO = 0.4  # its diffusivity relative to the tissue's mean


def varied(generator: np.random.Generator, spread: float) -> Tissues:
    """The tissues with every constant scaled by 1 +- spread, uniformly and independently."""

    def draw(value: float) -> float:
        return float(value * generator.uniform(1 - spread, 1 + spread))

    return {
        name: replace(t, t1=draw(t.t1), t2=draw(t.t2), t2_star=draw(t.t2_star), density=draw(t.density))
        for name, t in TISSUES.items()
    }


def gradient_echo(tissue: Tissue, t_r: float, t_e: float, flip_deg: float) -> float:
    """Spoiled steady state (Ernst): PD sin(a) (1 - E1) / (1 - cos(a) E1) exp(-TE / T2*). Times in ms.

    >>> round(gradient_echo(Tissue(1000, 80, 50, 1.0), 1e9, 0, 90), 6)
    1.0
    """
    e1 = np.exp(-t_r / tissue.t1)
    alpha = np.deg2rad(flip_deg)
    steady = np.sin(alpha) * (1 - e1) / (1 - np.cos(alpha) * e1)
    return float(tissue.density * steady * np.exp(-t_e / tissue.t2_star))


def spin_echo(tissue: Tissue, t_r: float, t_e: float) -> float:
    """Spin echo without diffusion weighting: PD (1 - exp(-TR / T1)) exp(-TE / T2). Times in ms."""
    return float(tissue.density * (1 - np.exp(-t_r / tissue.t1)) * np.exp(-t_e / tissue.t2))


def slow_and_fast(diffusivity: np.ndarray | float) -> tuple[np.ndarray | float, np.ndarray | float]:
    """Diffusivities of grey matter's two isotropic pools, whose weighted mean is `diffusivity`."""
    slow = STATIC_RATIO * diffusivity
    return slow, (diffusivity - STATIC_FRACTION * slow) / (1 - STATIC_FRACTION)


def grey_matter_decay(bval: float, diffusivity: np.ndarray | float) -> np.ndarray:
    """Signal of grey matter relative to b = 0."""
    slow, fast = slow_and_fast(diffusivity)
    return np.asarray(STATIC_FRACTION * np.exp(-bval * slow) + (1 - STATIC_FRACTION) * np.exp(-bval * fast), np.float32)


def white_matter_decay(bval: float, fraction: np.ndarray, cosine_squared: np.ndarray) -> np.ndarray:
    """Signal of one fibre relative to b = 0: a stick and a tensor (SIMULATED_COHORT, "DWI").

    fraction f and cosine_squared c broadcast: f exp(-b dpar c) + (1 - f) exp(-b (dperp + (dpar - dperp) c)) with
    dperp = dpar (1 - f).
    """
    along = bval * PARALLEL * cosine_squared
    across = bval * PARALLEL * (1 - fraction)
    return fraction * np.exp(-along) + (1 - fraction) * np.exp(-across - fraction * along)


def white_matter_powder(bval: float, fraction: np.ndarray) -> np.ndarray:
    """`white_matter_decay` averaged over all directions: sqrt(pi) / 2 erf(sqrt(k)) / sqrt(k) an axial compartment."""

    def axial(k: np.ndarray | np.floating) -> np.ndarray:
        root = np.sqrt(np.maximum(k, 1e-9))
        return np.asarray(np.sqrt(np.pi) / 2 * special.erf(root) / root)

    stick = axial(np.float32(bval * PARALLEL))
    tensor = np.exp(-bval * PARALLEL * (1 - fraction)) * axial(bval * PARALLEL * fraction)
    return np.asarray(fraction * stick + (1 - fraction) * tensor, np.float32)
