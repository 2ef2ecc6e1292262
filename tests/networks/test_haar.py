import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pdsynth.networks.haar import haar, inverse_haar, smooth_checkerboard

even = st.integers(1, 5).map(lambda n: 2 * n)


@settings(deadline=None, max_examples=25)
@given(st.integers(1, 2), st.integers(1, 3), even, even, even, st.integers(0, 2**16))
def test_norm_is_preserved_and_the_inverse_is_exact(b, c, x, y, z, seed):
    volume = torch.randn(b, c, x, y, z, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    bands = haar(volume)
    assert bands.shape == (b, 8 * c, x // 2, y // 2, z // 2)
    torch.testing.assert_close(bands.norm(), volume.norm(), rtol=1e-12, atol=0)
    torch.testing.assert_close(inverse_haar(bands), volume, rtol=0, atol=1e-13)


def test_matrix_of_the_transform_is_orthonormal():
    basis = torch.eye(8, dtype=torch.float64).view(8, 1, 2, 2, 2)
    matrix = haar(basis).flatten(1)
    torch.testing.assert_close(matrix @ matrix.T, torch.eye(8, dtype=torch.float64))
    assert torch.allclose(matrix.abs(), torch.full((8, 8), 8**-0.5, dtype=torch.float64))


def test_band_order_is_as_documented():
    ramps = {
        axis: torch.arange(2.0).view([2 if a == axis else 1 for a in range(5)]).expand(1, 1, 2, 2, 2)
        for axis in (2, 3, 4)
    }
    for axis, band in {4: 1, 3: 2, 2: 4}.items():
        bands = haar(ramps[axis]).flatten()
        assert bands.nonzero().flatten().tolist() == [0, band]
        assert bands[0] == pytest.approx(4 * 2**-1.5) and bands[band] == pytest.approx(-4 * 2**-1.5)


def test_channels_are_transformed_alone():
    volume = torch.randn(1, 3, 4, 4, 4)
    bands = haar(volume)
    for c in range(3):
        torch.testing.assert_close(bands[:, c::3], haar(volume[:, c : c + 1]))


def test_odd_side_is_refused():
    with pytest.raises(ValueError, match="odd side"):
        haar(torch.zeros(1, 1, 4, 5, 4))


def test_a_checkerboard_is_removed_and_a_slope_is_kept():
    x, y, z = torch.meshgrid(*[torch.arange(8.0)] * 3, indexing="ij")
    slope = (1 + x + 2 * y - z)[None, None]
    core = (..., *[slice(1, -1)] * 3)
    everywhere = torch.ones_like(slope)
    for place in (x, y, z, x + y, x + y + z):
        checked = slope + 5 * (-1) ** place
        torch.testing.assert_close(smooth_checkerboard(checked, everywhere)[core], slope[core], rtol=0, atol=1e-4)


def test_voxels_outside_have_no_weight():
    inside = torch.zeros(1, 1, 6, 6, 6)
    inside[..., 2:, :, :] = 1
    volume = torch.where(inside > 0, 3.0, 100.0)
    found = smooth_checkerboard(volume, inside)
    torch.testing.assert_close(found[inside > 0], torch.full_like(found[inside > 0], 3.0))
    assert (found[..., 0, :, :] == 0).all()
