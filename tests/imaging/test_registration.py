import time

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from pdsynth.imaging.nifti import Volume
from pdsynth.imaging.registration import KNOTS, _hats, _Pair, register
from pdsynth.imaging.segments import segment_means
from pdsynth.imaging.spatial import Grid, mni_grid, resample
from pdsynth.imaging.template import epi_template, tissue_template

GRID = mni_grid(4.0)
CONTRASTS = {
    "like the template": {"gm": 1.0, "wm": 0.8, "csf": 1.3},
    "diffusion-weighted": {"gm": 1.0, "wm": 1.2, "csf": 0.1},
    "b0": {"gm": 1.0, "wm": 0.78, "csf": 1.6},
}


def known(seed, degrees, scale):
    """A map from the template's world to a scan's, about the brain's centre."""
    generator = np.random.default_rng(seed)
    matrix, centre = np.eye(4), np.array([0.0, -18, 8])
    rotation = Rotation.from_euler("xyz", generator.uniform(-degrees, degrees, 3), degrees=True).as_matrix()
    matrix[:3, :3] = rotation @ np.diag(generator.uniform(1 - scale, 1 + scale, 3))
    matrix[:3, 3] = centre + generator.uniform(-20, 20, 3) - matrix[:3, :3] @ centre
    return matrix


def scan(contrast, to_scan, seed=0, noise=0.05):
    """The template in another contrast, moved, noisy, on a left-handed 64 x 64 x 36 grid."""
    tissues = tissue_template(GRID)
    data = sum(weight * tissues[name] for name, weight in CONTRASTS[contrast].items())
    affine = np.diag([-3.375, 3.375, 3.4, 1])
    affine[:3, 3] = (107, -120, -55)
    moved = resample(Volume(data, GRID.affine), Grid((64, 64, 36), affine), to_scan)
    noisy = moved + noise * np.random.default_rng(seed).standard_normal(moved.shape)
    return Volume(np.abs(noisy), affine)


def errors_mm(found, to_scan):
    """Distance of brain points, taken to the scan by the truth and back by the result."""
    brain = np.argwhere(tissue_template(GRID)["brain"] > 0.5)
    points = np.column_stack([brain, np.ones(len(brain))]) @ GRID.affine.T
    return np.linalg.norm(points @ (found @ to_scan).T - points, axis=1)


@pytest.mark.parametrize("contrast", CONTRASTS)
@pytest.mark.parametrize(("kind", "scale"), [("rigid", 0.0), ("affine", 0.1)])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_known_transforms_are_found_within_half_a_voxel(contrast, kind, scale, seed):
    to_scan = known(seed, 20, scale)
    found = register(scan(contrast, to_scan), epi_template(GRID), kind)
    errors = errors_mm(found, to_scan)
    assert errors.mean() < 1.3
    assert errors.max() < 2.5
    if kind == "rigid":
        np.testing.assert_allclose(found[:3, :3] @ found[:3, :3].T, np.eye(3), atol=1e-9)


@pytest.mark.parametrize("value", [-3.0, -0.1, 0.02, 0.5, 0.97, 1.2, 9.0])
def test_the_curves_slope_is_its_derivative_where_it_bends_and_where_it_is_flat(value):
    knots, curve, step = np.linspace(0, 1, KNOTS), np.arange(KNOTS) ** 1.5, 1e-6
    slope = (_hats(np.array([value]), knots)[1] @ curve)[0]
    low, high = (_hats(np.array([v]), knots)[0] @ curve for v in (value - step, value + step))
    assert slope == pytest.approx((high - low)[0] / (2 * step), abs=1e-4)
    assert (slope == 0) == (not 0 <= value <= 1)


def test_the_gradient_is_the_costs_where_intensities_pass_the_last_knot():
    """On a ramp, whose samples and slopes are exact, a third of it brighter than the last knot."""
    generator = np.random.default_rng(0)
    ramp = np.broadcast_to(np.arange(30.0)[:, None, None], (30, 30, 30))
    points = np.column_stack([generator.uniform(5, 25, (500, 3)), np.ones(500)])
    values = np.sin(points[:, 0] / 3) + points[:, 0] / 10
    gradient = list(np.gradient(ramp))
    pair = _Pair(points, values, ramp, gradient, np.eye(4), np.zeros(3), np.eye(4), np.linspace(0, 18, KNOTS))
    start, step = np.array([0.37, *[0.0] * 11]), np.array([1e-5, *[0.0] * 11])
    low, high = (pair._linearise(start + sign * step, 6)[0] for sign in (-1, 1))
    found = 2 * pair._linearise(start, 6)[1][0]  # the steps minimise half of the squared error
    assert found == pytest.approx((high - low) / 2e-5, rel=0.01)


def test_start_is_used():
    to_scan = known(3, 5, 0.0)
    to_scan[:3, 3] += (0, 90, 0)  # the other half of the scan is out of view: masses would mislead
    moving = scan("b0", to_scan)
    start = np.linalg.inv(known(3, 5, 0.0)) @ np.linalg.inv(to_scan @ np.linalg.inv(known(3, 5, 0.0)))
    found = register(moving, epi_template(GRID), "rigid", start=start)
    assert errors_mm(found, to_scan).mean() < 2


def test_same_input_gives_the_same_bits_and_takes_little_time():
    to_scan = known(0, 10, 0.05)
    moving = scan("b0", to_scan)
    start = time.process_time()
    first = register(moving, epi_template(GRID), "affine")
    seconds = time.process_time() - start
    np.testing.assert_array_equal(first, register(moving, epi_template(GRID), "affine"))
    assert seconds < 2.5


def test_bad_arguments_are_refused():
    template = epi_template(GRID)
    with pytest.raises(ValueError, match="not 'elastic'"):
        register(template, template, "elastic")
    with pytest.raises(ValueError, match="constant"):
        register(Volume(np.ones((8, 8, 8)), np.eye(4)), template, "rigid")
    away = np.eye(4)
    away[:3, 3] = 900
    with pytest.raises(ValueError, match="overlap"):
        register(template, template, "rigid", start=away)


def test_real_pair_agrees_after_registration(real_data):
    from pdsynth.imaging.intensity import brain_mask, flatten

    session = real_data / "bids-real/sub-xa30"
    bold, b0 = (
        Volume(segment_means(path, [indices])[0], affine_of(path))
        for path, indices in (
            (session / "func/sub-xa30_task-fa_bold.nii.gz", np.arange(2, 20)),
            (session / "dwi/sub-xa30_dir-AP_dwi.nii.gz", np.array([0])),
        )
    )
    masks = brain_mask(b0), brain_mask(bold)
    found = register(flatten(b0, masks[0]), flatten(bold, masks[1]), "rigid", moving_mask=masks[0], fixed_mask=masks[1])
    there = resample(b0, Grid.of(bold), found)
    both = masks[1] & (resample(Volume(masks[0], b0.affine), Grid.of(bold), found) > 0.5)
    assert 2 * both.sum() / (masks[1].sum() + both.sum()) > 0.9
    assert np.corrcoef(there[both], bold.data[both])[0, 1] >= 0.75
    # The scanner's coordinates of one session hardly differ: a few mm and degrees at most.
    assert np.linalg.norm(found[:3, 3]) < 6
    assert Rotation.from_matrix(found[:3, :3]).magnitude() < np.radians(5)


def affine_of(path):
    from pdsynth.imaging.nifti import read_header

    return read_header(path).affine
