"""Image metrics against closed forms, skimage, MONAI and a plain reading of their definitions."""

import numpy as np
import pytest
from scipy import ndimage
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from pdsynth.evaluation import metrics
from pdsynth.evaluation.metrics import intensity, masks, structure, texture


@pytest.fixture(scope="module")
def images():
    """A smooth "real" volume in a ball, a noisy prediction of it, and the ball."""
    generator = np.random.default_rng(0)
    axes = np.meshgrid(*(np.linspace(-1, 1, n) for n in (48, 56, 48)), indexing="ij")
    ball = sum(a**2 for a in axes) < 0.6
    real = ndimage.gaussian_filter(generator.random(ball.shape), 2)
    real = (real - real.min()) / np.ptp(real) * ball
    pred = np.clip(real + generator.normal(0, 0.05, real.shape) * ball, 0, 1)
    return pred.astype(np.float32), real.astype(np.float32), metrics.dilate(ball)


def test_psnr_of_a_constant_error_is_its_closed_form(images):
    _, real, mask = images
    assert intensity.psnr(real + 0.1, real, mask) == pytest.approx(20, abs=1e-4)
    assert intensity.psnr(real, real, mask) == intensity.PERFECT_PSNR


def test_psnr_ignores_what_lies_outside_the_mask(images):
    pred, real, mask = images
    assert intensity.psnr(np.where(mask, pred, 9), real, mask) == intensity.psnr(pred, real, mask)


@pytest.mark.parametrize("metric", [intensity.psnr, intensity.psnr_affine])
def test_psnr_refuses_an_empty_mask_and_does_not_call_it_perfect(images, metric):
    pred, real, mask = images
    with pytest.raises(ValueError, match="the brain mask is empty"):
        metric(pred, real, np.zeros_like(mask))


def test_psnr_full_equals_skimage(images):
    pred, real, _ = images
    expected = peak_signal_noise_ratio(real, pred, data_range=1)
    assert intensity.psnr_full(pred, real) == pytest.approx(expected, abs=1e-5)


def test_background_raises_the_full_psnr(images):
    pred, real, mask = images
    gain = 10 * np.log10(mask.size / mask.sum())
    assert intensity.psnr_full(pred, real) - intensity.psnr(pred, real, mask) == pytest.approx(gain, abs=1e-4)


def test_affine_psnr_undoes_scale_and_offset(images):
    pred, real, mask = images
    assert intensity.psnr_affine(0.5 * real + 0.2, real, mask) > 90
    assert intensity.psnr_affine(pred, real, mask) >= intensity.psnr(pred, real, mask)
    constant = -10 * np.log10(real[mask].var())
    assert intensity.psnr_affine(np.zeros_like(real), real, mask) == pytest.approx(constant, abs=1e-4)


def test_ssim_on_the_box_equals_the_full_skimage_map_inside_the_mask(images):
    pred, real, mask = images
    mean, full = structural_similarity(
        real, pred, data_range=1, gaussian_weights=True, sigma=1.5, use_sample_covariance=False, full=True
    )
    assert structure.ssim(pred, real, mask) == pytest.approx(full[mask].mean(), abs=1e-6)
    assert structure.ssim_full(pred, real) == pytest.approx(mean, abs=1e-6)
    quality = metrics.image_quality(pred, real, mask)
    assert quality["ssim_brain"] == pytest.approx(full[mask].mean(), abs=1e-6)


def test_ssim_terms_equal_skimage_and_ms_ssim_equals_monai_where_both_are_defined(images):
    torch = pytest.importorskip("torch")
    from monai.metrics.regression import MultiScaleSSIMMetric, compute_ssim_and_cs

    pred, real, _ = images
    contrast, luminance = structure._ssim_terms(pred, real)
    ours = contrast * luminance
    theirs = structure.ssim_map(pred, real)[1]
    np.testing.assert_allclose(ours, theirs, atol=1e-5)

    p, r = (torch.from_numpy(x)[None, None] for x in (pred, real))
    options = {"spatial_dims": 3, "data_range": 1.0, "kernel_type": "gaussian", "kernel_sigma": (1.5,) * 3}
    full, cs = compute_ssim_and_cs(p, r, kernel_size=(11,) * 3, **options)
    inner = (slice(5, -5),) * 3
    np.testing.assert_allclose(ours[inner], full[0, 0].numpy(), atol=1e-3)  # float32
    np.testing.assert_allclose(contrast[inner], cs[0, 0].numpy(), atol=1e-3)

    weights = tuple(np.asarray(structure.MS_SSIM_WEIGHTS) / sum(structure.MS_SSIM_WEIGHTS))
    monai = MultiScaleSSIMMetric(spatial_dims=3, data_range=1.0, kernel_size=11, kernel_sigma=1.5, weights=weights)
    everywhere = np.ones(real.shape, bool)  # MONAI leaves five voxels at each edge out, so the two differ a little
    assert structure.ms_ssim(pred, real, everywhere) == pytest.approx(float(monai(p, r)), abs=0.02)


def test_ms_ssim_is_one_for_equal_and_zero_for_empty_images(images):
    pred, real, mask = images
    assert structure.ms_ssim(real, real, mask) == pytest.approx(1, abs=1e-5)
    assert structure.ms_ssim(np.zeros_like(real), real, mask) < 0.05
    assert 0.5 < structure.ms_ssim(pred, real, mask) < 1


def test_ms_ssim_refuses_a_mask_that_lower_resolutions_leave_out():
    image = np.random.default_rng(0).random((45, 46, 44)).astype(np.float32)
    for plane, message in ((44, "voxels only in the last planes of the grid"), (None, "the brain mask is empty")):
        mask = np.zeros(image.shape, bool)
        if plane is not None:
            mask[plane, 20:30, 20:30] = True
        with pytest.raises(ValueError, match=message):
            structure.ms_ssim(image, image, mask)
    mask[0, 20:30, 20:30] = True
    assert structure.ms_ssim(image, image, mask) == pytest.approx(1, abs=1e-5)


def test_boxed_filters_equal_the_whole_grid(images):
    pred, real, mask = images
    edges = [ndimage.gaussian_laplace(x.astype(np.float32), 1.5, truncate=4.7)[mask] for x in (pred - real, real)]
    assert texture.hfen(pred, real, mask) == pytest.approx(
        np.linalg.norm(edges[0]) / np.linalg.norm(edges[1]), rel=1e-5
    )
    slopes = [np.sqrt(sum(g**2 for g in np.gradient(x)))[mask].mean() for x in (pred, real)]
    assert texture.sharpness(pred, real, mask) == pytest.approx(slopes[0] / slopes[1], rel=1e-5)


def test_ideal_and_empty_predictions(images):
    _, real, mask = images
    ideal, empty = (metrics.image_quality(p, real, mask) for p in (real, np.zeros_like(real)))
    for name, value in {"ssim_brain": 1, "mae": 0, "voxel_r": 1, "hfen": 0, "sharpness": 1}.items():
        assert ideal[name] == pytest.approx(value, abs=1e-6)
    for name, value in {"hfen": 1, "sharpness": 0, "voxel_r": 0, "spectrum_high": 0}.items():
        assert empty[name] == pytest.approx(value, abs=1e-6)
    assert all(np.isfinite(v) for v in [*ideal.values(), *empty.values()])


def test_spectrum_ratios_follow_the_square_of_the_scale_and_fall_with_blur(images):
    _, real, mask = images
    assert list(texture.spectrum_ratios(0.5 * real, real, mask).values()) == pytest.approx([0.25] * 3, rel=1e-4)
    blurred = texture.spectrum_ratios(ndimage.gaussian_filter(real, 1.5), real, mask)
    assert blurred["high"] < blurred["low"] < 1


def test_sharpness_falls_with_blur(images):
    _, real, mask = images
    assert texture.sharpness(ndimage.gaussian_filter(real, 1), real, mask) < 0.9


def test_dilate_adds_face_neighbours():
    point = np.zeros((5, 5, 5), bool)
    point[2, 2, 2] = True
    assert metrics.dilate(point).sum() == 7


def test_bounding_box_stays_on_the_grid_and_refuses_an_empty_mask():
    mask = np.zeros((10, 10, 10), bool)
    mask[1:3, 4, 9] = True
    assert masks.bounding_box(mask, 2) == (slice(0, 5), slice(2, 7), slice(7, 10))
    with pytest.raises(ValueError, match="empty"):
        masks.bounding_box(np.zeros((3, 3, 3), bool), 1)


def test_metrics_that_share_a_function_run_it_once(images, monkeypatch):
    pred, real, mask = images
    runs = []

    def extremes(*volumes):
        runs.append(len(volumes))
        return {"low": volumes[0].min(), "high": volumes[0].max()}

    given = [
        metrics.Metric(f"pred_{part}", "", "", metrics.Better.ONE, 1, "", extremes, part) for part in ("low", "high")
    ]
    monkeypatch.setattr(metrics, "METRICS", given)
    assert metrics.image_quality(pred, real, mask) == {"pred_low": pred.min(), "pred_high": pred.max()} and runs == [3]


def test_the_primary_endpoint_comes_first_and_what_has_no_better_value_last():
    first, *others = metrics.METRICS
    assert first.name == metrics.PRIMARY and first.heading == "PSNR, dB"
    assert [m.name for m in others if m.better is metrics.Better.NEITHER] == ["psnr_full", "ssim_full"]
    assert [m.name for m in others[-2:]] == ["psnr_full", "ssim_full"]
    with pytest.raises(ValueError, match="two metrics are named 'mae'"):
        metrics._ordered([*metrics.METRICS, next(m for m in metrics.METRICS if m.name == "mae")])
