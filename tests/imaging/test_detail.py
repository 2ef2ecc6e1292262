"""Detail of the source in a synthesised volume: exact for a linear relation, none for an unrelated source."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from pdsynth.imaging.detail import ESTIMATE_MM, source_detail
from pdsynth.imaging.nifti import Volume
from pdsynth.imaging.spatial import FWHM

SHAPE, EDGE_MM = (48, 48, 40), 2.0
AFFINE = np.diag([EDGE_MM, EDGE_MM, EDGE_MM, 1.0])


def texture(seed: int, sd: float = 0.3) -> np.ndarray:
    """A positive image of mean about 1 with structures of 4 to 10 mm."""
    generator = np.random.default_rng(seed)
    noise = sum(ndimage.gaussian_filter(generator.standard_normal(SHAPE), s) * s**1.5 for s in (1, 2, 4))
    return np.asarray(1 + sd * noise / noise.std(), np.float32).clip(0.1)


def smoothed(data: np.ndarray) -> Volume:
    sigma = ESTIMATE_MM / FWHM / EDGE_MM
    return Volume(ndimage.gaussian_filter(data, sigma).astype(np.float32), AFFINE)


BRAIN = np.zeros(SHAPE, bool)
BRAIN[6:-6, 6:-6, 6:-6] = True
DEEP = ndimage.binary_erosion(BRAIN, iterations=6)


@pytest.mark.parametrize("slope", [1.5, -0.8])
def test_a_target_that_is_linear_in_the_source_gets_its_detail_back(slope: float) -> None:
    """The sign of the contrast does not matter: fluid is bright in BOLD and dark in DWI."""
    source = texture(0, sd=0.6)  # far above LEAST_SD, which shrinks the slope
    target = 2 + slope * source
    estimate = smoothed(target)
    added, lost = source_detail(estimate, Volume(700 * source, AFFINE), BRAIN), target - estimate.data
    assert np.square(added - lost)[DEEP].mean() < 0.25 * np.square(lost[DEEP]).mean()
    assert np.corrcoef(added[DEEP], lost[DEEP])[0, 1] > 0.95


def test_an_unrelated_source_adds_little() -> None:
    target = texture(1)
    estimate = smoothed(target)
    added = source_detail(estimate, Volume(texture(2), AFFINE), BRAIN)
    lost = target - estimate.data
    assert added[DEEP].std() < 0.3 * lost[DEEP].std()


def test_the_unit_of_the_source_is_ignored_and_that_of_the_estimate_kept() -> None:
    source, estimate = texture(3), smoothed(texture(3))
    one = source_detail(estimate, Volume(source, AFFINE), BRAIN)
    other = source_detail(Volume(5 * estimate.data, AFFINE), Volume(0.01 * source, AFFINE), BRAIN)
    assert np.allclose(other, 5 * one, rtol=1e-4, atol=1e-6)


def test_nothing_is_added_outside_the_brain_or_from_a_flat_source() -> None:
    source, estimate = texture(4), smoothed(texture(4))
    found = source_detail(estimate, Volume(source, AFFINE), BRAIN)
    assert not found[~BRAIN].any() and found[BRAIN].any() and np.isfinite(found).all()
    assert not source_detail(estimate, Volume(np.ones(SHAPE, np.float32), AFFINE), BRAIN).any()
