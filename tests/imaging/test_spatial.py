import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage
from scipy.spatial.transform import Rotation

from pdsynth.imaging.nifti import Volume
from pdsynth.imaging.spatial import Grid, Transform, from_flirt, mni_grid, resample


def placed(spacing, origin=(0, 0, 0)):
    affine = np.diag([*np.broadcast_to(spacing, 3), 1.0])
    affine[:3, 3] = origin
    return affine


def random_affine(seed):
    generator = np.random.default_rng(seed)
    matrix = np.eye(4)
    matrix[:3, :3] = Rotation.from_rotvec(generator.uniform(-0.4, 0.4, 3)).as_matrix() @ np.diag(
        generator.uniform(0.8, 1.2, 3)
    )
    matrix[:3, 3] = generator.uniform(-20, 20, 3)
    return matrix


def test_default_grid_is_the_documented_one():
    grid = mni_grid(4)
    assert grid.shape == (48, 56, 48)
    assert grid.affine.tolist() == [[4, 0, 0, -94], [0, 4, 0, -132], [0, 0, 4, -78], [0, 0, 0, 1]]


@given(st.floats(0.5, 8))
def test_grids_cover_the_same_field_about_the_same_centre(spacing):
    grid = mni_grid(spacing)
    shape = np.array(grid.shape)
    assert (shape % 4 == 0).all()
    assert (shape * spacing >= np.array([192, 224, 192]) - 1e-3).all()
    assert ((shape - 4) * spacing < np.array([192, 224, 192])).all()
    assert (shape >= 24).all()  # the largest patch that a recipe trains on: see tests/methods/test_conformance.py
    np.testing.assert_allclose(grid.affine[:3, :3] @ ((shape - 1) / 2) + grid.affine[:3, 3], [0, -22, 16], atol=1e-9)


@pytest.mark.parametrize("spacing", [0, 0.1, 8.1, 16, 40, float("nan")])
def test_impossible_grids_are_refused(spacing):
    with pytest.raises(ValueError, match="not supported"):
        mni_grid(spacing)


def test_grids_compare_and_hash_by_value():
    assert mni_grid(4) == mni_grid(4.0)
    assert hash(mni_grid(4)) == hash(Grid((48, 56, 48), mni_grid(4).affine + 1e-9))
    assert mni_grid(4) != mni_grid(2)
    assert mni_grid(4) != Grid((48, 56, 48), np.eye(4))
    assert mni_grid(4) != "grid"
    with pytest.raises(ValueError, match="read-only"):
        mni_grid(4).affine[0, 0] = 1


def test_same_grid_changes_nothing():
    volume = Volume(np.random.default_rng(0).random((6, 7, 8)), random_affine(1))
    np.testing.assert_allclose(resample(volume, Grid.of(volume)), volume.data, atol=1e-5)


@pytest.mark.parametrize("flip", [(1, 1, 1), (-1, 1, 1), (1, -1, -1)])
def test_position_in_the_world_is_kept_whatever_the_orientation(flip):
    # A ramp in world x, y, z is linear, so that linear interpolation has to reproduce it exactly.
    affine = np.diag([*np.multiply(flip, (2.0, 2.5, 3.0)), 1.0])
    affine[:3, 3] = -np.multiply(flip, (2.0, 2.5, 3.0)) * 9
    index = np.indices((19, 19, 19)).reshape(3, -1)
    world = affine[:3, :3] @ index + affine[:3, 3:]
    volume = Volume((world.T @ [1.0, 2, 3]).reshape(19, 19, 19), affine)
    grid = Grid((5, 5, 5), placed(2.0, (-4, -4, -4)))
    shift = np.eye(4)
    shift[:3, 3] = (3, -2, 1)
    target = grid.affine[:3, :3] @ np.indices(grid.shape).reshape(3, -1) + grid.affine[:3, 3:]
    np.testing.assert_allclose(resample(volume, grid).ravel(), target.T @ [1, 2, 3], atol=1e-3)
    moved = (target - shift[:3, 3:]).T @ [1, 2, 3]  # world maps the volume's mm to the grid's
    np.testing.assert_allclose(resample(volume, grid, shift).ravel(), moved, atol=1e-3)


@pytest.mark.parametrize("spacing", [2.0, 3.3, 4.0, 6.0])
def test_coarser_grids_keep_the_mean_and_place(spacing):
    # A smooth blob: its mass and centre must survive, wherever blocks and blurs fall.
    centre = np.array([3.0, -2.0, 1.5])
    x = np.indices((80, 80, 80)).reshape(3, -1).T - 40.0
    blob = np.exp(-np.square(x - centre).sum(1) / (2 * 8**2)).reshape(80, 80, 80)
    fine = Volume(blob, placed(1.0, (-40, -40, -40)))
    n = round(84 / spacing)
    grid = Grid((n, n, n), placed(spacing, [-spacing * (n - 1) / 2] * 3))
    coarse = resample(fine, grid)
    np.testing.assert_allclose(coarse.sum() * spacing**3, blob.sum(), rtol=0.01)
    world = grid.affine[:3, :3] @ np.indices(grid.shape).reshape(3, -1) + grid.affine[:3, 3:]
    np.testing.assert_allclose(world @ coarse.ravel() / coarse.sum(), centre, atol=0.1)


@pytest.mark.parametrize("spacing", [2.5, 4.0, 8.0])
def test_going_coarser_does_not_alias(spacing):
    checks = (np.indices((64, 64, 64)).sum(0) % 2).astype(np.float32)  # the highest frequency there is
    grid = Grid((6, 6, 6), placed(spacing, (4, 4, 4)))
    np.testing.assert_allclose(resample(Volume(checks, np.eye(4)), grid), 0.5, atol=0.03)


def test_labels_stay_labels():
    labels = np.random.default_rng(0).integers(0, 9, (20, 20, 20))
    found = resample(Volume(labels, placed(1.0)), Grid((7, 7, 7), placed(2.7)), order=0)
    assert set(np.unique(found)) <= set(range(9))


def test_outside_of_the_field_of_view_is_zero():
    found = resample(Volume(np.ones((4, 4, 4)), np.eye(4)), Grid((8, 8, 8), placed(1.0, (-2, -2, -2))))
    assert found.sum() == 64
    assert (found[2:6, 2:6, 2:6] == 1).all()


@settings(max_examples=20)
@given(st.integers(0, 10_000))
def test_there_and_back_returns_the_volume(seed):
    world = random_affine(seed)
    smooth = ndimage.gaussian_filter(np.random.default_rng(seed).random((30, 30, 30)), 4)
    volume = Volume((smooth - smooth.min()) / np.ptp(smooth), placed(3.0, (-45, -45, -45)))
    grid = Grid((64, 64, 64), placed(2.5, (-80, -80, -80)))
    back = resample(Volume(resample(volume, grid, world), grid.affine), Grid.of(volume), np.linalg.inv(world))
    np.testing.assert_allclose(back[8:-8, 8:-8, 8:-8], volume.data[8:-8, 8:-8, 8:-8], atol=0.06)


@given(st.integers(0, 10_000), st.integers(0, 4))
def test_transform_inverts_and_survives_json(seed, steps):
    transform = Transform()
    expected = np.eye(4)
    for i in range(steps):
        transform = transform.then(f"step {i}", random_affine(seed + i))
        expected = random_affine(seed + i) @ expected
    np.testing.assert_allclose(transform.matrix, expected, atol=1e-9)
    np.testing.assert_allclose(transform.inverse().matrix @ transform.matrix, np.eye(4), atol=1e-9)
    back = Transform.of(json.loads(json.dumps(transform.entries())))
    assert list(back.steps) == list(transform.steps)
    np.testing.assert_array_equal(back.matrix, transform.matrix)


def test_a_step_is_named_once():
    with pytest.raises(ValueError, match="already"):
        Transform({"affine": np.eye(4)}).then("affine", np.eye(4))


@given(st.integers(0, 10_000), st.booleans(), st.booleans())
def test_a_flirt_matrix_maps_fsl_millimetres(seed, moving_flipped, fixed_flipped):
    """Against FSL's own words: mm from the first voxel, x from the last one where the affine is right-handed."""
    generator = np.random.default_rng(seed)
    grids = []
    for flipped, shape in ((moving_flipped, (40, 50, 30)), (fixed_flipped, (91, 109, 91))):
        affine = random_affine(seed + 1) @ np.diag([-2.0 if flipped else 2.0, 3.0, 2.5, 1.0])
        grids.append(Grid(shape, affine))
    world = random_affine(seed + 2)
    points = generator.uniform(-50, 50, (20, 3))  # mm of the moving image

    def fsl(grid: Grid, mm: np.ndarray) -> np.ndarray:
        voxels = (np.c_[mm, np.ones(len(mm))] @ np.linalg.inv(grid.affine).T)[:, :3]
        if np.linalg.det(grid.affine) > 0:
            voxels[:, 0] = grid.shape[0] - 1 - voxels[:, 0]
        return voxels * grid.spacing_mm

    there = (np.c_[points, np.ones(len(points))] @ world.T)[:, :3]
    left, right = (np.c_[fsl(g, mm), np.ones(len(mm))] for g, mm in ((grids[0], points), (grids[1], there)))
    matrix = np.linalg.lstsq(left, right, rcond=None)[0].T
    np.testing.assert_allclose(from_flirt(matrix, *grids), world, atol=1e-6)
