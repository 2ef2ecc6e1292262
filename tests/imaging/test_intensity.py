import nibabel as nib
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import ndimage

from pdsynth.imaging.intensity import TOP, RobustScale, brain_mask, bright_piece, flatten, receive_field
from pdsynth.imaging.nifti import Volume, read_header
from pdsynth.imaging.segments import nearest_shell, read_gradients, segment_means
from pdsynth.imaging.spatial import Grid, mni_grid, resample
from pdsynth.imaging.template import epi_template, tissue_template

BOLD = {  # file and plausible brain in the field of view, ml
    "bids-real/sub-xa30/func/sub-xa30_task-fa_bold": (1200, 1600),
    "odd/bold_156vol_task-oneback": (1300, 1750),
}
DWI = {
    "bids-real/sub-xa30/dwi/sub-xa30_dir-AP_dwi": (1300, 1650),
    "bids-real/sub-xa30/dwi/sub-xa30_dir-PA_dwi": (1300, 1650),
    "single/dwi_siemens_b1000": (1300, 1650),
    "odd/dwi_toshiba": (1200, 1600),
    "odd/dwi_partial-slab_b0-reads-1.25": (850, 1150),
}


@given(st.integers(0, 999), st.floats(0.1, 1e5))
def test_scale_is_the_percentile_and_divides_by_it(seed, gain):
    generator = np.random.default_rng(seed)
    volume = (gain * generator.random((6, 6, 6))).astype(np.float32)
    mask = generator.random((6, 6, 6)) < 0.7
    scale = RobustScale.by_percentile(volume, mask)
    assert scale.unit == pytest.approx(np.percentile(volume[mask], 99.5))
    scaled = scale.apply(volume)
    assert scaled.min() >= 0
    assert scaled.max() <= 1
    kept = volume <= scale.unit
    np.testing.assert_allclose(scaled[kept] * scale.unit, volume[kept], rtol=1e-5)
    np.testing.assert_allclose(scaled, RobustScale.by_percentile(3 * volume, mask).apply(3 * volume), atol=1e-5)


def test_scale_needs_a_signal():
    with pytest.raises(ValueError, match="mask is empty"):
        RobustScale.by_percentile(np.ones((2, 2, 2)), np.zeros((2, 2, 2)))
    with pytest.raises(ValueError, match="signal"):
        RobustScale.by_percentile(np.zeros((2, 2, 2)), np.ones((2, 2, 2)))


def ball(seed=0, n=24):
    """Noise about 1 in a ball of 70 mm, on voxels of 8 mm, and the ball's mask."""
    place = np.moveaxis(np.indices((n, n, n)), 0, -1) - (n - 1) / 2
    mask = np.square(8 * place).sum(-1) < 70**2
    texture = 1 + 0.2 * np.random.default_rng(seed).standard_normal((n, n, n))
    return Volume(np.abs(texture), np.diag([8.0, 8.0, 8.0, 1.0])), mask


@given(st.integers(0, 999), st.floats(0.1, 1e5))
def test_the_flat_median_scale_leaves_the_median_and_is_inverted(seed, gain):
    volume, mask = ball(seed)
    volume = Volume(gain * volume.data, volume.affine)
    scale = RobustScale.flat_median(volume, mask)
    median = np.median(volume.data[mask])
    assert scale.unit == pytest.approx(TOP * median)
    scaled = scale.apply(volume.data)
    assert np.median(scaled[mask]) == pytest.approx(1 / TOP, rel=1e-5)
    assert (scale.field > 0).all() and np.isfinite(scale.field).all()
    kept = (scaled < 1) & (scaled > 0)
    np.testing.assert_allclose(scale.unit * (scaled * scale.field)[kept], volume.data[kept], rtol=1e-4)
    assert np.median((scaled * scale.field)[mask]) == pytest.approx(1 / TOP, rel=1e-5)


@pytest.mark.parametrize("gain", [0.125, 4.0, 2.0**20])
def test_a_louder_volume_becomes_the_same_bytes(gain):
    volume, mask = ball()
    louder = Volume(gain * volume.data, volume.affine)
    scaled = [RobustScale.flat_median(v, mask).apply(v.data) for v in (volume, louder)]
    assert scaled[0].tobytes() == scaled[1].tobytes()


def test_a_coils_field_is_removed_and_an_even_scan_keeps_its_values():
    even = epi_template(mni_grid(4))
    mask = tissue_template(mni_grid(4))["brain"] > 0.5
    world = np.moveaxis(np.indices(even.data.shape), 0, -1) @ even.affine[:3, :3].T + even.affine[:3, 3]
    reference = RobustScale.flat_median(even, mask).apply(even.data)[mask]
    # the first two vary by a factor of 2.4 in the brain, the last by 1.7
    for coil in (np.exp(world[..., 0] / 160), np.exp(-world[..., 1] / 200), np.exp(np.square(world).sum(-1) / 150**2)):
        seen = Volume(even.data * coil, even.affine)
        scaled = RobustScale.flat_median(seen, mask).apply(seen.data)[mask]
        by_percentile = [RobustScale.by_percentile(v.data, mask).apply(v.data)[mask] for v in (seen, even)]
        assert np.abs(scaled - reference).mean() < min(0.02, np.abs(np.subtract(*by_percentile)).mean() / 4)


def test_the_field_of_a_constant_is_the_constant_up_to_its_reach():
    _, mask = ball(n=40)
    field = receive_field(Volume(np.full(mask.shape, 7.0), np.diag([8.0, 8.0, 8.0, 1.0])), mask)
    np.testing.assert_allclose(field[field > 0], 7, rtol=1e-4)
    reach = ndimage.distance_transform_edt(~mask, sampling=8)
    assert (field[reach < 70] > 0).all() and (field[reach > 75 * np.sqrt(3) + 8] == 0).all()
    assert (RobustScale.flat_median(Volume(np.full(mask.shape, 7.0), np.eye(4)), mask).field > 0).all()


def test_flat_median_needs_a_signal():
    volume, mask = ball()
    with pytest.raises(ValueError, match="mask is empty"):
        RobustScale.flat_median(volume, np.zeros_like(mask))
    with pytest.raises(ValueError, match=r"the median in the brain is 0\.0; check that the scan contains a signal"):
        RobustScale.flat_median(Volume(volume.data * (np.arange(24) < 8), volume.affine), mask)


def head(tissues, coil=0.0, scalp=0.35, scalp_mm=(8, 14), noise=0.02, seed=0):
    """An EPI-like head on the 4 mm grid: the template's brain, dark skull, scalp, eyes, and a coil's field.

    scalp_mm: where the scalp begins and ends, as distances from the brain in mm.
    """
    grid = mni_grid(4)
    maps = tissue_template(grid)
    data = sum(weight * maps[name] for name, weight in tissues.items())
    distance = ndimage.distance_transform_edt(maps["brain"] < 0.5, sampling=4)
    world = np.moveaxis(np.indices(grid.shape), 0, -1) @ grid.affine[:3, :3].T + grid.affine[:3, 3]
    data = data + scalp * ((distance > scalp_mm[0]) & (distance <= scalp_mm[1]) & (world[..., 2] > -60))
    for side in (-32, 32):
        data = data + 1.5 * (np.square(world - [side, 66, -36]).sum(-1) < 11**2)
    depth = ndimage.distance_transform_edt(maps["brain"] > 0.5, sampling=4)
    data = data * np.exp(-coil * depth / depth.max())
    generator = np.random.default_rng(seed)
    noisy = np.hypot(
        data + noise * generator.standard_normal(grid.shape), noise * generator.standard_normal(grid.shape)
    )
    return Volume(noisy, grid.affine)


def dice(a, b):
    return 2 * (a & b).sum() / (a.sum() + b.sum())


@pytest.mark.parametrize("coil", [0.0, 1.6], ids=["even field", "five times brighter at the rim"])
@pytest.mark.parametrize("csf", [1.4, 0.1], ids=["bright CSF", "black CSF"])
@pytest.mark.parametrize("scalp", [0.0, 0.35], ids=["stripped", "with scalp"])
def test_mask_is_the_templates_brain(coil, csf, scalp):
    volume = head({"gm": 1.0, "wm": 0.85, "csf": csf}, coil=coil, scalp=scalp)
    mask, true = brain_mask(volume), tissue_template(mni_grid(4))["brain"] > 0.5
    assert dice(mask, true) > 0.93
    assert one_piece_without_holes(mask)


def test_a_thick_scalp_near_the_brain_is_not_brain():
    volume = head({"gm": 1.0, "wm": 0.85, "csf": 1.4}, scalp=0.8, scalp_mm=(4, 18))
    true = tissue_template(mni_grid(4))["brain"] > 0.5
    rough = bright_piece(volume.data, volume.spacing_mm)
    assert dice(rough, true) < 0.75  # brightness alone does not separate them
    assert dice(brain_mask(volume), true) > 0.9


def one_piece_without_holes(mask):
    return ndimage.label(mask)[1] == 1 and (ndimage.binary_fill_holes(mask) == mask).all()


def test_mask_does_not_depend_on_gain_or_axis_order():
    volume = head({"gm": 1.0, "wm": 0.8, "csf": 1.3})
    mask = brain_mask(volume)
    louder = brain_mask(Volume(volume.data * 731, volume.affine))
    np.testing.assert_array_equal(mask, louder)
    flipped = volume.affine @ np.array([[-1, 0, 0, 47], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]])
    assert dice(mask, brain_mask(Volume(volume.data[::-1], flipped))[::-1]) > 0.99


def test_mask_is_remembered_and_protected():
    volume = epi_template(mni_grid(4))
    mask = brain_mask(volume)
    assert brain_mask(volume) is mask
    assert brain_mask(Volume(volume.data, volume.affine)) is not mask
    with pytest.raises(ValueError, match="read-only"):
        brain_mask(volume)[0] = True


@pytest.mark.parametrize(
    ("data", "words"),
    [(np.zeros((20, 20, 20)), "no signal"), (np.eye(20)[..., None] * np.eye(20)[0], "no brain")],
)
def test_volumes_without_a_head_are_refused(data, words):
    with pytest.raises(ValueError, match=words):
        brain_mask(Volume(data, np.diag([10.0, 10, 10, 1])))


def test_flattening_removes_a_smooth_field():
    even = epi_template(mni_grid(4))
    mask = tissue_template(mni_grid(4))["brain"] > 0.9
    ramp = np.linspace(0.5, 2, 48)[:, None, None]
    flat = flatten(Volume(even.data * ramp, even.affine), mask)
    reference = flatten(even, mask)
    assert np.std((even.data * ramp)[mask] / even.data[mask]) > 0.25
    assert np.std(flat.data[mask] / reference.data[mask]) < 0.1
    assert (flat.data[~mask] == 0).all()


def real_means(real_data):
    """Mean BOLD, b0 and mean b>0 of every real scan with its plausible brain volume."""
    for name, limits in BOLD.items():
        path = real_data / f"{name}.nii.gz"
        header = read_header(path)
        yield name, Volume(segment_means(path, [np.arange(2, min(20, header.n_volumes))])[0], header.affine), limits
    for name, limits in DWI.items():
        path = real_data / f"{name}.nii.gz"
        header = read_header(path)
        table = read_gradients(real_data / f"{name}.bval", real_data / f"{name}.bvec", header.n_volumes, path)
        means = segment_means(path, [np.flatnonzero(table.is_b0), nearest_shell(table.bvals)[0]])
        for part, mean in zip(("b0", "b>0"), means, strict=True):
            yield f"{name} {part}", Volume(mean, header.affine), limits


def test_real_masks_are_whole_brains(real_data):
    for name, volume, (least, most) in real_means(real_data):
        mask = brain_mask(volume)
        ml = mask.sum() * abs(np.linalg.det(volume.affine[:3, :3])) / 1000
        assert least < ml < most, name
        assert one_piece_without_holes(mask), name
        # Each slice of the middle half has its brain in one filled piece: no hole, no missing hemisphere.
        depth = mask.shape[2]
        for z in range(depth // 3, 2 * depth // 3):
            labels, count = ndimage.label(mask[:, :, z])
            biggest = np.bincount(labels.ravel())[1:].max()
            assert biggest > 0.97 * mask[:, :, z].sum(), (name, z, count)
            holes = ndimage.binary_fill_holes(mask[:, :, z]) & ~mask[:, :, z]
            assert holes.sum() < 0.01 * mask[:, :, z].sum(), (name, z)


def test_lost_voxel_size_still_gives_a_mask(real_data):
    path = real_data / "odd/bold_header-zooms-1mm_filtered_func_data.nii.gz"
    volume = Volume(np.asarray(nib.load(path).dataobj)[..., :20].mean(-1), np.eye(4))  # its header is refused
    mask = brain_mask(volume)
    assert 0.15 < mask.mean() < 0.25
    assert volume.data[mask].mean() > 5 * volume.data[~mask].mean()


def test_oblique_scan_has_the_same_mask():
    volume = head({"gm": 1.0, "wm": 0.85, "csf": 1.3})
    angle = np.radians(25)
    tilt = np.eye(4)
    tilt[1:3, 1:3] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    grid = Grid((64, 72, 64), tilt @ np.array([[3.5, 0, 0, -110], [0, 3.5, 0, -140], [0, 0, 3.5, -100], [0, 0, 0, 1]]))
    tilted = Volume(resample(volume, grid), grid.affine)
    back = resample(Volume(brain_mask(tilted), grid.affine), mni_grid(4)) > 0.5
    assert dice(back, brain_mask(volume)) > 0.95
