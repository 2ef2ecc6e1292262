"""Detail at 2 mm by networks: nothing before training, a known addition after it, one file of weights."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import ndimage

from pdsynth.imaging.intensity import TOP
from pdsynth.imaging.nifti import Volume
from pdsynth.imaging.spatial import Grid
from pdsynth.methods import checkpoint, create
from pdsynth.methods.detail import MULTIPLE, DetailNetworks, detail_channels, fine_grid
from pdsynth.recipes import RECIPES, settings_of
from pdsynth.types import Direction

NATIVE = Grid((26, 30, 20), np.array([[-3, 0, 0, 40], [0, 3, 0, -50], [0, 0, 4, -30], [0, 0, 0, 1]], float))
BRAIN = np.zeros(NATIVE.shape, bool)
BRAIN[5:-5, 6:-6, 4:-4] = True
INSIDE = ndimage.binary_erosion(BRAIN, iterations=2)
GENERATOR = np.random.default_rng(0)
SCAN = Volume(GENERATOR.uniform(300, 900, NATIVE.shape).astype(np.float32), NATIVE.affine)
EVEN = Volume(np.full(NATIVE.shape, 1 / TOP, np.float32), NATIVE.affine)


@pytest.fixture
def networks() -> DetailNetworks:
    torch.manual_seed(0)
    return DetailNetworks([d.value for d in Direction])


def test_the_fine_grid_covers_the_brain_and_its_margin_along_the_axes_of_the_scan() -> None:
    fine = fine_grid(NATIVE, BRAIN)
    np.testing.assert_allclose(fine.spacing_mm, 2)
    np.testing.assert_allclose(np.diag(fine.affine)[:3], [-2, 2, 2])
    to_native = np.linalg.inv(NATIVE.affine) @ fine.affine
    first, last = to_native[:3, 3], to_native[:3, :3] @ (np.array(fine.shape) - 1) + to_native[:3, 3]
    margin = 4 / NATIVE.spacing_mm
    np.testing.assert_allclose(first, [5, 6, 4] - margin)
    end = np.array([20, 23, 15]) + margin
    assert (last >= end - 1e-9).all() and (last < end + 2 / NATIVE.spacing_mm).all()


def test_the_channels_are_in_units_of_the_local_mean_and_of_the_median() -> None:
    fine = fine_grid(NATIVE, BRAIN)
    flat = Volume(np.full(NATIVE.shape, 700, np.float32), NATIVE.affine)
    source, estimate, sharper, mask = detail_channels(Volume(2 * EVEN.data, NATIVE.affine), flat, BRAIN, fine)
    deep = ndimage.binary_erosion(mask > 0, iterations=3)
    np.testing.assert_allclose(source[deep], 0, atol=1e-4)
    np.testing.assert_allclose(estimate[deep], 1, atol=1e-4)  # twice the median
    np.testing.assert_allclose(sharper[deep], 1, atol=1e-3)  # a flat source has no detail
    assert set(np.unique(mask)) == {0, 1} and not source[mask == 0].any() and not estimate[mask == 0].any()


def test_untrained_networks_add_nothing_and_a_bias_is_added_in_the_brain_alone(networks: DetailNetworks) -> None:
    assert not networks.added(EVEN, SCAN, BRAIN, Direction.FMRI_TO_DMRI).any()
    leave = networks.networks["fmri_to_dmri"].leave
    with torch.no_grad():
        leave.bias[0] = 8**0.5  # the first Haar coefficient: a constant of 1 in each block of 2 x 2 x 2 voxels
    found = networks.added(EVEN, SCAN, BRAIN, Direction.FMRI_TO_DMRI)
    np.testing.assert_allclose(found[INSIDE], 1 / TOP, rtol=1e-4)
    assert not found[~BRAIN].any()
    assert not networks.added(EVEN, SCAN, BRAIN, Direction.DMRI_TO_FMRI).any()


def test_an_odd_shape_is_padded_and_cut_again(networks: DetailNetworks) -> None:
    shape = (MULTIPLE + 1, 5, 2 * MULTIPLE)
    assert networks(torch.zeros(1, 4, *shape), Direction.DMRI_TO_FMRI).shape == (1, 1, *shape)


def test_the_networks_are_saved_with_the_method(tmp_path) -> None:
    method = create("copy-source", {"grid_shape": [8, 8, 8], "detail_directions": ["dmri_to_fmri"]})
    with torch.no_grad():
        method.detail.networks["dmri_to_fmri"].leave.bias[:] = 0.25
    loaded, _ = checkpoint.load(checkpoint.save(method, tmp_path / "model", {}))
    assert loaded.config.detail_directions == ("dmri_to_fmri",)
    for name, value in method.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], value), name
    assert create("copy-source", {"grid_shape": [8, 8, 8]}).detail is None
    assert not loaded.detail.added(EVEN, SCAN, BRAIN, Direction.FMRI_TO_DMRI).any()  # it has no network
    assert loaded.detail.added(EVEN, SCAN, BRAIN, Direction.DMRI_TO_FMRI)[INSIDE].all()
    with pytest.raises(ValueError, match="sideways"):
        DetailNetworks(["sideways"])


def test_a_recipe_does_not_choose_them() -> None:
    with pytest.raises(ValueError, match="no setting 'detail_directions'"):
        settings_of(RECIPES["pds"], changes={"detail_directions": "dmri_to_fmri"})
